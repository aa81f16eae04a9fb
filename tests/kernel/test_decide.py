# SPDX-License-Identifier: Apache-2.0
"""The decision in Python against the kernel's: random profiles, real flows, one answer.

What is said on a connection is test_decide_payloads.py's, questions are test_decide_questions.py's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.addresses import to_mapped
from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.policy_state import LearnedKey, LearnedValue, ResolverKey
from sensor.kernel.state import U64
from sensor.policy import layout, names
from sensor.policy.apply import PolicyTables
from sensor.policy.decide import Verdict, decide, decide_bind
from sensor.policy.layers import Direction, Flow, RuleTries
from sensor.policy.payloads import Payload
from sensor.policy.profile import Program
from sensor.policy.tables import POLICY_OF_TAG
from tests.support import flow_actor
from tests.support.kernel_lab import ROOT, Cgroup
from tests.support.policies import RuleBook
from tests.support.profiles import (
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    network,
    networks,
    process,
    profile,
    random_policies,
    rules,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sensor.policy.policy import Policy
    from tests.support.kernel_watch import Watch

pytestmark = pytest.mark.kernel

# Random policies, each with FLOWS flows.
POLICIES = 120
FLOWS = 20
RESOLVER = "10.0.0.2"
SLOT = 900
NAME_ID, LONG_NS = 77, 1 << 62
Case = tuple[str, str, int, int]
# A socket that has sent may be answered; what comes to one that has not must come in.
WAYS: dict[str, tuple[Direction, int]] = {
    "tcp-out": ("out", TCP),
    "tcp-in": ("in", TCP),
    "udp-out": ("either", UDP),
    "udp-in": ("either", UDP),
    "udp-first": ("in", UDP),
    "ping": ("out", ICMP),
    "bind": ("in", TCP),
}
# Whose rules the actor has, where a profile names its program.
PYTHON = Program(os.path.realpath(sys.executable))
MODES = st.sampled_from(["ENFORCE", "ENFORCE", "ALERT", "IGNORE"])


class Actor:
    """The two ends of tests/support/flow_actor.py."""

    def __init__(self, cgroup: Cgroup) -> None:
        self._process = subprocess.Popen(
            [sys.executable, flow_actor.__file__, str(cgroup.path / "cgroup.procs")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert self._process.stdin
        assert self._process.stdout
        self._commands, self._answers = self._process.stdin, self._process.stdout
        assert self._answers.readline() == "ready\n"

    def passes(self, case: Case) -> bool:
        """Make a flow."""
        self._commands.write(json.dumps(case) + "\n")
        self._commands.flush()
        return bool(json.loads(self._answers.readline()))

    def close(self) -> None:
        """End both."""
        self._commands.close()
        self._process.wait()
        self._answers.close()


@pytest.fixture(scope="module")
def pod(watch: Watch) -> Iterator[Cgroup]:
    made = Cgroup(watch.cgroup.path / "decided")
    made.path.mkdir()
    yield made
    made.remove()


@pytest.fixture(scope="module")
def governed(watch: Watch, pod: Cgroup) -> Iterator[tuple[Actor, PolicyTables]]:
    watch.kernel.state.set_workload(pod.id, pod.id, SLOT)
    watch.kernel.policy.set_resolver(ResolverKey(pod.id, to_mapped(RESOLVER)))
    actor = Actor(pod)
    yield actor, PolicyTables(watch.kernel.policy)
    actor.close()


def cases() -> st.SearchStrategy[Case]:
    """Flows the actor can make. DNS has tests of its own; only the connection to a resolver is made here."""
    address = st.sampled_from(flow_actor.ADDRESSES + flow_actor.LOOPBACK)
    port = st.sampled_from(flow_actor.PORTS)
    ways = st.sampled_from(list(WAYS))
    question = st.tuples(st.just("tcp-out"), address, st.just(53), port)
    return st.tuples(ways, address, port, port) | question


def flow_of(case: Case) -> Flow:
    """What a case is: connections say nothing, datagrams nothing that can be read."""
    way, address, port, local_port = case
    direction, protocol = WAYS[way]
    remote = to_mapped(address)
    if way == "ping":
        protocol, kind = (ICMPV6, 128) if ":" in address else (ICMP, 8)
        return Flow(direction, protocol, remote, kind << 8, kind << 8)
    payload = Payload(layout.L7_OPAQUE) if protocol == UDP else None
    return Flow(direction, protocol, remote, port, local_port, frozenset(), address == RESOLVER, payload)


def said(policy: Policy, case: Case, tries: dict[bytes, RuleTries]) -> Verdict:
    """The answer of this side."""
    if case[0] == "bind":
        return decide_bind(policy, TCP, case[3], tries, PYTHON)
    return decide(policy, flow_of(case), tries, PYTHON)


@st.composite
def records(draw: st.DrawFn, number: int) -> dict[str, Any]:
    """A profile of a pod or of the host, that may have rules for the actor's program."""
    named = draw(st.none() | networks())
    mode = draw(st.none() | MODES)
    return profile(
        f"p{number}",
        scope=draw(st.sampled_from(["POD", "POD", "NODE"])),
        mode=draw(MODES),
        default=draw(st.none() | networks() | networks()),
        processes=[process("/usr/bin/other"), *([process(PYTHON.path, named, mode=mode)] if named else [])],
    )


