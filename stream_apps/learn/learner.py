# SPDX-License-Identifier: Apache-2.0
"""Learns what workloads do: batches in, ``nsp.observations`` out.

Input: a batch as the detectors see it, after they have judged it. Output: records that are due, and the state
that the baseline asks. State is by node and workload (:mod:`stream_apps.learn.shard`). Pure: time comes with
the events. Failure: programs without a path, addresses and names that are none, and events without the
fields of their kind are counted and not learned.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from stream_apps.correlate.ledger import EVENT_LOSSES
from stream_apps.learn.behaviour import Key
from stream_apps.learn.folding import number_of
from stream_apps.learn.identity import identify
from stream_apps.learn.peer_names import host_cidr, loopback
from stream_apps.learn.shelf import Shelf
from stream_apps.learn.sightings import HOUR_NS, stops, tally

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from stream_apps.correlate.order import Event
    from stream_apps.detect.scene import Scene
    from stream_apps.learn.behaviour import Behaviour
    from stream_apps.learn.conduct import Conduct, Mistrust
    from stream_apps.learn.identity import Identity
    from stream_apps.learn.peer_names import PeerNames
    from stream_apps.learn.peers import Peers
    from stream_apps.learn.shard import Shard
    from stream_apps.learn.shelf import Settings
    from stream_apps.learn.sightings import Deed

# A node without a batch for so many others is forgotten; its shards stay.
MAX_NODES: Final = 8192


@dataclass(slots=True)
class _Node:
    """A node whose events are read here.

    Attributes:
        boot_id: Its boot.
        position: Up to which ring position its events are learned.
        floor: Below it some shard may have them already.
        losses: Loss counters of its last batch.
    """

    boot_id: str = ""
    position: int = -1
    floor: int = -1
    losses: dict[tuple[str, str], int] = field(default_factory=dict)


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
    """What workloads do. Not thread-safe: one thread calls it."""

    def __init__(self, settings: Settings, mistrust: Mistrust, peers: PeerNames) -> None:
        self._shelf = Shelf(settings)
        self._mistrust = mistrust
        self._peers = peers
        self._name_of = peers.names.name_of
        self._nodes: OrderedDict[str, _Node] = OrderedDict()

    def retune(self, settings: Settings, mistrust: Mistrust, peers: PeerNames) -> None:
        """Go over to other settings; what was learned stays, also what would not be learned any more."""
        self._shelf.retune(settings)
        self._mistrust = mistrust
        self._peers = peers
        self._name_of = peers.names.name_of

    @property
    def counts(self) -> Counter[str]:
        """Counters by reason."""
        return self._shelf.counts

    def takes(self, mine: Callable[[str], bool]) -> None:
        """From now on the records of these nodes are published here."""
        self._shelf.takes(mine)

    def key_of(self, workload_id: str) -> str | None:
        """The workload that an id of a batch belongs to."""
        return self._shelf.key_of(workload_id)

    def shards_of(self, workload: str) -> Mapping[str, Shard]:
        """The shards of a workload by node."""
        return self._shelf.of_workload(workload)

    def read_back(self, key: bytes, record: Mapping[str, Any] | None, changed_ns: int = 0) -> None:
        """Take a record of ``nsp.observations``; None: it was withdrawn, and learning begins anew."""
        shard = self._shelf.read_back(key, record, changed_ns)
        node = self._nodes.get(shard.node) if shard else None
        if shard is not None and node is not None:
            node.floor = max(node.floor, shard.position(node.boot_id))

    def due(self, now_ns: int, *, everything: bool = False) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
        """Records to publish, with their keys; None withdraws one. See :meth:`Shelf.due`."""
        return self._shelf.due(now_ns, everything=everything)

    def metrics(self) -> Mapping[tuple[str, str], int]:
        """Counters and sizes, stage ``learn``."""
        shelf = self._shelf
        figures = {**shelf.counts, "shards_now": len(shelf.shards), "workloads_now": shelf.workloads()}
        figures["shards_stable_now"] = sum(each.stable_ns > 0 for each in shelf.shards.values())
        return {("learn", name): value for name, value in figures.items()}

    def heard_of(self, node: str) -> tuple[int, int]:
        """See :class:`stream_apps.profiles.canary.Watched`."""
        shards = self._shelf.of_node(node).values()
        return max((each.last_ns for each in shards), default=0), max(
            (each.loss_ns for each in shards), default=0
        )

    def would_stop(self) -> Iterator[tuple[Shard, Key, Behaviour]]:
        """See :class:`stream_apps.profiles.canary.Watched`."""
        for shard in self._shelf.shards.values():
            for key, each in shard.behaviours.items() if shard.has_pending else ():
                learned = each.pending_generation and key.standing == "LEARNED" and not each.drift
                if learned and not shard.forbids(key):
                    yield shard, key, each

    def observe(
        self,
        scene: Scene,
        batch: Mapping[str, Any],
        events: Sequence[Event],
        gap_bytes: int,
        *,
        on_trial: bool = False,
    ) -> None:
        """Learn from the events of a batch that were not seen before.

        Args:
            scene: The batch and what is known around it.
            batch: The batch.
            events: Its events that are new.
            gap_bytes: Of events that never arrived before it.
            on_trial: Whether any profile is: what profiles would have stopped is marked then.
        """
        node = self._node(scene.view.node, scene.view.boot_id)
        self._losses(node, scene, batch, gap_bytes)
        if batch["ring_start"] < node.floor:
            events = self._unlearned(scene, events)
        offset_ns, images = scene.view.wall_offset_ns, len(scene.view.processes)
        for hour, part in _by_hour(events, offset_ns):
            passing = _Pass(scene, hour)
            for deed, (count, first, last) in tally(part, self._shelf.counts).items():
                if 0 <= deed[0] < images:
                    self._learn(passing, deed, count, (first + offset_ns, last + offset_ns))
                else:
                    self._shelf.counts["unusable_event"] += count
            if on_trial:
                self._mark(passing, part)
        node.position = max(node.position, batch["ring_end"])
        self._shelf.read_to[scene.view.node] = node.boot_id, node.position

    # One batch.

    def _mark(self, passing: _Pass, part: Sequence[Event]) -> None:
        """Note what a profile would have stopped. Its event may follow in a later batch, or never."""
        view = passing.scene.view
        for (deed, generation), (first, last) in stops(part).items():
            if not 0 <= deed[0] < len(view.processes):
                continue
            seen_ns = first + view.wall_offset_ns, last + view.wall_offset_ns
            if deed[0] not in passing.actors:
                passing.actors[deed[0]] = self._actor(passing, deed[0], seen_ns)
            actor = passing.actors[deed[0]]
            if actor is None:
                continue
            with_peer = deed[1] == "EGRESS" or deed[1] == "INGRESS"
            found = (
                self._with_peer(actor, deed, seen_ns[0]) if with_peer else self._alone(passing, actor, deed)
            )
            if found is None or found.pending_generation >= generation:
                continue
            if not found.count:
                found.see(actor.identity.instance, passing.hour, 1, seen_ns)
            found.pending_generation = generation
            actor.shard.has_pending = True
            actor.shard.last_ns = max(actor.shard.last_ns, seen_ns[1])
            self._shelf.urgent[actor.shard.place] = None

    def _learn(self, passing: _Pass, deed: Deed, count: int, seen_ns: tuple[int, int]) -> None:
        actor = passing.actors.get(deed[0])
        if actor is None:
            if deed[0] not in passing.actors:
                actor = passing.actors[deed[0]] = self._actor(passing, deed[0], seen_ns)
            if actor is None:
                self._shelf.counts["unnamed_program"] += count
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
            self._shelf.counts["behaviours_new"] += 1
        behaviour.before_sensor = behaviour.before_sensor and actor.conduct.before_sensor
        new_unit = behaviour.see(actor.identity.instance, passing.hour, count, seen_ns)
        (self._shelf.urgent if new_unit else self._shelf.late)[shard.place] = None

    def _with_peer(self, actor: _Actor, deed: Deed, wall_ns: int) -> Behaviour | None:
        """The behaviour of reaching somebody, or being reached; most are known and found without a key."""
        _, kind, protocol, port, address, refused = deed
        shard, (program, standing) = actor.shard, (actor.conduct.program, actor.conduct.standing)
        known = self._name_of(actor.workload_id, address, wall_ns) if kind == "EGRESS" else None
        name = "" if known is None else self._peers.believed(known)
        number = None if name else number_of(address)
        if not name and number is None:
            self._shelf.counts["unusable_address"] += 1
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
            self._shelf.late[shard.place] = None
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
                self._shelf.counts["unusable_name"] += 1
                return None
        elif kind == "LISTEN" and not port:
            return None
        key = Key(kind, *actor.conduct.program, protocol, port, port, peer, actor.conduct.standing)
        if not refused and not shard.has_forbidden:
            found = shard.behaviours.get(key)
            if found is not None:
                return found
        if refused or (kind in {"QUESTION", "SERVER_NAME"} and self._is_forbidden(shard, key, peer)):
            key = key._replace(standing="FORBIDDEN")
        return self._behaviour(shard, key)

    def _behaviour(self, shard: Shard, key: Key) -> Behaviour | None:
        size = len(shard.behaviours)
        behaviour = shard.behaviour(key)
        if behaviour is None:
            self._shelf.late[shard.place] = None
        elif not behaviour.count and len(shard.behaviours) > size:
            behaviour.drift = self._shelf.is_drift(shard, key)
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
            self._shelf.urgent[shard.place] = None
        return _Actor(conduct, shard, identity, passing.scene.view.workload_ids[index])

    def _shard(self, passing: _Pass, index: int, wall_ns: int) -> tuple[Shard, Identity]:
        view = passing.scene.view
        number = view.workload_of[index]
        found = passing.shards.get(number)
        if found is not None:
            return found
        workload = view.workloads[number]
        identity = identify(workload, passing.scene.pods.of_workload(workload))
        shard = self._shelf.shard_of(workload["id"], identity, view.node, wall_ns)
        passing.shards[number] = found = shard, identity
        return found

    def _start(self, passing: _Pass, index: int, actor: _Actor) -> None:
        view = passing.scene.view
        container = view.workloads[view.workload_of[index]]["container_id"] or ""
        # A container's first program may be its runtime's, already inside: that the container is new tells.
        began = not actor.conduct.before_sensor if container else actor.conduct.began_workload
        if actor.shard.runs_in(actor.identity.instance, container, began=began):
            self._shelf.urgent[actor.shard.place] = None

    def _node(self, name: str, boot_id: str) -> _Node:
        node = self._nodes.get(name)
        if node is None or node.boot_id != boot_id:
            shards = self._shelf.of_node(name).values()
            floor = max((each.position(boot_id) for each in shards), default=-1)
            node = self._nodes[name] = _Node(boot_id, floor=floor)
            if len(self._nodes) > MAX_NODES:
                forgotten, _ = self._nodes.popitem(last=False)
                self._shelf.read_to.pop(forgotten, None)
        self._nodes.move_to_end(name)
        return node

    def _losses(self, node: _Node, scene: Scene, batch: Mapping[str, Any], gap_bytes: int) -> None:
        now = {
            (each["stage"], each["reason"]): each["count"]
            for each in batch["losses"]
            if (each["stage"], each["reason"]) in EVENT_LOSSES
        }
        before, node.losses = node.losses, now
        if node.floor > node.position:
            return  # another process read it meanwhile: what lies between is its own
        grew = node.position >= 0 and any(count > before.get(reason, 0) for reason, count in now.items())
        if gap_bytes or grew:
            self._shelf.counts["losses"] += 1
            for shard in self._shelf.of_node(scene.view.node).values():
                shard.lost(batch["clock"]["wall_ns"])
                self._shelf.late[shard.place] = None

    def _unlearned(self, scene: Scene, events: Sequence[Event]) -> list[Event]:
        """Events that their shard does not have yet: read again after a restart."""
        view = scene.view
        shards, floors = self._shelf.of_node(view.node), []
        for workload in view.workloads:
            shard = shards.get(identify(workload, scene.pods.of_workload(workload)).key)
            floors.append(shard.position(view.boot_id) if shard is not None else -1)
        floor_of = [floors[each] for each in view.workload_of]
        images = range(len(floor_of))
        kept = [
            each
            for each in events
            if each[1]["process"] not in images or each[1]["position"] >= floor_of[each[1]["process"]]
        ]
        self._shelf.counts["known_already"] += len(events) - len(kept)
        return kept


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
