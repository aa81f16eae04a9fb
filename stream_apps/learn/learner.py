# SPDX-License-Identifier: Apache-2.0
"""Learns what workloads do: batches in, ``nsp.observations`` out.

Input: a batch as the detectors see it, after they have judged it. Output: records that are due, and answers
for the baseline. State is by node and workload (:mod:`stream_apps.learn.shard`); a process keeps those of
all nodes, and publishes those of the nodes whose events it reads. Pure: time comes with the events.

Failure: workloads beyond the bound push out the one unseen for longest, whose record is withdrawn (counted);
programs without a path and names that are none are counted and not learned.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from stream_apps.correlate.ledger import EVENT_LOSSES
from stream_apps.learn import record as records
from stream_apps.learn.behaviour import Key
from stream_apps.learn.completeness import judge
from stream_apps.learn.folding import number_of
from stream_apps.learn.identity import identify, is_provisional
from stream_apps.learn.merged import merge
from stream_apps.learn.peer_names import host_cidr, loopback
from stream_apps.learn.shard import Shard
from stream_apps.learn.sightings import HOUR_NS, tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from stream_apps.correlate.order import Event
    from stream_apps.detect.scene import Scene
    from stream_apps.learn.behaviour import Behaviour
    from stream_apps.learn.completeness import Thresholds
    from stream_apps.learn.conduct import Conduct, Mistrust
    from stream_apps.learn.identity import Identity
    from stream_apps.learn.peer_names import PeerNames
    from stream_apps.learn.peers import Peers
    from stream_apps.learn.shard import ShardLimits
    from stream_apps.learn.sightings import Deed

# Workload ids that lead to a workload's key, for the baseline: pods of a large cluster.
MAX_IDS: Final = 200_000
# A node without a batch for so many others is forgotten; its shards stay.
MAX_NODES: Final = 8192


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


@dataclass(slots=True)
class _Node:
    """A node whose events are read here.

    Attributes:
        boot_id: Its boot.
        position: Up to which ring position its events are learned.
        floor: Below it some shard may have them already.
        losses: Loss counters of its last batch.
        places: Its shards.
    """

    boot_id: str = ""
    position: int = -1
    floor: int = -1
    losses: dict[tuple[str, str], int] = field(default_factory=dict)
    places: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Actor:
    """Who does something, worked out once for a batch and image."""

    conduct: Conduct
    shard: Shard
    identity: Identity
    workload_id: str
    # With whom it speaks, by kind and protocol.
    peers: dict[tuple[str, int], Peers] = field(default_factory=dict)


@dataclass(slots=True)
class _Pass:
    """One hour's part of a batch, with what is worked out as it is needed."""

    scene: Scene
    hour: int
    actors: dict[int, _Actor | None] = field(default_factory=dict)
    shards: dict[int, tuple[Shard, Identity]] = field(default_factory=dict)


