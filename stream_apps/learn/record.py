# SPDX-License-Identifier: Apache-2.0
"""A shard as the ``Observations`` record of ``nsp.observations``, and back. Pure.

The key is ``<workload>/<node>``: only the stream app that reads a node's events writes it. Of two versions
the later one counts, whatever order they are read in.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any

from stream_apps.learn.behaviour import from_record as behaviour_from_record
from stream_apps.learn.behaviour import to_record as behaviour_to_record
from stream_apps.learn.identity import Identity
from stream_apps.learn.shard import Instance, Shard, ShardLimits

if TYPE_CHECKING:
    from collections.abc import Mapping

_SAME = ("first_ns", "last_ns", "episode_ns", "stable_ns", "loss_ns", "units", "wide_units", "pods", "starts")


def key_of(workload: str, node: str) -> bytes:
    """The message key. A node name has no slash."""
    return f"{workload}/{node}".encode()


def split_key(key: bytes) -> tuple[str, str]:
    """Workload and node of a message key; both are empty when it is none."""
    workload, _, node = key.decode(errors="replace").rpartition("/")
    return workload, node


def to_record(shard: Shard) -> dict[str, Any]:
    """The record of a shard."""
    identity = shard.identity
    return {
        "workload": identity.key,
        "node": shard.node,
        "kind": identity.kind,
        "namespace": identity.namespace,
        "labels": dict(identity.labels),
        "unit": identity.unit,
        "cgroup_path": identity.cgroup_path,
        "images": list(shard.images),
        **{name: getattr(shard, name) for name in _SAME},
        "positions": [{"boot_id": boot, "position": place} for boot, place in shard.positions.items()],
        "beyond": dict(shard.beyond),
        "instances": [
            {
                "id": identifier,
                "name": each.name,
                "first_ns": each.first_ns,
                "last_ns": each.last_ns,
                "starts": each.starts,
                "hour": each.hour,
                "containers": list(each.containers),
            }
            for identifier, each in shard.instances.items()
        ],
        "behaviours": [behaviour_to_record(key, each) for key, each in shard.behaviours.items()],
    }


def from_record(record: Mapping[str, Any], limits: ShardLimits) -> Shard:
    """Back from the record."""
    identity = Identity(
        key=record["workload"],
        kind=record["kind"],
        instance="",
        instance_name="",
        namespace=record["namespace"],
        labels=dict(record["labels"]),
        unit=record["unit"],
        cgroup_path=record["cgroup_path"],
    )
    shard = Shard(identity, record["node"], limits, **{name: record[name] for name in _SAME})
    shard.images = list(record["images"])
    shard.positions = OrderedDict((each["boot_id"], each["position"]) for each in record["positions"])
    shard.beyond = Counter(record["beyond"])
    shard.instances = OrderedDict((each["id"], _instance(each)) for each in record["instances"])
    shard.restore(dict(map(behaviour_from_record, record["behaviours"])))
    return shard


def _instance(record: Mapping[str, Any]) -> Instance:
    return Instance(
        name=record["name"],
        first_ns=record["first_ns"],
        last_ns=record["last_ns"],
        starts=record["starts"],
        hour=record["hour"],
        containers=list(record["containers"]),
    )


def is_later(one: Shard, other: Shard) -> bool:
    """Whether of two versions of one shard the first one is the later."""
    return _version(one) > _version(other)


def _version(shard: Shard) -> tuple[int, int]:
    return shard.last_ns, max(shard.positions.values(), default=-1)
