# SPDX-License-Identifier: Apache-2.0
"""nsp.self-test: parts that do not arrive, tests that fail or never come; and nobody else notices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from schemas.self_test import PARTS, PASSING_PORT, REFUSED_PORT, name_of, workload_of
from stream_apps.correlate.pods import PodTable
from stream_apps.pipeline import Pipeline
from tests.support.batches import HOST, POD, SECOND, Node, pod_record, workload
from tests.support.stream import whole_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

RULE = "nsp.self-test"
INTERVAL_S = 300
HERE = {"local_address": "127.0.0.1", "local_port": 40000}


def pipeline(**fields: Any) -> Pipeline:
    pods = PodTable()
    pods.put(pod_record())
    return Pipeline(whole_config(**fields), pods)


class Prober(Node):
    """A node whose sensor tests itself."""

    def __init__(self) -> None:
        own = workload(workload_of("worker-1"), cgroup_path="/nsp-selftest")
        super().__init__(workloads=[dict(HOST), dict(POD), own])
        self.tests = 0
        self.sensor = self.service("/usr/bin/python3.11", ["python", "-m", "sensor"], workload=0)

    def nonce(self) -> str:
        return f"{self.tests:032x}"

    def begin(self) -> tuple[int, int]:
        """The probe: its image, and where the ring was before it."""
        self.tests += 1
        start = self.position
        argv = ["python", "-I", "-S", "probe.py", "run", self.nonce(), name_of(self.nonce()), "7601", "7602"]
        forked = self.fork(self.sensor, workload=2)
        return self.exec(forked, "/usr/bin/python3.11", argv, uid=0), start

    def do(self, probe: int, without: Iterable[str] = ()) -> None:
        """What the probe does; events of some parts are lost."""
        kept = list(self.events)
        name = name_of(self.nonce())
        dns: dict[str, Any] = {"server_address": "127.0.0.1"}
        self.listen(probe, PASSING_PORT)
        made = {"exec": kept.pop() if "exec" in without else None}
        self.events[:] = [each for each in self.events if each is not made["exec"]]
        acts: dict[str, Callable[[], object]] = {
            "connect": lambda: self.connect(probe, "127.0.0.1", PASSING_PORT),
            "close": lambda: self.close(probe, "127.0.0.1", PASSING_PORT),
            "refusal": lambda: self.refuse(probe, "127.0.0.1", REFUSED_PORT),
            "dns-udp-question": lambda: self.ask(probe, name, "127.0.0.1"),
            "dns-udp-answer": lambda: self.answer(probe, name, ["127.0.0.1"], **dns),
            "dns-tcp-question": lambda: self.ask(probe, name, "127.0.0.1"),
            "dns-tcp-answer": lambda: self.answer(probe, name, ["127.0.0.1"], protocol=6, **dns),
            "exit": lambda: self.add("ProcessExit", probe, exit_status=0, signal=0),
        }
        for part, act in acts.items():
            act()
            _, event = self.events[-1]
            if part == "close":
                event |= HERE
            if part == "dns-tcp-question":
                event["protocol"] = 6
            if part in without:
                self.events.pop()

    def tell(self, start: int, outcome: str = "PASSED", **fields: Any) -> None:
        """The notice."""
        self.notice("SELF_TEST", "passed")
        self.events[-1][1]["self_test"] = {
            "nonce": self.nonce(), "sequence": self.tests,
            "interval_ms": INTERVAL_S * 1000,
            "outcome": outcome,
            "ring_start": start, "began_boot_ns": self.now_ns, "ended_boot_ns": self.now_ns,
            "expected": list(PARTS), "problems": [], **fields,
        }  # fmt: skip

    def whole(self, without: Iterable[str] = (), **fields: Any) -> None:
        """A whole test."""
        probe, start = self.begin()
        self.do(probe, without)
        self.tell(start, **fields)


def told(through: Pipeline, node: Node, *, replaying: bool = False) -> list[dict[str, Any]]:
    """Alerts of all rules."""
    outcome = through.process(node.batch(), node.wall_ns, replaying=replaying)
    assert outcome.errors == []
    return outcome.alerts


def figure(through: Pipeline, name: str) -> int:
    return through.metrics()["detect", f"self_test_{name}"]


def problem(part: str, says: str, *, passed: bool = False) -> dict[str, Any]:
    return {"part": part, "says": says, "passed": passed}


def test_what_arrives_whole_is_counted_and_nobody_is_told() -> None:
    through, node = pipeline(), Prober()
    for _ in range(3):
        node.whole()
        assert told(through, node) == []
    assert (figure(through, "tests"), figure(through, "parts_expected")) == (3, 3 * len(PARTS))
    assert (figure(through, "parts_missing"), figure(through, "missing_per_million_now")) == (0, 0)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_that_does_not_arrive_is_told_by_name(part: str) -> None:
    through, node = pipeline(), Prober()
    node.whole(without=[part])
    [alert] = told(through, node)
    assert (alert["rule_id"], alert["severity"], alert["node"]) == (RULE, "HIGH", "worker-1")
    assert f"did not report {part} of its test 1" in alert["description"]
    assert alert["workload"]["id"] == "host/worker-1/"
    assert alert["response"]["decision"] == "none"
    assert alert["evidence"][0]["kind"] == "SensorNotice"
    assert figure(through, "parts_missing") == 1
    assert figure(through, "missing_per_million_now") == 1_000_000 // len(PARTS)


def test_a_test_may_be_spread_over_batches() -> None:
    through, node = pipeline(), Prober()
    probe, start = node.begin()
    assert told(through, node) == []
    node.do(probe)
    assert told(through, node) == []
    node.tell(start)
    assert told(through, node) == []
    assert figure(through, "parts_expected") == len(PARTS)


def test_a_connection_that_passed_although_it_must_not_is_critical() -> None:
    through, node = pipeline(), Prober()
    node.whole(
        without=["refusal"],
        outcome="WRONG",
        expected=[each for each in PARTS if each != "refusal"],
        problems=[problem("refusal", "it passed", passed=True)],
    )
    [alert] = told(through, node)
    assert (alert["severity"], figure(through, "tests_wrong")) == ("CRITICAL", 1)
    assert "failed its own test (refusal: it passed)" in alert["description"]


@pytest.mark.parametrize(
    ("outcome", "part", "severity", "says"),
    [
        ("WRONG", "connect", "HIGH", "failed its own test"),
        ("NOT_RUN", "probe", "MEDIUM", "could not test itself"),
    ],
)
def test_what_went_wrong_or_could_not_be_done_is_told(
    outcome: str, part: str, severity: str, says: str
) -> None:
    through, node = pipeline(), Prober()
    node.tests += 1
    node.tell(node.position, outcome, expected=[], problems=[problem(part, "no way")])
    [alert] = told(through, node)
    assert alert["severity"] == severity
    assert f"{says} ({part}: no way)" in alert["description"]
    assert figure(through, "parts_missing") == 0


def test_the_same_is_told_once_a_while_and_counted_each_time() -> None:
    through, node = pipeline(), Prober()
    counts = []
    for _ in range(14):
        node.whole(without=["connect"])
        counts.append(len(told(through, node)))
        node.now_ns += INTERVAL_S * SECOND
    assert counts == [1] + [0] * 11 + [1, 0]
    assert (figure(through, "parts_missing"), figure(through, "repeated")) == (14, 12)


def test_a_test_that_began_before_we_read_is_not_judged() -> None:
    node = Prober()
    probe, start = node.begin()
    node.do(probe)
    node.batch()  # somebody else read it, who is gone
    node.tell(start)
    through = pipeline()
    assert told(through, node) == []
    assert (figure(through, "tests_not_judged"), figure(through, "parts_expected")) == (1, 0)
    node.whole(without=["exit"])
    assert len(told(through, node)) == 1


def test_a_node_that_was_another_process_s_meanwhile_is_judged_from_there_on() -> None:
    through, node = pipeline(), Prober()
    probe, start = node.begin()
    first = node.batch()
    through.process(first, node.wall_ns)
    through.takes(lambda _: False)
    node.do(probe)
    node.batch()
    node.tell(start)
    assert told(through, node) == []
    assert figure(through, "tests_not_judged") == 1


def test_a_batch_read_again_neither_completes_nor_repeats() -> None:
    through, node = pipeline(), Prober()
    node.whole(without=["close"])
    batch = node.batch()
    assert len(through.process(batch, node.wall_ns).alerts) == 1
    assert through.process(batch, node.wall_ns).alerts == []
    assert figure(through, "tests") == 1


def test_batches_that_never_arrived_are_missed_tests() -> None:
    through, node = pipeline(), Prober()
    node.whole()
    assert told(through, node) == []
    node.whole()
    node.batch()
    node.whole()
    alerts = [each for each in told(through, node) if each["rule_id"] == RULE]
    assert ["reported test 3 after test 1" in each["description"] for each in alerts] == [True]
    assert figure(through, "tests_missing") == 1


def test_a_restarted_sensor_counts_anew() -> None:
    through, node = pipeline(), Prober()
    for kind in ("STARTED", "ADOPTED", "ADOPTED"):
        node.notice(kind)
        node.tests = 0
        node.whole()
        assert told(through, node) == []
    node.notice("ADOPTED")
    node.tests = 1
    node.whole()
    assert ["after test 0" in each["description"] for each in told(through, node)] == [True]


def beats(through: Pipeline, node: Node, seconds: int) -> list[dict[str, Any]]:
    """The node goes on, a batch every ten seconds."""
    found = []
    for _ in range(seconds // 10):
        node.now_ns += 10 * SECOND
        node.add("ProcessExit", 0, exit_status=0, signal=0)
        found += told(through, node)
    return found


def test_a_node_that_tested_itself_and_does_so_no_more_is_told_once() -> None:
    through, node = pipeline(), Prober()
    assert beats(through, node, 4000) == []
    node.whole()
    assert told(through, node) == []
    assert beats(through, node, 3 * INTERVAL_S - 20) == []
    [alert] = beats(through, node, 4000)
    assert "tests itself no more, for 900 s by now, although it sends" in alert["description"]
    assert figure(through, "stopped") == 1


def test_a_node_that_slept_has_its_time_anew() -> None:
    through, node = pipeline(), Prober()
    node.whole()
    told(through, node)
    node.now_ns += 86_400 * SECOND
    assert beats(through, node, 600) == []


def test_replay_finds_the_same_under_the_same_ids() -> None:
    node = Prober()
    batches = []
    for part in (*PARTS, ""):
        node.whole(without=[part])
        batches.append(node.batch())
        node.now_ns += 2 * 3600 * SECOND
    ids = []
    for _ in range(2):
        through = pipeline()
        alerts = [alert for each in batches for alert in through.process(each, 0).alerts]
        ids.append([each["id"] for each in alerts if each["rule_id"] == RULE])
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == len(PARTS)


def test_a_day_of_tests_raises_nothing_else_and_is_not_learned() -> None:
    through, node = pipeline(learn={"enabled": True}), Prober()
    shop = node.service("/usr/sbin/nginx")
    for _ in range(300):
        node.connect(shop, "10.1.2.4", 5432)
        node.whole()
        assert told(through, node) == []
        node.now_ns += INTERVAL_S * SECOND
    assert through.learner is not None
    assert through.learner.key_of(POD["id"]) is not None
    assert through.learner.key_of(workload_of(node.name)) is None


def test_what_else_comes_from_there_is_seen_by_all() -> None:
    """Whoever gets into the probe's cgroup with the probe's arguments hides nothing but its own loopback."""
    through, node = pipeline(), Prober()
    probe, _ = node.begin()
    node.images[probe] |= {"executable": "/dev/shm/probe", "deleted": False}
    node.connect(probe, "203.0.113.9", 4444)
    rules = {each["rule_id"] for each in told(through, node)}
    assert "nsp.dropped-program" in rules


def test_where_nobody_is_to_be_told_the_probe_is_left_out_all_the_same() -> None:
    through, node = pipeline(detect={RULE: {"enabled": False}}), Prober()
    node.whole(without=["connect"])
    assert told(through, node) == []
    assert figure(through, "parts_missing") == 1
