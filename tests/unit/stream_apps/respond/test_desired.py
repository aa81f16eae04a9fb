# SPDX-License-Identifier: Apache-2.0
"""The desired state: the same evidence in any order, however often, gives the same; nothing flaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_apps.detect.rule import Destination
from stream_apps.respond import desired
from stream_apps.respond.desired import DesiredStates
from tests.unit.stream_apps.test_respond import EVIL, NOW, SUBJECT, WORKLOAD, order

if TYPE_CHECKING:
    from collections.abc import Sequence
SECOND = 1_000_000_000
OTHER = Destination("192.0.2.7", 443, 6)


@dataclass(frozen=True)
class Evidence:
    """One thing that was seen, and what it asks for."""

    kind: str
    observed_ns: int
    ttl_s: int
    destinations: tuple[Destination, ...] = ()
    node: str = "worker-1"

    @property
    def alert_id(self) -> str:
        return f"{self.kind}-{self.observed_ns}"

    @property
    def summary(self) -> str:
        return f"seen at {self.observed_ns}"

    @property
    def observed_boot_ns(self) -> int:
        return self.observed_ns - NOW + 10**15

    def apply(self, states: DesiredStates) -> dict[str, Any]:
        until_ns = self.observed_ns + self.ttl_s * SECOND
        if self.kind == "block":
            return states.block(WORKLOAD, self, self.destinations, until_ns, NOW)
        subject = WORKLOAD if self.kind == "pod" else SUBJECT
        return states.quarantine(subject, self, until_ns, NOW, kill=self.kind == "kill")


DESTINATIONS = st.builds(
    Destination, st.sampled_from([f"192.0.2.{n}" for n in range(5)]), st.integers(0, 2), st.just(6)
)
EVIDENCE = st.builds(
    Evidence,
    st.sampled_from(["block", "pod", "process", "kill"]),
    st.integers(NOW - 600 * SECOND, NOW),
    st.integers(1, 3600),
    st.lists(DESTINATIONS, min_size=1, max_size=4).map(tuple),
)
FRESH = EVIDENCE.filter(lambda each: each.observed_ns + each.ttl_s * SECOND > NOW)
BLOCKS = EVIDENCE.filter(lambda each: each.kind == "block")


def wanted(states: DesiredStates) -> dict[Any, Any]:
    """What is wanted of each subject now, whatever it is numbered and whoever caused it last."""
    list(states.expire(NOW))
    return {
        key: (state.quarantined_ns, state.killed_ns, dict(sorted(state.destinations.items(), key=str)))
        for key, state in states._states.items()
    }


def after(evidence: Sequence[Evidence]) -> tuple[DesiredStates, list[dict[str, Any]]]:
    states = DesiredStates()
    return states, [each.apply(states) for each in evidence]


@given(st.data())
def test_any_order_and_repetition_of_the_same_evidence_gives_the_same_desired_state(
    data: st.DataObject,
) -> None:
    evidence = data.draw(st.lists(EVIDENCE, min_size=1, max_size=12))
    again = data.draw(st.lists(st.sampled_from(evidence), max_size=6))
    other = data.draw(st.permutations(evidence + again))
    first, second = after(evidence)[0], after(other)[0]
    assert wanted(first) == wanted(second)


@given(st.data())
def test_the_bound_on_destinations_keeps_the_same_ones_in_any_order(data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(desired, "MAX_DESTINATIONS", 3)
        evidence = data.draw(st.lists(BLOCKS, min_size=1, max_size=8))
        other = data.draw(st.permutations(evidence))
        assert wanted(after(evidence)[0]) == wanted(after(other)[0])


@given(st.lists(FRESH, min_size=1, max_size=12))
def test_generations_only_grow_and_nothing_in_force_is_taken_back(evidence: list[Evidence]) -> None:
    newest: dict[str, dict[str, Any]] = {}
    for record in after(evidence)[1]:
        before = newest.get(record["subject"])
        if before is not None:
            assert record["generation"] > before["generation"]
            assert record["expires_at_ns"] >= before["expires_at_ns"]
            assert record["quarantined"] >= before["quarantined"]
            assert record["killed"] >= before["killed"]
            assert all(each in record["blocked_destinations"] for each in before["blocked_destinations"])
        newest[record["subject"]] = record


@given(st.lists(EVIDENCE, min_size=1, max_size=8))
def test_what_is_read_back_has_the_same_parts(evidence: list[Evidence]) -> None:
    _, records = after(evidence)
    states = DesiredStates()
    for record in records:
        states.read_back(record)
    for subject, record in {each["subject"]: each for each in records}.items():
        state = states._states["worker-1", subject]
        assert bool(state.quarantined_ns) == record["quarantined"]
        assert bool(state.killed_ns) == record["killed"]
        assert len(state.destinations) == len(record["blocked_destinations"])


def test_a_stronger_response_and_then_its_end_leave_the_weaker_one_in_force() -> None:
    states = DesiredStates()
    Evidence("block", NOW, 3600, (EVIL,)).apply(states)
    stronger = Evidence("pod", NOW + 1, 600).apply(states)
    assert stronger["quarantined"]
    assert len(stronger["blocked_destinations"]) == 1
    assert list(states.expire(NOW + 500 * SECOND)) == []
    (weaker,) = states.expire(NOW + 601 * SECOND)
    assert (weaker["quarantined"], len(weaker["blocked_destinations"])) == (False, 1)
    assert weaker["generation"] > stronger["generation"]
    assert list(states.expire(NOW + 602 * SECOND)) == []


def test_a_weaker_response_does_not_take_a_stronger_one_back() -> None:
    states = DesiredStates()
    Evidence("kill", NOW - SECOND, 3600).apply(states)
    later = Evidence("process", NOW, 60).apply(states)
    assert later["killed"]
    assert later["expires_at_ns"] == NOW + 3599 * SECOND


def test_what_is_wanted_for_longer_than_published_is_published_in_time_and_once() -> None:
    states = DesiredStates()
    first = Evidence("process", NOW, 600).apply(states)
    states.prolong("worker-1", SUBJECT, None, NOW + 700 * SECOND)
    assert list(states.expire(NOW + 500 * SECOND)) == []
    (longer,) = states.expire(NOW + 541 * SECOND)
    assert longer["expires_at_ns"] == NOW + 700 * SECOND
    assert longer["generation"] > first["generation"]
    assert list(states.expire(NOW + 542 * SECOND)) == []


def test_what_passes_a_quarantine_is_said_only_of_quarantined_workloads() -> None:
    dns = {"network": "10.96.0.10/32", "port": 53, "protocol": 17, "incoming": False}
    states = DesiredStates(allowed=[dns])
    assert Evidence("process", NOW, 60).apply(states)["allowed"] == []
    assert Evidence("block", NOW, 60, (OTHER,)).apply(states)["allowed"] == []
    assert Evidence("pod", NOW, 60).apply(states)["allowed"] == [dns]


def test_a_persons_order_is_left_alone_until_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desired, "RENEW_BEFORE_NS", 10**18)
    states = DesiredStates()
    states.read_back(order(SUBJECT, NOW, 60, "ops"))
    assert list(states.expire(NOW + 1)) == []
    assert states.get("worker-1", SUBJECT, NOW + 61 * SECOND) is None