def unions() -> st.SearchStrategy[list[dict[str, Any]]]:
    """One to three profiles of one workload."""
    return st.integers(1, 3).flatmap(lambda most: st.tuples(*map(records, range(most))).map(list))


@random_policies(POLICIES)
@given(
    unions(),
    st.lists(cases(), min_size=FLOWS, max_size=FLOWS, unique=True),
)
def test_the_kernel_decides_what_explain_says(
    governed: tuple[Actor, PolicyTables], several: list[dict[str, Any]], given_cases: list[Case]
) -> None:
    actor, tables = governed
    book = RuleBook()
    policy = book.policy(*several)
    assert tables.apply({SLOT: policy}, book) == {}
    tables.collect(0)
    tries = {content: RuleTries(rules) for content, rules in book.known.items()}
    expected = {case: said(policy, case, tries).outcome != "refused" for case in given_cases}
    assert {case: actor.passes(case) for case in given_cases} == expected


def learn(watch: Watch, pod: Cgroup, address: str, name: str) -> None:
    """As if a listed resolver had answered, under the rule set that is in force."""
    tag = dict(watch.kernel.policy.policy_slots())[SLOT]
    (ruleset,) = dict(watch.kernel.policy.policies())[tag & POLICY_OF_TAG].grants.rulesets
    key, maps = names.exact_key(name), watch.kernel._maps
    bpf.map_update(maps["learned_names"], U64.pack(NAME_ID), layout.name_key(key))
    value = LearnedValue.layout.pack(LONG_NS, NAME_ID)
    bpf.map_update(maps["learned"], LearnedKey(pod.id, ruleset, to_mapped(address)).pack(), value)


def test_an_address_learned_up_to_three_versions_ago_counts_while_its_name_is_allowed(
    watch: Watch, pod: Cgroup, governed: tuple[Actor, PolicyTables]
) -> None:
    actor, tables = governed
    book = RuleBook()
    name, address = "a.example", "10.0.0.1"

    def passes(*allowed: str) -> bool:
        policy = book.policy(profile(default=network(rules(names=allowed))))
        assert tables.apply({SLOT: policy}, book) == {}
        return actor.passes(("tcp-out", address, 80, 0))

    assert not passes(name)
    learn(watch, pod, address, name)
    assert passes(name)
    assert passes(name, "b.example")
    assert not passes("b.example")
    assert passes(name, "c.example")
    assert not passes(name, "d.example")
