# SPDX-License-Identifier: Apache-2.0
"""The decision in Python against the kernel's: random rules, real flows, one answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.addresses import to_mapped
from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.policy_state import LearnedKey, LearnedValue, ResolverKey
from sensor.kernel.state import U64
from sensor.policy import layout, names
from sensor.policy.apply import PolicyTables
from sensor.policy.decide import decide
from sensor.policy.layers import Direction, Flow, RuleTries
from sensor.policy.tables import POLICY_OF_TAG
from tests.support import flow_actor
from tests.support.kernel_lab import ROOT, Cgroup
from tests.support.policies import RuleBook
from tests.support.profiles import TCP, UDP, network, networks, profile, rules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.kernel_watch import Watch

pytestmark = pytest.mark.kernel

# Random policies, each with FLOWS flows; NSP_RANDOM_POLICIES=2000 for a long run.
POLICIES = int(os.environ.get("NSP_RANDOM_POLICIES", "30"))
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
}


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
    address, port = st.sampled_from(flow_actor.ADDRESSES), st.sampled_from(flow_actor.PORTS)
    ways = st.sampled_from(list(WAYS))
    question = st.tuples(st.just("tcp-out"), address, st.just(53), port)
    return st.tuples(ways, address, port, port) | question


def flow_of(case: Case) -> Flow:
    way, address, port, local_port = case
    direction, protocol = WAYS[way]
    return Flow(direction, protocol, to_mapped(address), port, local_port, to_resolver=address == RESOLVER)


def below_payloads(whole: dict[str, Any]) -> dict[str, Any]:
    """Without l7 but for what is asked: the flows here say nothing that could be judged."""
    egress, ingress = whole["egress"], whole["ingress"]
    asks = egress and egress["l7"] and (egress["names"] or egress["l7"]["dns"] or egress["l7"]["protocols"])
    if egress and asks:
        egress = egress | {"l7": egress["l7"] | {"http": [], "sni": [], "opaque": True}}
    elif egress:
        egress = egress | {"l7": None}
    return whole | {"egress": egress, "ingress": ingress and ingress | {"l7": None}}


@settings(
    max_examples=POLICIES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(networks().map(below_payloads), min_size=1, max_size=3),
    st.lists(cases(), min_size=FLOWS, max_size=FLOWS, unique=True),
)
def test_the_kernel_decides_what_explain_says(
    governed: tuple[Actor, PolicyTables], several: list[dict[str, Any]], given_cases: list[Case]
) -> None:
    actor, tables = governed
    book = RuleBook()
    policy = book.policy(*(profile(f"p{at}", default=each) for at, each in enumerate(several)))
    assert tables.apply({SLOT: policy}, book) == {}
    tables.collect(0)
    tries = {content: RuleTries(rules) for content, rules in book.known.items()}
    said = {case: decide(policy, flow_of(case), tries).outcome == "allowed" for case in given_cases}
    assert {case: actor.passes(case) for case in given_cases} == said


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
