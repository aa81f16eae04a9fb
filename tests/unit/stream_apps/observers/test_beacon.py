# SPDX-License-Identifier: Apache-2.0
"""nsp.beacon: fast, slow and jittered ones, by process and by loop, to one address or many; what is none."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from stream_apps.detect.beacon import Beacon
from stream_apps.detect.prevalence import NEW_NS, OLD_NS, Prevalence
from tests.support.batches import SECOND, Node
from tests.support.benign import close
from tests.support.stream import observer, rules, run, whole_pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_apps.pipeline import Pipeline

RULE = "nsp.beacon"
EVIL = "203.0.113.9"
HOUR = 3600


def severities(node: Node, through: Pipeline) -> list[str]:
    return [severity for rule, severity in rules(run(node, through)) if rule == RULE]


def live(
    node: Node, hours: float, period_s: float, act: Callable[[int], None], jitter: float = 0.0
) -> list[str]:
    """Something each period for some hours; what is told, in order."""
    through, told, dice = whole_pipeline(), [], random.Random(4)
    for turn in range(int(hours * HOUR / period_s)):
        act(turn)
        node.now_ns += int(period_s * (1 + dice.uniform(-jitter, jitter)) * SECOND)
        if turn % 20 == 0:
            told += severities(node, through)
    return told + severities(node, through)


@pytest.mark.parametrize(
    ("period_s", "jitter", "hours"), [(10, 0.0, 4), (60, 0.0, 4), (60, 0.3, 6), (600, 0.1, 6), (1500, 0.2, 7)]
)
def test_a_beacon_is_told_however_slow_and_jittered(period_s: int, jitter: float, hours: int) -> None:
    node = Node()
    implant = node.service("/app/search")
    told = live(node, hours, period_s, lambda _: close(node, implant, EVIL, 443, 310, 90), jitter)
    assert told
    assert told[-1] in ("MEDIUM", "HIGH")


@pytest.mark.parametrize("calls_in_window", [12, 16, 24])
def test_a_partner_called_now_and_then_as_customers_come_is_not_told(
    calls_in_window: int,
) -> None:
    """Requests of one size, ten or more in six hours: so few bars look alike whatever the gaps are."""
    for seed in range(10):
        node, through, dice = Node(), whole_pipeline(), random.Random(seed)
        service = node.service("/app/shop")
        for _ in range(4 * calls_in_window):
            close(node, service, EVIL, 443, 310, 90)
            node.now_ns += int(dice.expovariate(calls_in_window / (6 * HOUR)) * SECOND)
            assert severities(node, through) == []


def test_waiting_for_something_for_an_hour_is_no_beacon() -> None:
    node = Node()
    waiter = node.service("/usr/bin/argo", serving=False)
    assert live(node, 1.2, 10, lambda _: close(node, waiter, EVIL, 443, 310, 90)) == []


def test_the_alert_gives_period_score_and_parts() -> None:
    node, through = Node(), whole_pipeline()
    implant = node.service("/app/search")
    alerts = []
    for _ in range(240):
        close(node, implant, EVIL, 443, 310, 90)
        node.now_ns += 60 * SECOND
        alerts += run(node, through).alerts
    first = next(each for each in alerts if each["rule_id"] == RULE and "score" in each["description"])
    for word in (EVIL, "every 60 s", "timing 1.00", "size 1.00"):
        assert word in first["description"]
    assert first["remote_port"] == 443


def test_a_loop_in_a_shell_is_the_shells_beacon() -> None:
    node = Node()
    shell = node.spawn(node.service("/usr/sbin/sshd"), "/usr/bin/bash")
    told = live(
        node, 4, 60, lambda _: close(node, node.spawn(shell, "/usr/bin/curl"), EVIL, 443, 310, 90)
    )  # fmt: skip
    assert told


def test_a_beacon_that_changes_its_address_is_found_by_process() -> None:
    """Two hundred addresses in turn: each by itself is too rare to score."""
    node = Node()
    implant = node.service("/app/search")
    told = live(
        node, 7, 120, lambda turn: close(node, implant, f"203.0.113.{turn % 200}", 443, 310, 90)
    )  # fmt: skip
    assert "MEDIUM" in told


def test_more_than_once_a_second_all_the_time_is_a_strobe() -> None:
    node = Node()
    implant = node.service("/app/search")
    through, told = whole_pipeline(detect={RULE: {"window_s": 600}}), []
    for each in range(1400):
        for _ in range(2):
            close(node, implant, EVIL, 443, each * 7919 % 10_000, 90)
        node.now_ns += SECOND
        if each % 100 == 0:
            told += severities(node, through)
    assert "HIGH" in told


def test_people_and_what_stays_inside_are_no_beacon() -> None:
    dice = random.Random(6)
    node = Node()
    browser = node.service("/usr/bin/firefox", serving=False)

    def browse(_: int) -> None:
        for _ in range(int(dice.paretovariate(1.2))):
            close(node, browser, EVIL, 443, dice.randrange(200, 9000), dice.randrange(500, 900_000))
            node.now_ns += int(dice.expovariate(0.2) * SECOND)
        node.now_ns += int(dice.expovariate(1 / 900) * SECOND)

    assert live(node, 2, 60, browse) == []
    node = Node()
    scraper = node.service("/bin/prometheus")
    assert live(node, 4, 15, lambda _: close(node, scraper, "10.4.4.4", 9100, 200, 9000)) == []


def tell_time(node: Node, clock: int) -> None:
    node.send(clock, EVIL, 123)


def test_time_servers_resolvers_and_exclusions_are_left_out() -> None:
    node = Node()
    clock = node.service("/usr/sbin/chronyd", serving=False)
    assert live(node, 4, 64, lambda _: tell_time(node, clock)) == []


@pytest.mark.parametrize("bound", ["MAX_PROCESSES", "MAX_ALL_CONNECTIONS", "MAX_CONNECTIONS"])
def test_memory_is_bounded_and_counted(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"stream_apps.detect.beacon_memory.{bound}", 10)
    node, through = Node(), whole_pipeline()
    services = [node.service("/app/search") for _ in range(20)]
    for each in range(600):
        close(node, services[each % 20], f"203.0.113.{each % 250}", 443, 100, 100)
    run(node, through)
    memory = observer(through, Beacon)._memory
    held = sum(len(each.seconds) for each in memory.processes.values())
    assert memory.connections == held
    assert held + memory.dropped == 600
    assert {
        "MAX_PROCESSES": len(memory.processes) <= 10,
        "MAX_ALL_CONNECTIONS": held <= 10,
        "MAX_CONNECTIONS": max(len(each.seconds) for each in memory.processes.values()) <= 10,
    }[bound]


def test_destinations_beyond_the_bound_share_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    node, through = Node(), whole_pipeline()
    service = node.service("/app/search")
    for each in range(200):
        close(node, service, f"203.0.113.{each}", 443, 100, 100)
    run(node, through)
    [process] = observer(through, Beacon)._memory.processes.values()
    assert len(process.places) == 64
    assert max(process.place_of) == 64


def test_rare_and_new_raise_common_and_old_lower() -> None:
    known = Prevalence()
    for each in range(100):
        known.contact(f"w{each}", "everybodys.example", 0)
    known.contact("w1", "rare.example", 0)
    known.contact("w1", "new.example", 2 * NEW_NS)
    assert known.factor("everybodys.example", 0) == pytest.approx(0.85)
    assert known.factor("everybodys.example", OLD_NS) == pytest.approx(0.70)
    assert known.factor("rare.example", 0) == pytest.approx(1.15)
    assert known.factor("rare.example", 2 * NEW_NS) == pytest.approx(1.15)
    assert known.factor("new.example", 2 * NEW_NS + 1) == pytest.approx(1.30)
    assert known.factor("never.example", 0) == 1.0


def test_a_share_of_few_workloads_says_nothing() -> None:
    known = Prevalence()
    known.contact("only", "its.example", 0)
    assert known.factor("its.example", 0) == 1.0


@pytest.mark.parametrize(("others", "told"), [(0, True), (15, False)])
def test_a_destination_that_everybody_calls_needs_a_higher_score(others: int, told: bool) -> None:
    """Sizes vary, so that Elastic has no say."""
    node, dice = Node(), random.Random(9)
    node.workloads += [{**node.workloads[1], "id": f"w{each}"} for each in range(others)]
    for each in range(others):
        close(node, node.service("/app/x", workload=2 + each), EVIL, 443, 1, 1)
    agent = node.service("/app/search")
    found = live(
        node, 5, 60, lambda _: close(node, agent, EVIL, 443, 300 + dice.randrange(150), 90), 0.3
    )  # fmt: skip
    assert bool(found) is told


@pytest.mark.parametrize(("words", "told"), [(["sh"], True), (["crond", "-f"], False)])
def test_busybox_is_what_it_was_started_as(words: list[str], told: bool) -> None:
    node = Node()
    starter = node.spawn(node.service("/app/init", serving=False), "/bin/busybox", words)
    found = live(
        node, 4, 60,
        lambda _: close(node, node.spawn(starter, "/bin/busybox", ["wget", "x"]), EVIL, 443, 310, 90),
    )  # fmt: skip
    assert bool(found) is told


def test_destinations_and_workloads_known_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_apps.detect.prevalence.MAX_DESTINATIONS", 10)
    monkeypatch.setattr("stream_apps.detect.prevalence.MAX_WORKLOADS", 10)
    known = Prevalence()
    for each in range(50):
        known.contact(f"w{each}", f"d{each}.example", 0)
        known.contact(f"w{each}", "everybodys.example", 0)
    assert len(known.destinations) == 10
    assert known.destinations.evicted == 41
    everybody = known.destinations.peek("everybodys.example")
    assert everybody
    assert len(everybody.workloads) == 10
