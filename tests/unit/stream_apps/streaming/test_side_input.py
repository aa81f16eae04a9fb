# SPDX-License-Identifier: Apache-2.0
"""What the side topics may tell the pipeline, and what they may not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from schemas.codec import encode
from schemas.samples import load_samples
from schemas.signing import SigningKey, VerifyingKeys
from stream_apps.correlate.pods import PodTable
from stream_apps.profiles.desk import ProfileDesk
from stream_apps.respond.times import TimeToBlock
from stream_apps.sigma.book import RuleBook
from stream_apps.streaming.message import Message
from stream_apps.streaming.metrics import Metrics
from stream_apps.streaming.side_input import SideInput
from tests.support.learning import learner_of, learning, merged
from tests.support.sigma import AROUND

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_apps.learn.learner import Learner
    from stream_apps.pipeline import Pipeline


def sample(name: str, stem: str) -> dict[str, Any]:
    (found,) = [each for each in load_samples(name) if each.path.stem == stem and each.reason is None]
    return found.record()


class Listener:
    """Stands where the pipeline is; remembers what it was told."""

    def __init__(self) -> None:
        self.enforcements: list[Mapping[str, Any]] = []
        self.statuses: list[Mapping[str, Any]] = []
        self.learner: Learner | None = None
        self.rules = RuleBook(AROUND)

    def on_enforcement(self, enforcement: Mapping[str, Any]) -> None:
        self.enforcements.append(enforcement)

    def on_status(self, status: Mapping[str, Any]) -> TimeToBlock | None:
        self.statuses.append(status)
        if status["generation"] == 0:
            return None
        return TimeToBlock("n", status["subject"], "a", 1_000_000, 5_000_000, applied_boot_ns=21_000_000)


class Side:
    def __init__(self) -> None:
        self.listener = Listener()
        self.pods = PodTable()
        self.key = SigningKey.generate()
        self.metrics = Metrics()
        trusted = VerifyingKeys.from_pems([self.key.public_pem()])
        self.desk = ProfileDesk()
        self.input = SideInput(cast("Pipeline", self.listener), self.pods, self.desk, trusted, self.metrics)

    def take(
        self, topic: str, value: bytes | None, key: bytes | None = b"u", at_ns: int = 0
    ) -> list[tuple[Message, str]]:
        return self.input.take([Message(topic, 0, 0, key, value, at_ns)])

    def drafts(self) -> list[tuple[str, dict[str, Any]]]:
        self.desk.takes(lambda _: True)
        return [(each.name, dict(each.record)) for each in self.desk.drafts(1)]

    def figure(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def side() -> Side:
    return Side()


def test_a_pod_comes_and_its_tombstone_takes_it_away(side: Side) -> None:
    pod = sample("Pod", "running")
    side.take("nsp.pods", encode("Pod", pod), pod["uid"].encode())
    assert side.pods.by_uid(pod["uid"]) is not None
    side.take("nsp.pods", None, pod["uid"].encode())
    assert side.pods.by_uid(pod["uid"]) is None


def test_enforcement_with_our_signature_is_in_force(side: Side) -> None:
    order = sample("Enforcement", "process")
    side.take("nsp.enforcement", side.key.sign(encode("Enforcement", order)))
    assert side.listener.enforcements == [order]


def test_enforcement_of_others_is_not_believed(side: Side) -> None:
    payload = encode("Enforcement", sample("Enforcement", "lift-by-a-person"))
    side.take("nsp.enforcement", SigningKey.generate().sign(payload))
    side.take("nsp.enforcement", payload)
    assert side.listener.enforcements == []
    assert side.figure("nsp_stream_messages_total", topic="nsp.enforcement", outcome="unusable") == 2


def test_profiles_and_pods_become_orders_and_orders_read_need_none(side: Side) -> None:
    profile, pod = sample("SecurityProfile", "pod"), sample("Pod", "running")
    pod |= {"namespace": profile["namespace"], "labels": profile["pod_selector"]["match_labels"]}
    profile["pod_selector"]["match_expressions"] = []
    key = f"{profile['namespace']}/{profile['name']}".encode()
    side.take("nsp.pods", encode("Pod", pod), pod["uid"].encode(), at_ns=2_000_000)
    assert side.take("nsp.profiles", encode("SecurityProfile", profile), key) == []
    said = side.drafts()
    assert {(name, order["subject"]) for name, order in said} == {
        ("NodeWorkloads", f"workloads/{pod['node']}"),
        ("ProfileOrder", f"profile/{key.decode()}"),
    }
    for name, order in said:
        side.take("nsp.enforcement", side.key.sign(encode(name, order)))
    assert side.drafts() == []
    side.take("nsp.profiles", None, key)
    ((_, gone),) = side.drafts()
    assert gone["removed"]


def test_an_order_of_others_to_a_node_is_not_believed(side: Side) -> None:
    order = sample("ProfileOrder", "pod")
    side.take("nsp.enforcement", SigningKey.generate().sign(encode("ProfileOrder", order)))
    assert side.drafts() == []
    side.take("nsp.enforcement", side.key.sign(encode("ProfileOrder", order)))
    ((_, answer),) = side.drafts()  # no profile says so: it is taken back
    assert answer["removed"]


@pytest.mark.parametrize("value", [b"garbage", b"", encode("Pod", sample("Pod", "running"))])
def test_a_profile_that_cannot_be_used_is_returned_with_the_reason(side: Side, value: bytes) -> None:
    ((message, reason),) = side.take("nsp.profiles", value, b"default/web")
    assert message.value == value
    assert reason
    assert side.figure("nsp_stream_messages_total", topic="nsp.profiles", outcome="unusable") == 1


def test_the_time_to_block_is_measured_for_what_was_issued_here(side: Side) -> None:
    mine = sample("EnforcementStatus", "applied")
    foreign = {**mine, "generation": 0}
    for status in (mine, foreign):
        side.take("nsp.enforcement-status", encode("EnforcementStatus", status))
    assert len(side.listener.statuses) == 2
    assert side.figure("nsp_stream_enforcement_status_total", outcome="APPLIED") == 2
    assert side.figure("nsp_stream_time_to_block_seconds_count") == 1
    assert side.figure("nsp_stream_time_to_block_seconds_sum") == pytest.approx(0.02)


@pytest.mark.parametrize("topic", ["nsp.pods", "nsp.enforcement", "nsp.enforcement-status"])
def test_garbage_is_counted_and_what_follows_is_taken(side: Side, topic: str) -> None:
    pod = sample("Pod", "running")
    side.input.take(
        [
            Message(topic, 0, 0, b"k", b"garbage"),
            Message(topic, 0, 1, None, b""),
            Message("nsp.pods", 0, 2, pod["uid"].encode(), encode("Pod", pod)),
        ]
    )
    assert side.figure("nsp_stream_messages_total", topic=topic, outcome="unusable") == 2
    assert side.pods.by_uid(pod["uid"]) is not None


def test_observations_of_other_processes_are_taken_and_a_tombstone_withdraws_them(side: Side) -> None:
    through = learning()
    side.listener.learner = through.learner
    value = encode("Observations", sample("Observations", "pod"))
    key = b"shop/Deployment/shop/worker-1"
    assert side.take("nsp.observations", value, key) == []
    assert len(merged(through).behaviours) == 5
    side.take("nsp.observations", b"garbage", key)
    assert side.figure("nsp_stream_messages_total", topic="nsp.observations", outcome="unusable") == 1
    side.take("nsp.observations", None, key, at_ns=2 * 10**18)
    assert learner_of(through).shards_of("shop/Deployment/shop") == {}


def test_observations_are_left_alone_when_nothing_is_learned(side: Side) -> None:
    value = encode("Observations", sample("Observations", "pod"))
    assert side.take("nsp.observations", value) == []


def test_rules_are_in_force_once_settled_and_a_tombstone_withdraws_them(side: Side) -> None:
    rule = sample("SigmaRule", "curl")
    key = rule["id"].encode()
    assert side.take("nsp.rules", encode("SigmaRule", rule), key) == []
    side.input.settle()
    version = side.listener.rules.version
    assert len(side.listener.rules.rules) == 1
    side.take("nsp.rules", None, key)
    side.input.settle()
    assert len(side.listener.rules.rules) == 0
    assert side.listener.rules.version != version


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"text": "title: x"}, "line 1"),
        ({"id": "another"}, "the rule another under another key"),
        ({"text": "["}, "not YAML"),
    ],
)
def test_a_rule_that_cannot_be_used_is_returned_and_the_one_before_stays(
    side: Side, change: dict[str, str], reason: str
) -> None:
    rule = sample("SigmaRule", "curl")
    key = rule["id"].encode()
    side.take("nsp.rules", encode("SigmaRule", rule), key)
    side.input.settle()
    ((message, told),) = side.take("nsp.rules", encode("SigmaRule", {**rule, **change}), key)
    side.input.settle()
    assert (message.key, reason in told) == (key, True)
    assert len(side.listener.rules.rules) == 1


def test_rules_that_cannot_be_put_together_leave_those_before(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> bool:
        raise MemoryError("no room")

    monkeypatch.setattr(side.listener.rules, "settle", fails)
    side.input.settle()
    assert side.figure("nsp_stream_messages_total", topic="nsp.rules", outcome="unusable") == 1
