# SPDX-License-Identifier: Apache-2.0
"""Compiled policies in the real kernel's maps: what is read back, adopted, freed, and left by kill -9."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from sensor.kernel import Kernel, KernelOptions
from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.state import U32
from sensor.policy import layout
from sensor.policy.apply import PolicyTables
from sensor.policy.limits import QUARANTINE_NS
from sensor.policy.tables import POLICY_OF_TAG
from tests.support.kernel_lab import ROOT
from tests.support.policies import SLOT, RuleBook, versions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sensor.policy.policy import Policy
    from sensor.policy.rules import RuleSet

pytestmark = pytest.mark.kernel

KILLS = 12


@contextlib.contextmanager
def trie_at(kernel: Kernel, kind: str, index: int) -> Iterator[int | None]:
    """A descriptor of a rule set's trie, or None."""
    value = bpf.map_lookup(kernel._maps[f"{kind}_rules"], U32.pack(index), U32.size)
    if value is None:
        yield None
        return
    fd = bpf.map_get_fd_by_id(U32.unpack(value)[0])
    yield fd
    os.close(fd)


def holds(kernel: Kernel, index: int, rules: RuleSet) -> bool:
    """Whether the tries at an index answer with every item of a rule set."""
    for kind in layout.KINDS:
        items = dict(rules.items(kind))
        with trie_at(kernel, kind, index) as fd:
            if fd is None:
                if items:
                    return False
                continue
            if any(bpf.map_lookup(fd, key, U32.size) != U32.pack(items[key]) for key in items):
                return False
    return True


def tries_at(kernel: Kernel, index: int) -> set[int]:
    """The kernel's ids of the tries at an index."""
    places = [kernel._maps[f"{kind}_rules"] for kind in layout.KINDS]
    values = [bpf.map_lookup(place, U32.pack(index), U32.size) for place in places]
    return {U32.unpack(value)[0] for value in values if value}


def is_in_force(kernel: Kernel, policy: Policy, book: RuleBook) -> bool:
    """Whether a slot's policy is whole and exactly this one."""
    tag = dict(kernel.policy.policy_slots()).get(SLOT, 0)
    value = dict(kernel.policy.policies())[tag & POLICY_OF_TAG]
    grants = [value.grants.rulesets]
    rules = dict(kernel.policy.program_rules())
    grants += [each.rulesets for key, each in rules.items() if key.policy == tag & POLICY_OF_TAG]
    rulesets = dict(kernel.policy.rulesets())
    led_to = {rulesets[index].content: index for each in grants for index in each}
    return (
        value.content == policy.content
        and led_to.keys() == policy.rule_sets()
        and all(holds(kernel, index, book.known[content]) for content, index in led_to.items())
    )


def test_what_is_applied_is_in_the_maps_and_is_freed_when_nothing_leads_to_it(kernel: Kernel) -> None:
    book = RuleBook()
    first, second = versions(book)
    tables = PolicyTables(kernel.policy)
    assert tables.apply({SLOT: first}, book) == {}
    assert is_in_force(kernel, first, book)
    assert tables.apply({SLOT: second}, book) == {}
    assert is_in_force(kernel, second, book)
    assert tables.apply({SLOT: None}, book) == {}
    for step in range(4):
        tables.collect(step * QUARANTINE_NS)
    assert tables.counters["free_failed"] == 0
    assert list(kernel.policy.rulesets()) == []
    assert list(kernel.policy.policies()) == []
    assert list(kernel.policy.program_rules()) == []
    assert list(kernel.policy.program_ids()) == []
    assert set[int]().union(*(tries_at(kernel, index) for index in range(16))) <= kernel.policy._empty_ids


def test_a_restarted_sensor_adopts_the_rules_and_builds_none(options: KernelOptions) -> None:
    book = RuleBook()
    first, _ = versions(book)
    with contextlib.closing(Kernel.start(options)) as kernel:
        assert PolicyTables(kernel.policy).apply({SLOT: first}, book) == {}
    with contextlib.closing(Kernel.start(options)) as kernel:
        tables = PolicyTables(kernel.policy)
        assert tables.adopt() == 1
        book.asked = 0
        assert tables.apply({SLOT: first, SLOT + 1: first}, book) == {}
        assert book.asked == 0
        assert is_in_force(kernel, first, book)


KILLED = """
import json, sys
from sensor.kernel.policy_maps import PolicyMaps
from sensor.policy.apply import PolicyTables
from tests.support.policies import SLOT, RuleBook, versions
book = RuleBook()
both = versions(book)
tables = PolicyTables(PolicyMaps(json.loads(sys.argv[1]), int(sys.argv[2])))
tables.adopt()
print("ready", flush=True)
for turn in range(1_000_000):
    assert tables.apply({SLOT: both[turn % 2]}, book) == {}
    tables.collect(turn * 2_000_000_000)
"""


@contextlib.contextmanager
def updating(kernel: Kernel) -> Iterator[subprocess.Popen[str]]:
    """A process that switches between the two versions without end."""
    identify = kernel._iterators["identify_programs"]
    command = [sys.executable, "-c", KILLED, json.dumps(dict(kernel._maps)), str(identify)]
    descriptors = (*kernel._maps.values(), identify)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, pass_fds=descriptors, cwd=ROOT
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_kill_9_in_the_middle_of_updates_leaves_old_or_new_rules_and_the_next_sensor_goes_on(
    kernel: Kernel,
) -> None:
    book = RuleBook()
    both = versions(book)
    assert PolicyTables(kernel.policy).apply({SLOT: both[0]}, book) == {}
    for _ in range(KILLS):
        with updating(kernel):
            time.sleep(random.uniform(0, 0.2))
        in_force = [at for at, policy in enumerate(both) if is_in_force(kernel, policy, book)]
        assert len(in_force) == 1
        tables = PolicyTables(kernel.policy)
        tables.adopt()
        other = both[1 - in_force[0]]
        assert tables.apply({SLOT: other}, book) == {}
        assert is_in_force(kernel, other, book)
