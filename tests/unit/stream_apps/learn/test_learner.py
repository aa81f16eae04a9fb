# SPDX-License-Identifier: Apache-2.0
"""What is learned of events: each once, by owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stream_apps.learn.behaviour import Key
from tests.support.batches import SECOND, Node, workload
from tests.support.learning import (
    HOUR,
    SHOP,
    WEB,
    deeds,
    learner_of,
    learning,
    merged,
    node,
    pod,
    published,
    shard,
    take,
    uid,
)

if TYPE_CHECKING:
    from stream_apps.pipeline import Pipeline
    from tests.support.batches import Record


def busy(on: Node, replica: int = 1) -> int:
    """A web server that is started, serves, and asks a database and a partner."""
    web = on.exec(on.service(WEB, workload=replica, serving=False), WEB, ["web"], serving=True, parent=0)
    on.listen(web, 8080)
    on.add(
        "SocketAccept", web, cookie=1, local_address="10.1.0.1", local_port=8080,
        remote_address="10.7.0.9", remote_port=41000,
    )  # fmt: skip
    on.ask(web, "db.shop.example")
    on.answer(web, "db.shop.example", ["10.3.0.5"])
    on.connect(web, "10.3.0.5", 5432)
    on.connect(web, "10.3.0.5", 5432)
    on.connect(web, "198.51.100.7", 443)
    on.send(web, "10.96.0.10", 53)
    on.connect(web, "127.0.0.1", 9999)
    return web


LEARNED = [
    ("EGRESS", WEB, 53, "10.96.0.10/32"),
    ("EGRESS", WEB, 443, "198.51.100.7/32"),
    ("EGRESS", WEB, 5432, "db.shop.example"),
    ("INGRESS", WEB, 8080, "10.7.0.9/32"),
    ("LISTEN", WEB, 8080, ""),
    ("PROGRAM", WEB, 0, ""),
    ("QUESTION", WEB, 0, "db.shop.example"),
]


def test_what_a_workload_does_is_learned_by_owner_with_names_and_counts() -> None:
    through, on = learning(), node()
    busy(on)
    take(through, on)
    found = merged(through)
    assert sorted(deeds(found)) == sorted(LEARNED)
    database = found.behaviours[Key("EGRESS", WEB, "", 6, 5432, 5432, "db.shop.example")]
    assert (database.count, database.units, database.pods) == (2, 1, 1)
    assert found.labels == {"app": "shop"}
    assert (found.namespace, found.pods, found.starts, found.units) == ("shop", 1, 1, 1)


def test_replicas_on_all_nodes_are_one_workload() -> None:
    through = learning()
    for name, replicas in (("worker-1", (0, 1)), ("worker-2", (2,))):
        on = node(name, replicas)
        for place in range(1, len(replicas) + 1):
            busy(on, place)
        take(through, on)
    found = merged(through)
    assert sorted(deeds(found)) == sorted(LEARNED)
    assert (found.nodes, found.pods, found.units) == (["worker-1", "worker-2"], 3, 3)
    assert {each.units for each in found.behaviours.values()} == {3}


def facts(through: Pipeline) -> dict[bytes, Any]:
    """All there is, but for how far the rings are read."""
    return {
        place: {
            **{name: value for name, value in (record or {}).items() if name != "positions"},
            "behaviours": sorted(map(str, (record or {})["behaviours"])),
        }
        for place, record in published(through).items()
    }


def a_day(on: Node, hours: int = 4) -> list[Record]:
    """Batches of some hours, each with something new."""
    batches = []
    for hour in range(hours):
        web = busy(on)
        on.connect(web, f"203.0.113.{hour}", 443)
        batches.append(on.batch())
        on.now_ns += HOUR
    return batches


def feed(through: Pipeline, batches: list[Record]) -> None:
    for each in batches:
        through.process(each, each["clock"]["wall_ns"])


def test_a_batch_that_comes_again_counts_once() -> None:
    batches = a_day(node())
    once, again = learning(), learning()
    feed(once, batches)
    feed(again, [each for batch in batches for each in (batch, batch)])
    feed(again, batches)
    assert facts(again) == facts(once)


@pytest.mark.parametrize("crash", range(5))
@pytest.mark.parametrize("back", range(5))
def test_after_a_crash_events_that_are_read_again_count_once(crash: int, back: int) -> None:
    batches = a_day(node(), 5)
    expected = learning()
    feed(expected, batches)
    before, after = learning(), learning()
    feed(before, batches[:crash])
    for key, record in published(before).items():
        learner_of(after).read_back(key, record)
    # From the committed offset, which is never beyond what was published.
    feed(after, batches[max(0, crash - back) :])
    assert facts(after) == facts(expected)


def test_records_may_be_read_in_any_order_and_twice() -> None:
    first, last = learning(), learning()
    batches = a_day(node())
    feed(first, batches[:2])
    feed(last, batches)
    versions = [*published(first).items(), *published(last).items()]
    results = []
    for order in (versions, versions[::-1], versions * 2, [*versions[::-1], *versions]):
        reader = learning()
        for key, record in order:
            learner_of(reader).read_back(key, record)
        results.append(merged(reader))
    assert all(each == results[0] for each in results)
    assert results[0] == merged(last)


def test_wherever_batches_are_cut_the_same_is_learned() -> None:
    whole, pieces = learning(), learning()
    batches = []
    for size in (1000, 3):
        on = node()
        events: list[tuple[str, Record]] = []
        for _ in range(3):
            busy(on)
            events, on.events = [*events, *on.events], []
            on.now_ns += HOUR
        batches.append([on.batch(events[start : start + size]) for start in range(0, len(events), size)])
    feed(whole, batches[0])
    feed(pieces, batches[1])
    assert sorted(deeds(merged(pieces))) == sorted(deeds(merged(whole)))
    assert merged(pieces).units == merged(whole).units == 3
    counts = [{key: each.count for key, each in merged(one).behaviours.items()} for one in (whole, pieces)]
    assert counts[0] == counts[1]


def test_what_is_new_is_due_at_once_and_counts_wait() -> None:
    through, on = learning(), node()
    web = busy(on)
    take(through, on)
    now = 10**18
    learner = learner_of(through)
    assert [key for key, _ in learner.due(now, everything=True)] == [f"{SHOP}/worker-1".encode()]
    on.connect(web, "198.51.100.7", 443)
    take(through, on)
    assert list(learner.due(now + SECOND)) == []
    on.connect(web, "198.51.100.8", 443)
    take(through, on)
    assert len(list(learner.due(now + 2 * SECOND))) == 1
    on.connect(web, "198.51.100.7", 443)
    take(through, on)
    assert len(list(learner.due(now + 61 * SECOND))) == 1


def test_only_the_process_that_reads_a_nodes_events_publishes() -> None:
    through, on = learning(), node()
    learner_of(through).takes(lambda name: name != "worker-1")
    busy(on)
    take(through, on)
    assert published(through) == {}
    learner_of(through).takes(lambda name: name == "worker-1")
    assert len(published(through)) == 1


def test_a_pod_that_becomes_known_later_brings_what_it_did() -> None:
    through, on = learning(pod(5)), node()
    busy(on)
    take(through, on)
    assert learner_of(through).shards_of(SHOP) == {}
    assert len(published(through)) == 1
    through._pods.put(pod(0))
    on.connect(on.service(WEB), "198.51.100.9", 443)
    take(through, on)
    found = merged(through)
    assert set(LEARNED) < set(deeds(found))
    assert (found.pods, found.starts, found.units) == (1, 1, 1)
    assert published(through)[f"pod/{uid(0)}/worker-1".encode()] is None


def test_a_withdrawn_workload_is_learned_anew() -> None:
    through, on = learning(), node()
    busy(on)
    take(through, on)
    learner_of(through).read_back(f"{SHOP}/worker-1".encode(), None, on.wall_ns)
    assert learner_of(through).shards_of(SHOP) == {}
    on.connect(on.service(WEB), "198.51.100.9", 443)
    take(through, on)
    assert [kind for kind, *_ in deeds(merged(through))] == ["EGRESS"]


def test_the_workload_unseen_for_longest_makes_room_and_is_withdrawn() -> None:
    through = learning(learn={"bounds": {"workloads": 2}})
    on = Node(
        workloads=[workload(f"host/worker-1/s{each}.service", unit=f"s{each}.service") for each in range(3)]
    )
    for place in (0, 1, 0, 2):
        on.connect(on.service(WEB, workload=place), "198.51.100.9", 443)
        take(through, on)
    assert learner_of(through).counts["workloads_evicted"] == 1
    assert {key for key, record in published(through).items() if record is None} == {
        b"host/s1.service/worker-1"
    }


def test_a_host_service_is_the_same_on_all_nodes_and_its_loopback_counts() -> None:
    through = learning()
    for name in ("worker-1", "worker-2"):
        on = Node(name=name, workloads=[workload(f"host/{name}/nginx.service", unit="nginx.service")])
        on.connect(on.service("/usr/sbin/nginx", workload=0), "127.0.0.1", 9000)
        take(through, on)
    found = merged(through, "host/nginx.service")
    assert list(deeds(found)) == [("EGRESS", "/usr/sbin/nginx", 9000, "127.0.0.0/8")]
    assert (found.nodes, found.unit) == (["worker-1", "worker-2"], "nginx.service")


def test_what_ran_before_the_sensor_is_marked_until_somebody_else_does_it() -> None:
    through, on = learning(), node()
    old = on.service(WEB, origin="INVENTORY")
    on.add(
        "SocketInventory", old, cookie=3, protocol=6, tcp_state=10, local_address="0.0.0.0", local_port=8080,
        remote_address="0.0.0.0", remote_port=0,
    )  # fmt: skip
    on.add(
        "SocketInventory", old, cookie=4, protocol=6, tcp_state=1, local_address="10.1.0.1",
        local_port=41000, remote_address="10.3.0.5", remote_port=5432,
    )  # fmt: skip
    take(through, on)
    found = merged(through)
    assert sorted(deeds(found)) == [("EGRESS", WEB, 5432, "10.3.0.5/32"), ("LISTEN", WEB, 8080, "")]
    assert {each.before_sensor for each in found.behaviours.values()} == {True}
    on.connect(on.spawn(old, WEB), "10.3.0.5", 5432)
    take(through, on)
    assert [
        each.before_sensor for key, each in merged(through).behaviours.items() if key.kind == "EGRESS"
    ] == [False]


def test_names_of_servers_that_are_not_trusted_count_only_while_none_is_named() -> None:
    trusting = learning()
    strict = learning(correlate={"names": {"trusted_resolvers": ["10.96.0.10/32"]}})
    for through, expected in ((trusting, "evil.example"), (strict, "203.0.113.9/32")):
        on = node()
        web = on.service(WEB)
        on.answer(web, "evil.example", ["203.0.113.9"], server_address="203.0.113.53")
        on.connect(web, "203.0.113.9", 443)
        take(through, on)
        assert [peer for _, _, _, peer in deeds(merged(through))] == [expected]


def test_names_below_a_wildcard_are_one_and_others_are_not() -> None:
    through, on = learning(learn={"wildcards": ["*.cdn.example"]}), node()
    web = on.service(WEB)
    for name in ("a.cdn.example", "b.cdn.example", "cdn.example", "a.other.example", "x y", "*.cdn.example"):
        on.ask(web, name)
    take(through, on)
    assert [peer for *_, peer in deeds(merged(through))] == [
        "*.cdn.example",
        "a.other.example",
        "cdn.example",
    ]
    assert learner_of(through).counts["unusable_name"] == 2


def test_lost_events_are_noted_with_their_time() -> None:
    through, on = learning(), node()
    web = busy(on)
    take(through, on)
    assert merged(through).loss_ns == 0
    on.lose(3)
    on.connect(web, "10.3.0.5", 5432)
    take(through, on)
    assert merged(through).loss_ns == on.wall_ns
    assert learner_of(through).counts["losses"] == 1


def test_what_another_process_read_meanwhile_is_no_gap() -> None:
    one, other, on = learning(), learning(), node()
    web = busy(on)
    for reader, tells in ((one, other), (other, one)):
        on.connect(web, "198.51.100.7", 443)
        take(reader, on)
        for key, record in published(reader).items():
            learner_of(tells).read_back(key, record)
    on.connect(web, "198.51.100.7", 443)
    take(one, on)
    found = merged(one)
    assert found.loss_ns == 0
    assert sum(each.count for key, each in found.behaviours.items() if key.port == 443) == 4


def test_a_hole_between_batches_is_a_loss() -> None:
    through, on = learning(), node()
    web = busy(on)
    take(through, on)
    on.connect(web, "198.51.100.7", 443)
    on.batch()
    on.connect(web, "198.51.100.7", 443)
    take(through, on)
    assert merged(through).loss_ns == on.wall_ns


def test_probes_in_a_running_container_are_no_starts() -> None:
    through, on = learning(), node()
    busy(on)
    for _ in range(5):
        on.exec(on.service("/bin/probe", serving=False), "/bin/probe", parent=0)
    take(through, on)
    assert merged(through).starts == 1


def test_a_container_starts_once_by_way_of_its_runtime() -> None:
    through, on = learning(), node()
    shim = on.service("/usr/bin/containerd-shim", workload=0, serving=False)
    stage = on.exec(on.fork(shim, workload=1), "/usr/bin/runc", ["runc", "init"])
    app = on.exec(on.fork(stage), WEB)
    on.connect(app, "198.51.100.7", 443)
    take(through, on)
    assert merged(through).starts == 1


def test_a_container_that_was_there_before_the_sensor_did_not_start() -> None:
    through, on = learning(), node()
    old = on.service(WEB, origin="INVENTORY")
    on.add("ProcessInventory", old)
    on.spawn(old, "/bin/probe")
    take(through, on)
    assert merged(through).starts == 0


def test_each_start_of_a_host_service_counts_once_by_way_of_its_manager() -> None:
    through = learning()
    on = Node(workloads=[workload("host/n/init.scope"), workload("host/n/web.service", unit="web.service")])
    systemd = on.service("/usr/lib/systemd/systemd", workload=0, serving=False)
    for _ in range(3):
        executor = on.exec(on.fork(systemd, workload=1), "/usr/lib/systemd/systemd-executor")
        web = on.exec(executor, WEB)
        on.spawn(web, "/usr/bin/date")
    take(through, on)
    assert merged(through, "host/web.service").starts == 3


def test_a_new_image_begins_a_new_episode() -> None:
    through, on = learning(), node()
    busy(on)
    take(through, on)
    shard(through).stable_ns = 5
    began = merged(through).episode_ns
    changed = pod(0)
    changed["containers"] = [{**changed["containers"][0], "image": "registry.example/shop:1.5.0"}]
    through._pods.put(changed)
    on.now_ns += HOUR
    busy(on)
    take(through, on)
    assert merged(through).episode_ns > began
    assert merged(through).stable_ns == 0


def test_one_bad_event_costs_only_itself() -> None:
    through, on = learning(), node()
    busy(on)
    on.events.insert(1, ("nsp.SocketConnect", {"position": 1, "ktime_ns": on.now_ns, "process": 0}))
    batch = on.batch()
    batch["events"][3][1]["process"] = 99
    through.process(batch, on.wall_ns)
    assert learner_of(through).counts["unusable_event"] == 2
    assert len(list(deeds(merged(through)))) >= len(LEARNED) - 1


def test_what_one_node_has_folded_and_another_has_not_is_one_behaviour() -> None:
    through = learning()
    for name, replica, peers in (("worker-1", 0, range(80)), ("worker-2", 1, range(2, 4))):
        on = node(name, (replica,))
        web = on.service(WEB)
        for number in peers:
            on.connect(web, f"10.3.0.{number}", 5432)
        take(through, on)
    found = merged(through).behaviours
    assert sum(each.count for each in found.values()) == 82
    assert {(key.peer, each.pods) for key, each in found.items() if key.peer.startswith("10.3.0.0/")} == {
        ("10.3.0.0/28", 2)
    }


def test_what_is_said_on_judged_connections_is_learned_unless_it_was_refused() -> None:
    through, on = learning(), node()
    web = on.service(WEB)
    ends = {
        "cookie": 1, "local_address": "10.1.0.1", "local_port": 8080, "remote_address": "10.7.0.9",
        "remote_port": 443, "reason": None, "generation": 0, "notes": [],
    }  # fmt: skip
    request = {"method": "GET", "uri": "/orders?id=7", "uri_bytes": 12, "host": "shop.example"}
    on.add("HttpRequest", web, inbound=True, verdict="ALLOWED", **ends, **request)
    on.add("HttpRequest", web, inbound=True, verdict="REFUSED", **ends, **request | {"uri": "/admin"})
    on.add("TlsHello", web, inbound=False, verdict="ALERTED", server_name="api.example", **ends)
    on.add("TlsHello", web, inbound=False, verdict="ALLOWED", server_name="", **ends)
    take(through, on)
    assert list(deeds(merged(through))) == [
        ("REQUEST", WEB, 8080, "GET /orders"),
        ("SERVER_NAME", WEB, 443, "api.example"),
    ]
