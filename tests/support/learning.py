# SPDX-License-Identifier: Apache-2.0
"""Workloads whose deeds are learned, for tests: nodes, pods, hours, and what a pipeline makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from schemas.codec import decode_as, encode
from stream_apps.correlate.pods import PodTable
from stream_apps.learn.merged import merge
from stream_apps.pipeline import Pipeline
from tests.support.batches import FIRST_NS, HOST, SECOND, WALL_OFFSET_NS, Node, pod_record, workload
from tests.support.stream import config

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stream_apps.learn.learner import Learner
    from stream_apps.learn.merged import Merged
    from stream_apps.learn.shard import Shard
    from tests.support.batches import Record

HOUR: Final = 3600 * SECOND
SHOP: Final = "shop/Deployment/shop"
WEB: Final = "/usr/bin/web"
# The first event of a node falls into the beginning of an hour, so that a test's hours are whole ones.
_TO_THE_HOUR: Final = -(FIRST_NS + WALL_OFFSET_NS) % HOUR


def uid(number: int) -> str:
    """The UID of a replica."""
    return f"0b9c1c52-7a0e-4c57-8a59-{number:012x}"


def container(number: int, restart: int = 0) -> str:
    """The id of its container."""
    return f"{number * 1000 + restart:064x}"


def pod(number: int, **fields: Any) -> Record:
    """The ``Pod`` record of a replica."""
    own = {
        "uid": uid(number),
        "name": f"shop-6c9f7d5b8-{number:05d}",
        "labels": {"app": "shop", "pod-template-hash": "6c9f7d5b8"},
        "ips": [f"10.1.0.{number + 1}"],
        "containers": [{"id": container(number), "name": "shop", "image": "registry.example/shop:1.4.2"}],
    }
    return pod_record(**{**own, **fields})


def node(name: str = "worker-1", pods: Iterable[int] = (0,)) -> Node:
    """A node with replicas; workload n + 1 of it is the nth of them."""
    replicas = [workload(uid(each), "POD", pod_uid=uid(each), container_id=container(each)) for each in pods]
    return Node(name=name, workloads=[dict(HOST), *replicas], now_ns=FIRST_NS + _TO_THE_HOUR + SECOND)


def learning(*records: Record, **sections: Any) -> Pipeline:
    """A pipeline that learns, and knows these pods (of none given, the first ten replicas)."""
    pods = PodTable()
    for each in records or [pod(number) for number in range(10)]:
        pods.put(each)
    return Pipeline(config(**sections), pods)


def learner_of(pipeline: Pipeline) -> Learner:
    """Its learner."""
    assert pipeline.learner is not None
    return pipeline.learner


def take(pipeline: Pipeline, of: Node) -> None:
    """All that a node saw since its last batch, as it comes from Kafka."""
    outcome = pipeline.process(decode_as("EventBatch", encode("EventBatch", of.batch())), of.wall_ns)
    assert outcome.errors == []


def merged(pipeline: Pipeline, key: str = SHOP) -> Merged:
    """A workload over all its nodes."""
    return merge(learner_of(pipeline).shards_of(key).values())


def shard(pipeline: Pipeline, key: str = SHOP, on: str = "worker-1") -> Shard:
    """What one node tells of it."""
    return learner_of(pipeline).shards_of(key)[on]


def published(pipeline: Pipeline, now_ns: int = 0) -> dict[bytes, Record | None]:
    """Everything that is due, as a reader of the topic has it."""
    found: dict[bytes, Record | None] = {}
    for key, record in learner_of(pipeline).due(now_ns, everything=True):
        found[key] = record and decode_as("Observations", encode("Observations", record))
    return found


def deeds(found: Merged, standing: str = "LEARNED") -> Iterator[tuple[str, str, int, str]]:
    """Kind, program, port and peer of all behaviours of a standing."""
    for key in sorted(found.behaviours):
        if key.standing == standing:
            yield key.kind, key.path, key.port, key.peer
