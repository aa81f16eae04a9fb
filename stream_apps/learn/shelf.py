# SPDX-License-Identifier: Apache-2.0
"""All shards a process knows, and which of them are to be published. Pure.

Input: shards that change, and records that are read back. Output: records that are due. A process keeps the
shards of all nodes, because replicas are judged together, and publishes those of the nodes whose events it
reads. Failure: shards beyond the bound push out the one unseen for longest, whose record is withdrawn
(counted).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from stream_apps.learn import record as records
from stream_apps.learn.completeness import judge
from stream_apps.learn.identity import provisional_key
from stream_apps.learn.merged import merge
from stream_apps.learn.shard import Shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stream_apps.learn.behaviour import Key
    from stream_apps.learn.completeness import Thresholds
    from stream_apps.learn.identity import Identity
    from stream_apps.learn.shard import ShardLimits

# Workload ids that lead to a workload's key, for the baseline: pods of a large cluster.
MAX_IDS: Final = 200_000

Place = tuple[str, str]
"""Workload and node."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a learner is told.

    Attributes:
        shard: Bounds of one workload on one node.
        workloads: Workloads times nodes in all.
        thresholds: When learning is complete.
        publish_ns: How often what is known already is published with new counts.
    """

    shard: ShardLimits
    workloads: int
    thresholds: Thresholds
    publish_ns: int


class Shelf:
    """The shards.

    Attributes:
        counts: By reason.
        shards: By workload and node, the one unseen for longest first.
        urgent: Shards with something new.
        late: Shards with new counts.
        read_to: Boot and ring position up to which the events of a node are learned.
    """

    def __init__(self, settings: Settings) -> None:
        self.counts: Counter[str] = Counter()
        self.shards: OrderedDict[Place, Shard] = OrderedDict()
        self.urgent: dict[Place, None] = {}
        self.late: dict[Place, None] = {}
        self.read_to: dict[str, tuple[str, int]] = {}
        self._settings = settings
        self._keys: OrderedDict[str, str] = OrderedDict()
        self._by_workload: dict[str, dict[str, Shard]] = {}
        self._by_node: dict[str, dict[str, Shard]] = {}
        self._gone: dict[Place, None] = {}
        self._published_ns = 0
        self._mine: Callable[[str], bool] = lambda _: True

    def retune(self, settings: Settings) -> None:
        """Go over to other settings. Bounds of what is kept by program hold for what is new."""
        self._settings = settings
        for shard in self.shards.values():
            shard.limits = settings.shard

    def takes(self, mine: Callable[[str], bool]) -> None:
        """From now on the records of these nodes are published here."""
        self._mine = mine

    def of_workload(self, workload: str) -> Mapping[str, Shard]:
        """The shards of a workload by node."""
        return self._by_workload.get(workload, {})

    def of_node(self, node: str) -> Mapping[str, Shard]:
        """The shards of a node by workload."""
        return self._by_node.get(node, {})

    def workloads(self) -> int:
        """How many workloads there are."""
        return len(self._by_workload)

    def key_of(self, workload_id: str) -> str | None:
        """The workload that an id of a batch belongs to."""
        return self._keys.get(workload_id)

    def shard_of(self, workload_id: str, identity: Identity, node: str, wall_ns: int) -> Shard:
        """The shard of who is seen on a node, made if there is none."""
        place = identity.key, node
        shard = self.shards.get(place)
        if shard is None:
            shard = self._new(place, identity, wall_ns)
        else:
            self.shards.move_to_end(place)
        shard.join(identity, wall_ns)
        if self._keys.get(workload_id) != identity.key:
            self._adopt((provisional_key(workload_id), node), shard)
            self._remember(workload_id, identity.key)
        return shard

    def read_back(self, key: bytes, record: Mapping[str, Any] | None, changed_ns: int) -> Shard | None:
        """Take a record of ``nsp.observations``; the shard, if it is a later version than the one here."""
        place = records.split_key(key)
        known = self.shards.get(place)
        if record is None:
            if known is not None and known.first_ns <= changed_ns:
                self._drop(place)
            return None
        shard = records.from_record(record, self._settings.shard)
        if known is not None and not records.is_later(shard, known):
            return None
        self._put(place, shard)
        return shard

    def due(self, now_ns: int, *, everything: bool = False) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
        """Records to publish, with their keys; None withdraws one.

        What is new goes at once, so that it is on the topic before the offset of its events is committed;
        counts of what is known wait for ``publish_ns``, unless everything is asked for.
        """
        places, self.urgent = self.urgent, {}
        if everything or now_ns - self._published_ns >= self._settings.publish_ns:
            self._published_ns = now_ns
            places |= self.late
            self.late = {}
            self._settle(places)
        gone, self._gone = self._gone, {}
        for workload, node in gone:
            if self._mine(node) and (workload, node) not in self.shards:
                yield records.key_of(workload, node), None
        for place in places:
            shard = self.shards.get(place)
            if shard is None:
                continue
            if not self._mine(place[1]):
                self.late[place] = None  # its node may be ours in a moment: we are reading back its events
                continue
            if place[1] in self.read_to:
                shard.read_to(*self.read_to[place[1]])
            self.counts["published"] += 1
            yield records.key_of(*place), records.to_record(shard)

    def is_drift(self, shard: Shard, key: Key) -> bool:
        """Whether a behaviour that is new here is new since its workload was stable."""
        if not shard.stable_ns or key.standing != "LEARNED":
            return False
        others = self._by_workload.get(shard.identity.key, {})
        return not any(each.knows(key) for each in others.values() if each is not shard)

    def _new(self, place: Place, identity: Identity, wall_ns: int) -> Shard:
        shard = Shard(identity, place[1], self._settings.shard)
        others = [each for each in self._by_workload.get(place[0], {}).values() if each.stable_ns]
        if others and (not identity.image or any(identity.image in each.images for each in others)):
            # One more replica of what is stable elsewhere is judged by what they do.
            shard.images = [identity.image] if identity.image else []
            shard.episode_ns = max(each.episode_ns for each in others)
            shard.stable_ns = max(each.stable_ns for each in others)
        shard.episode_ns = shard.episode_ns or wall_ns
        if identity.image and not shard.images:
            shard.images = [identity.image]
        self._put(place, shard)
        return shard

    def _put(self, place: Place, shard: Shard) -> None:
        self.shards[place] = shard
        self.shards.move_to_end(place)
        self._by_workload.setdefault(place[0], {})[place[1]] = shard
        self._by_node.setdefault(place[1], {})[place[0]] = shard
        while len(self.shards) > self._settings.workloads:
            self.counts["workloads_evicted"] += 1
            self._drop(next(iter(self.shards)))

    def _drop(self, place: Place) -> None:
        del self.shards[place]
        for table, key, other in (
            (self._by_workload, place[0], place[1]),
            (self._by_node, place[1], place[0]),
        ):
            del table[key][other]
            if not table[key]:
                del table[key]
        self._gone[place] = None

    def _adopt(self, provisional: Place, shard: Shard) -> None:
        """A pod that nobody had told of is known now: what it did is its owner's."""
        orphan = self.shards.get(provisional)
        if orphan is None or orphan is shard:
            return
        self._drop(provisional)
        shard.adopt(orphan)
        self.urgent[shard.place] = None
        self.counts["adopted"] += 1

    def _remember(self, workload_id: str, key: str) -> None:
        self._keys[workload_id] = key
        if len(self._keys) > MAX_IDS:
            self._keys.popitem(last=False)

    def _settle(self, places: Mapping[Place, None]) -> None:
        """Note which workloads have become stable: from then on what is new is drift."""
        for workload in {workload for workload, _ in places}:
            shards = self._by_workload.get(workload)
            if not shards or all(each.stable_ns for each in shards.values()):
                continue
            if judge(merge(shards.values()), self._settings.thresholds).may_enforce:
                self.counts["became_stable"] += 1
                for node, shard in shards.items():
                    shard.stable_ns = shard.stable_ns or shard.last_ns
                    self.late[workload, node] = None