class Learner:
    """The state of all workloads. Not thread-safe: one thread calls it.

    Attributes:
        counts: By reason.
        shards: By workload and node, the one unseen for longest first.
    """

    def __init__(self, settings: Settings, mistrust: Mistrust, peers: PeerNames) -> None:
        self.counts: Counter[str] = Counter()
        self.shards: OrderedDict[tuple[str, str], Shard] = OrderedDict()
        self._settings = settings
        self._mistrust = mistrust
        self._peers = peers
        self._name_of = peers.names.name_of
        self._nodes: OrderedDict[str, _Node] = OrderedDict()
        self._keys: OrderedDict[str, str] = OrderedDict()
        self._by_workload: dict[str, dict[str, Shard]] = {}
        self._urgent: dict[tuple[str, str], None] = {}
        self._late: dict[tuple[str, str], None] = {}
        self._gone: dict[tuple[str, str], None] = {}
        self._published_ns = 0
        self._mine: Callable[[str], bool] = lambda _: True

    def takes(self, mine: Callable[[str], bool]) -> None:
        """From now on the records of these nodes are published here."""
        self._mine = mine

    def observe(
        self, scene: Scene, batch: Mapping[str, Any], events: Sequence[Event], gap_bytes: int
    ) -> None:
        """Learn from the events of a batch that were not seen before."""
        node = self._node(scene.view.node, scene.view.boot_id)
        self._losses(node, scene, batch, gap_bytes)
        if batch["ring_start"] < node.floor:
            events = self._unlearned(scene, events)
        offset_ns, images = scene.view.wall_offset_ns, len(scene.view.processes)
        for hour, part in _by_hour(events, offset_ns):
            passing = _Pass(scene, hour)
            for deed, (count, first, last) in tally(part, self.counts).items():
                if 0 <= deed[0] < images:
                    self._learn(passing, deed, count, (first + offset_ns, last + offset_ns))
                else:
                    self.counts["unusable_event"] += count
        node.position = max(node.position, batch["ring_end"])

    def read_back(self, key: bytes, record: Mapping[str, Any] | None, changed_ns: int = 0) -> None:
        """Take a record of ``nsp.observations``; None: it was withdrawn, and learning begins anew."""
        workload, node = records.split_key(key)
        known = self.shards.get((workload, node))
        if record is None:
            if known is not None and known.first_ns <= changed_ns:
                self._drop((workload, node))
            return
        shard = records.from_record(record, self._settings.shard)
        if known is not None and not records.is_later(shard, known):
            return
        self._put((workload, node), shard)
        mine = self._nodes.get(node)
        if mine is not None:
            mine.floor = max(mine.floor, shard.position(mine.boot_id))

    def due(self, now_ns: int, *, everything: bool = False) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
        """Records to publish, with their keys; None withdraws one.

        What is new goes at once, so that it is on the topic before the offset of its events is committed;
        counts of what is known wait for ``publish_ns``, unless everything is asked for.
        """
        places, self._urgent = self._urgent, {}
        if everything or now_ns - self._published_ns >= self._settings.publish_ns:
            self._published_ns = now_ns
            places |= self._late
            self._late = {}
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
                self._late[place] = None  # its node may be ours in a moment: we are reading back its events
                continue
            self.counts["published"] += 1
            yield records.key_of(*place), self._record(shard)

    def key_of(self, workload_id: str) -> str | None:
        """The workload that an id of a batch belongs to."""
        return self._keys.get(workload_id)

    def shards_of(self, workload: str) -> Mapping[str, Shard]:
        """The shards of a workload by node."""
        return self._by_workload.get(workload, {})

    def metrics(self) -> Mapping[tuple[str, str], int]:
        """Counters and sizes, stage ``learn``."""
        figures = {**self.counts, "shards_now": len(self.shards), "workloads_now": len(self._by_workload)}
        return {("learn", name): value for name, value in figures.items()}

    # One batch.

    def _learn(self, passing: _Pass, deed: Deed, count: int, seen_ns: tuple[int, int]) -> None:
        actor = passing.actors.get(deed[0])
        if actor is None:
            if deed[0] not in passing.actors:
                actor = passing.actors[deed[0]] = self._actor(passing, deed[0], seen_ns)
            if actor is None:
                self.counts["unnamed_program"] += count
                return
        shard = actor.shard
        if seen_ns[1] > shard.last_ns:  # noqa: PLR1730 - once a deed, and max() takes three times as long
            shard.last_ns = seen_ns[1]
        if deed[1] == "EGRESS" or deed[1] == "INGRESS":
            behaviour = self._with_peer(actor, deed, seen_ns[0])
        else:
            behaviour = self._alone(passing, actor, deed)
        if behaviour is None:
            return
        if not behaviour.count:
            self.counts["behaviours_new"] += 1
        behaviour.before_sensor = behaviour.before_sensor and actor.conduct.before_sensor
        new_unit = behaviour.see(actor.identity.instance, passing.hour, count, seen_ns)
        (self._urgent if new_unit else self._late)[shard.place] = None

    def _with_peer(self, actor: _Actor, deed: Deed, wall_ns: int) -> Behaviour | None:
        """The behaviour of reaching somebody, or being reached; most are known and found without a key."""
        _, kind, protocol, port, address, refused = deed
        shard, (program, standing) = actor.shard, (actor.conduct.program, actor.conduct.standing)
        known = self._name_of(actor.workload_id, address, wall_ns) if kind == "EGRESS" else None
        name = "" if known is None else self._peers.believed(known)
        number = None if name else number_of(address)
        if not name and number is None:
            self.counts["unusable_address"] += 1
            return None
        peers = None
        if not refused and not shard.has_forbidden:
            peers = actor.peers.get((kind, protocol))
            if peers is None:
                peers = actor.peers[kind, protocol] = shard.peers_of(kind, *program, protocol, standing)
            found = peers.find(port, name or address, number)
            if found is not None:
                return shard.behaviours[found]
        inner = "" if name else loopback(address)
        if inner and actor.identity.kind != "HOST_SERVICE":
            return None  # free in a pod, whatever its profile says
        if peers is not None and not inner and peers.is_full(port, named=bool(name)):
            shard.count_beyond(kind, standing)
            self._late[shard.place] = None
            return None
        key = Key(kind, *program, protocol, port, port, name or inner or host_cidr(address), standing)
        if refused and name:
            # The name may be given another address, and the address be reached without the name.
            self._behaviour(shard, key._replace(peer=host_cidr(address), standing="FORBIDDEN"))
        if refused or (kind == "EGRESS" and self._is_forbidden(shard, key, host_cidr(address))):
            key = key._replace(standing="FORBIDDEN")
        return self._behaviour(shard, key)

    def _alone(self, passing: _Pass, actor: _Actor, deed: Deed) -> Behaviour | None:
        """The behaviour of what needs no peer's address."""
        process, kind, protocol, port, peer, refused = deed
        shard = actor.shard
        if kind == "PROGRAM":
            self._start(passing, process, actor)
        elif kind == "QUESTION":
            peer = self._peers.canonical(peer)
            if not peer:
                self.counts["unusable_name"] += 1
                return None
        elif kind == "LISTEN" and not port:
            return None
        key = Key(kind, *actor.conduct.program, protocol, port, port, peer, actor.conduct.standing)
        if refused or (kind in {"QUESTION", "SERVER_NAME"} and self._is_forbidden(shard, key, peer)):
            key = key._replace(standing="FORBIDDEN")
        return self._behaviour(shard, key)

    def _behaviour(self, shard: Shard, key: Key) -> Behaviour | None:
        size = len(shard.behaviours)
        behaviour = shard.behaviour(key)
        if behaviour is None:
            self._late[shard.place] = None
        elif not behaviour.count and len(shard.behaviours) > size:
            behaviour.drift = self._is_drift(shard, key)
        return behaviour

    def _is_forbidden(self, shard: Shard, key: Key, address: str) -> bool:
        """Whether somebody has said that a peer is not to be learned, by its name or its address."""
        if self._peers.is_forbidden(key.peer) or shard.forbids(key):
            return True
        return address != key.peer and (
            self._peers.is_forbidden(address) or shard.forbids(key._replace(peer=address))
        )

    def _actor(self, passing: _Pass, index: int, seen_ns: tuple[int, int]) -> _Actor | None:
        conduct = self._mistrust.conduct(passing.scene, index) if index else None
        if conduct is None:
            return None
        shard, identity = self._shard(passing, index, seen_ns[0])
        if shard.meet(identity, passing.hour, seen_ns):
            self._urgent[shard.place] = None
        return _Actor(conduct, shard, identity, passing.scene.view.workload_ids[index])

    def _shard(self, passing: _Pass, index: int, wall_ns: int) -> tuple[Shard, Identity]:
        view = passing.scene.view
        number = view.workload_of[index]
        found = passing.shards.get(number)
        if found is not None:
            return found
        workload = view.workloads[number]
        pod = passing.scene.pods.of_workload(workload)
        identity = identify(workload, pod)
        place = identity.key, view.node
        shard = self.shards.get(place)
        if shard is None:
            shard = self._new(place, identity, wall_ns)
        else:
            self.shards.move_to_end(place)
        shard.join(identity, wall_ns)
        if pod is not None and self._keys.get(workload["id"]) != identity.key:
            self._adopt(f"pod/{workload['id']}", place, shard)
        self._remember(workload["id"], identity.key)
        passing.shards[number] = found = shard, identity
        return found

    def _start(self, passing: _Pass, index: int, actor: _Actor) -> None:
        view = passing.scene.view
        container = view.workloads[view.workload_of[index]]["container_id"] or ""
        if actor.shard.runs_in(actor.identity.instance, container, began=actor.conduct.began_workload):
            self._urgent[actor.shard.place] = None

    def _is_drift(self, shard: Shard, key: Key) -> bool:
        """Whether a behaviour that is new here is new since its workload was stable."""
        if not shard.stable_ns or key.standing != "LEARNED":
            return False
        others = self._by_workload.get(shard.identity.key, {})
        return not any(key in each.behaviours for each in others.values() if each is not shard)

    # State.

    def _new(self, place: tuple[str, str], identity: Identity, wall_ns: int) -> Shard:
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

    def _put(self, place: tuple[str, str], shard: Shard) -> None:
        self.shards[place] = shard
        self.shards.move_to_end(place)
        self._by_workload.setdefault(place[0], {})[place[1]] = shard
        node = self._nodes.get(place[1])
        if node is not None:
            node.places.add(place[0])
        while len(self.shards) > self._settings.workloads:
            self.counts["workloads_evicted"] += 1
            self._drop(next(iter(self.shards)))

    def _drop(self, place: tuple[str, str]) -> None:
        del self.shards[place]
        shards = self._by_workload[place[0]]
        del shards[place[1]]
        if not shards:
            del self._by_workload[place[0]]
        if place[1] in self._nodes:
            self._nodes[place[1]].places.discard(place[0])
        self._gone[place] = None

    def _adopt(self, provisional: str, place: tuple[str, str], shard: Shard) -> None:
        """A pod that nobody had told of is known now: what it did is its owner's."""
        orphan = self.shards.get((provisional, place[1]))
        if orphan is None or not is_provisional(provisional):
            return
        self._drop((provisional, place[1]))
        shard.adopt(orphan)
        self._urgent[place] = None
        self.counts["adopted"] += 1

    def _remember(self, workload_id: str, key: str) -> None:
        self._keys[workload_id] = key
        if len(self._keys) > MAX_IDS:
            self._keys.popitem(last=False)

    def _node(self, name: str, boot_id: str) -> _Node:
        node = self._nodes.get(name)
        if node is None or node.boot_id != boot_id:
            places = {workload for workload, of in self.shards if of == name}
            floor = max((self.shards[each, name].position(boot_id) for each in places), default=-1)
            node = self._nodes[name] = _Node(boot_id, floor=floor, places=places)
            if len(self._nodes) > MAX_NODES:
                self._nodes.popitem(last=False)
        self._nodes.move_to_end(name)
        return node

    def _losses(self, node: _Node, scene: Scene, batch: Mapping[str, Any], gap_bytes: int) -> None:
        now = {
            (each["stage"], each["reason"]): each["count"]
            for each in batch["losses"]
            if (each["stage"], each["reason"]) in EVENT_LOSSES
        }
        before, node.losses = node.losses, now
        grew = node.position >= 0 and any(count > before.get(reason, 0) for reason, count in now.items())
        if gap_bytes or grew:
            self.counts["losses"] += 1
            for workload in node.places:
                self.shards[workload, scene.view.node].lost(batch["clock"]["wall_ns"])
                self._late[workload, scene.view.node] = None

    def _unlearned(self, scene: Scene, events: Sequence[Event]) -> list[Event]:
        """Events that their shard does not have yet: read again after a restart."""
        view = scene.view
        floors = []
        for workload in view.workloads:
            shard = self.shards.get((identify(workload, scene.pods.of_workload(workload)).key, view.node))
            floors.append(shard.position(view.boot_id) if shard is not None else -1)
        kept = [
            each for each in events if each[1]["position"] >= floors[view.workload_of[each[1]["process"]]]
        ]
        self.counts["known_already"] += len(events) - len(kept)
        return kept

    def _settle(self, places: Mapping[tuple[str, str], None]) -> None:
        """Note which workloads have become stable: from then on what is new is drift."""
        for workload in {workload for workload, _ in places}:
            shards = self._by_workload.get(workload)
            if not shards or all(each.stable_ns for each in shards.values()):
                continue
            if judge(merge(shards.values()), self._settings.thresholds).may_enforce:
                self.counts["became_stable"] += 1
                for node, shard in shards.items():
                    shard.stable_ns = shard.stable_ns or shard.last_ns
                    self._late[workload, node] = None

    def _record(self, shard: Shard) -> dict[str, Any]:
        node = self._nodes.get(shard.node)
        if node is not None:
            shard.read_to(node.boot_id, node.position)
        return records.to_record(shard)


def _by_hour(events: Sequence[Event], wall_offset_ns: int) -> Iterator[tuple[int, Sequence[Event]]]:
    """The events by the hour they happened in; most batches lie within one."""
    start = 0
    while start < len(events):
        hour = (events[start][1]["ktime_ns"] + wall_offset_ns) // HOUR_NS
        end = len(events)
        if (events[-1][1]["ktime_ns"] + wall_offset_ns) // HOUR_NS != hour:
            end = next(
                number
                for number in range(start, len(events))
                if (events[number][1]["ktime_ns"] + wall_offset_ns) // HOUR_NS != hour
            )
        yield hour, events[start:end]
        start = end
