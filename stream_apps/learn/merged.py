# SPDX-License-Identifier: Apache-2.0
"""A workload over all its replicas: its shards side by side. Pure.

Whatever the order in which shards come, and however often one comes, the result is the same: they have no
pod in common, so what differs adds up, and of one node only its latest version is here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_apps.learn.behaviour import Behaviour, Key, forbidding
from stream_apps.learn.folding import network

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream_apps.learn.folding import Net
    from stream_apps.learn.shard import Shard


@dataclass(slots=True)
class Merged:
    """A workload.

    Attributes:
        key: Its name.
        kind: POD, CONTAINER, HOST_SERVICE or HOST.
        namespace: Of pods.
        labels: Labels that all its pods have had.
        unit: systemd unit of a host service.
        cgroup_path: Of what is no pod.
        images: Container images.
        nodes: On which nodes it was seen.
        first_ns: Wall ns, first seen.
        last_ns: Last seen.
        episode_ns: Since when its newest image is learned.
        stable_ns: Since when it is stable on all nodes, 0: it is not.
        loss_ns: When a node of it last lost events; 0 never.
        units: (pod, hour) units.
        wide_units: Units of six hours.
        pods: Replicas seen.
        starts: Starts seen.
        beyond: What bounds cut off, by reason.
        behaviours: What it did; what two nodes saw is one.
    """

    key: str
    kind: str
    namespace: str
    labels: dict[str, str]
    unit: str = ""
    cgroup_path: str = ""
    images: list[str] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    first_ns: int = 0
    last_ns: int = 0
    episode_ns: int = 0
    stable_ns: int = 0
    loss_ns: int = 0
    units: int = 0
    wide_units: int = 0
    pods: int = 0
    starts: int = 0
    beyond: Counter[str] = field(default_factory=Counter)
    behaviours: dict[Key, Behaviour] = field(default_factory=dict)
    _learned: dict[Key, Behaviour] | None = None

    def learned(self) -> dict[Key, Behaviour]:
        """What counts: not what bad tools did, nor what was refused."""
        if self._learned is None:
            forbids = any(key.standing == "FORBIDDEN" for key in self.behaviours)
            self._learned = {
                key: each
                for key, each in self.behaviours.items()
                if key.standing == "LEARNED" and not (forbids and self._forbidden(key))
            }
        return self._learned

    def last_new_ns(self) -> int:
        """When something was last seen that had not been seen before."""
        return max((each.first_ns for each in self.learned().values()), default=0)

    def _forbidden(self, key: Key) -> bool:
        return any(each in self.behaviours for each in forbidding(key))


def merge(shards: Iterable[Shard]) -> Merged:
    """One workload from its shards, one of each node.

    Raises:
        ValueError: There are none, or they are of several workloads.
    """
    ordered = sorted(shards, key=lambda each: each.node)
    if len({each.identity.key for each in ordered}) != 1:
        raise ValueError("the shards of one workload are merged, and there is at least one")
    first = ordered[0].identity
    labels = dict(first.labels)
    for each in ordered[1:]:
        labels = dict(labels.items() & each.identity.labels.items())
    stable = [each.stable_ns for each in ordered]
    return Merged(
        key=first.key,
        kind=first.kind,
        namespace=first.namespace,
        labels=dict(sorted(labels.items())),
        unit=first.unit,
        cgroup_path=first.cgroup_path,
        images=sorted({image for each in ordered for image in each.images}),
        nodes=[each.node for each in ordered],
        first_ns=min(each.first_ns for each in ordered),
        last_ns=max(each.last_ns for each in ordered),
        episode_ns=max(each.episode_ns for each in ordered),
        stable_ns=max(stable) if all(stable) else 0,
        loss_ns=max(each.loss_ns for each in ordered),
        units=sum(each.units for each in ordered),
        wide_units=sum(each.wide_units for each in ordered),
        pods=sum(each.pods for each in ordered),
        starts=sum(each.starts for each in ordered),
        beyond=sum((each.beyond for each in ordered), Counter()),
        behaviours=_together(ordered),
    )


def by_workload(shards: Iterable[Shard]) -> Mapping[str, list[Shard]]:
    """Shards by the key of their workload."""
    found: dict[str, list[Shard]] = {}
    for each in shards:
        found.setdefault(each.identity.key, []).append(each)
    return found


def _together(shards: Sequence[Shard]) -> dict[Key, Behaviour]:
    """One node may have folded what another has one by one: the widest network stands for all."""
    wide_of = _widest(shards)
    found: dict[Key, Behaviour] = {}
    for shard in shards:
        own: dict[Key, Behaviour] = {}
        for key, behaviour in shard.behaviours.items():
            wide = wide_of.get(key, key)
            known = own.get(wide)
            own[wide] = behaviour if known is None else known.beside(behaviour)
        for key, behaviour in own.items():
            known = found.get(key)
            found[key] = behaviour if known is None else known.plus(behaviour)
    return found


def _widest(shards: Sequence[Shard]) -> dict[Key, Key]:
    """The keys whose network lies within another one, and the widest that holds each."""
    groups: dict[Key, dict[Net, Key]] = {}
    for key in {key for shard in shards for key in shard.behaviours}:
        if key.kind in {"EGRESS", "INGRESS"} and key.standing == "LEARNED" and (net := network(key.peer)):
            groups.setdefault(key._replace(peer=""), {})[net] = key
    found = {}
    for nets in groups.values():
        prefixes = sorted({each.prefix for each in nets})
        for net, key in nets.items():
            wide = next(nets[around] for each in prefixes if (around := net.at(each)) in nets)
            if wide != key:
                found[key] = wide
    return found
