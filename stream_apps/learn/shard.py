# SPDX-License-Identifier: Apache-2.0
"""What one node tells of one workload: the unit of state, and one message of ``nsp.observations``.

Each event of a node counts once: a shard knows up to which ring position of which boot it has everything,
and whoever reads events again passes over those below. So reading a batch twice, or going on from an older
offset than was published, changes nothing. Shards of different nodes have no pod and no event in common;
merging a workload is putting its shards side by side, and of two versions of one shard the later one counts.

Bounded: programs, destinations and names per program, ports, replicas. What goes beyond is folded (addresses
into CIDRs, ephemeral ports into their range) or, where that is not allowed, not learned; both are counted in
``beyond`` by reason, and a workload that was cut short is never called complete. Pure.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from stream_apps.learn.behaviour import WIDE_HOURS, Behaviour, Key, forbidding
from stream_apps.learn.folding import network
from stream_apps.learn.peers import Peers

if TYPE_CHECKING:
    from stream_apps.learn.folding import Net
    from stream_apps.learn.identity import Identity
    from stream_apps.learn.peers import PeerLimits

# Replicas of a workload on one node that are remembered by name; a rollout replaces them.
MAX_INSTANCES: Final = 64
# Boots of a node whose positions are remembered: an app that reads again what is older is a month behind.
MAX_BOOTS: Final = 4
# Of one pod, restarts among them.
MAX_CONTAINERS: Final = 16
# So that a shard fits its message: a behaviour is 200 bytes, with the longest path and name 700.
MAX_BEHAVIOURS: Final = 2500
_ADDRESSED: Final = frozenset({"EGRESS", "INGRESS"})
_NAMED: Final = frozenset({"QUESTION", "LISTEN", "REQUEST", "SERVER_NAME"})


@dataclass(slots=True)
class Instance:
    """One replica: a pod, or a service on its node.

    Attributes:
        name: For people.
        first_ns: First seen.
        last_ns: Last seen.
        starts: Starts of it that were seen from the first program on.
        hour: Hour in which it was seen last.
        containers: Ids of its containers, the newest last.
    """

    name: str
    first_ns: int
    last_ns: int
    starts: int = 0
    hour: int = -1
    containers: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ShardLimits:
    """Bounds.

    Attributes:
        programs: Programs of one workload on one node.
        names: Names one program may ask for, reach, or serve.
        peers: How addresses and ports are folded.
        never: Networks that are not folded into others.
    """

    programs: int
    names: int
    peers: PeerLimits
    never: tuple[Net, ...] = ()


@dataclass(slots=True)
class Shard:
    """The state of one workload on one node.

    Attributes:
        identity: Which workload; its labels are those all replicas have had.
        node: Node name.
        limits: Bounds.
        first_ns: Wall ns of the first event.
        last_ns: Of the last one.
        episode_ns: Since when this image of it is learned; a new image begins anew.
        stable_ns: When it was found stable, 0: not in this episode.
        loss_ns: When its node last lost events while it was there; 0 never.
        positions: Per boot id up to which ring position all is in here.
        images: Container images it has had, the newest last.
        instances: Replicas by id.
        units: (replica, hour) units in which it did anything.
        wide_units: The same of six hours.
        pods: Replicas seen.
        starts: Starts seen.
        beyond: What was not learned because of a bound, by reason.
        behaviours: What it did.
    """

    identity: Identity
    node: str
    limits: ShardLimits
    first_ns: int = 0
    last_ns: int = 0
    episode_ns: int = 0
    stable_ns: int = 0
    loss_ns: int = 0
    positions: OrderedDict[str, int] = field(default_factory=OrderedDict)
    images: list[str] = field(default_factory=list)
    instances: OrderedDict[str, Instance] = field(default_factory=OrderedDict)
    units: int = 0
    wide_units: int = 0
    pods: int = 0
    starts: int = 0
    beyond: Counter[str] = field(default_factory=Counter)
    behaviours: dict[Key, Behaviour] = field(default_factory=dict)
    _peers: dict[tuple[str, str, str, int, str], Peers] = field(default_factory=dict)
    _sizes: Counter[tuple[str, ...]] = field(default_factory=Counter)
    _programs: int = 0
    has_forbidden: bool = False
    has_pending: bool = False

    @property
    def place(self) -> tuple[str, str]:
        """Workload and node."""
        return self.identity.key, self.node

    def position(self, boot_id: str) -> int:
        """Events of a boot below this position are in here already."""
        return self.positions.get(boot_id, -1)

    def read_to(self, boot_id: str, position: int) -> None:
        """All events of this workload below a position are in here."""
        self.positions[boot_id] = max(position, self.position(boot_id))
        self.positions.move_to_end(boot_id)
        if len(self.positions) > MAX_BOOTS:
            self.positions.popitem(last=False)

    def join(self, identity: Identity, now_ns: int) -> None:
        """A replica may narrow the labels, and begin a new episode with another image."""
        shared = dict(identity.labels.items() & self.identity.labels.items())
        if shared != self.identity.labels:
            self.identity = replace(self.identity, labels=shared)
        image = identity.image
        if image and image not in self.images:
            self.images = [*self.images[-7:], image]
            self.episode_ns, self.stable_ns = now_ns, 0
        self.episode_ns = self.episode_ns or now_ns

    def meet(self, identity: Identity, hour: int, seen_ns: tuple[int, int]) -> bool:
        """A replica did something within an hour, between two wall times; whether that is a new unit."""
        first_ns, last_ns = seen_ns
        found = self.instances.get(identity.instance)
        if found is None:
            found = self.instances[identity.instance] = Instance(identity.instance_name, first_ns, last_ns)
            self.pods += 1
            self._forget_instances()
        self.first_ns = min(self.first_ns or first_ns, first_ns)
        self.last_ns = max(self.last_ns, last_ns)
        found.last_ns = max(found.last_ns, last_ns)
        if hour <= found.hour:
            return False
        self.units += 1
        self.wide_units += found.hour < 0 or hour // WIDE_HOURS > found.hour // WIDE_HOURS
        found.hour = hour
        return True

    def runs_in(self, instance: str, container_id: str, *, began: bool) -> bool:
        """A program ran; whether that was a start of its replica.

        A pod starts with a container that is new; what is executed into a running one, a probe, is none.

        Args:
            instance: The replica.
            container_id: Its container; empty outside of containers.
            began: The program is one by which a replica starts, if it does.
        """
        found = self.instances.get(instance)
        if found is None or (container_id and container_id in found.containers):
            return False
        if container_id:
            found.containers = [*found.containers[-(MAX_CONTAINERS - 1) :], container_id]
        if began:
            found.starts += 1
            self.starts += 1
        return began

    def behaviour(self, key: Key) -> Behaviour | None:
        """The behaviour of a key, made if it is new; None when a bound speaks against it (counted).

        An EGRESS or INGRESS may be part of another by now, that of its network or of a range of ports.
        """
        found = self.behaviours.get(key)
        if found is not None:
            return found
        if key.kind not in _ADDRESSED:
            return None if self._is_beyond(key) else self._made(key)
        peers = self.peers_of(key.kind, key.path, key.script, key.protocol, key.standing)
        net = network(key.peer)
        number = net.number if net is not None else None
        place = peers.find(key.port, key.peer, number)
        if place is not None:
            return self.behaviours[place]
        if self._is_beyond(key) or self._is_full(peers, key, named=net is None):
            return None
        first, last = peers.ports_of(key.port)
        self._made(key._replace(port=first, last_port=last))
        if not self.stable_ns:  # what is new to a stable workload must not become a part of what is known
            self._fold(peers)
        place = peers.find(key.port, key.peer, number)
        return self.behaviours[place] if place is not None else None

    def knows(self, key: Key) -> bool:
        """Whether a behaviour is known, by itself or as a part of another."""
        if key in self.behaviours:
            return True
        peers = self._peers.get((key.kind, key.path, key.script, key.protocol, key.standing))
        net = network(key.peer)
        number = net.number if net is not None else None
        return peers is not None and peers.find(key.port, key.peer, number) is not None

    def peers_of(self, kind: str, path: str, script: str, protocol: int, standing: str) -> Peers:
        """With whom a program speaks a protocol in a direction."""
        place = kind, path, script, protocol, standing
        found = self._peers.get(place)
        if found is None:
            found = self._peers[place] = Peers(self.limits.peers, ingress=kind == "INGRESS")
        return found

    def _never_folded(self) -> list[Net]:
        """Networks that must not be learned as a part of wider ones."""
        mine = (network(key.peer) for key in self.behaviours if key.standing == "FORBIDDEN")
        return [*self.limits.never, *filter(None, mine)]

    def forbids(self, key: Key) -> bool:
        """Whether what a key says was refused to its program: there, or at all."""
        return self.has_forbidden and any(each in self.behaviours for each in forbidding(key))

    def adopt(self, other: Shard) -> None:
        """Take over what a pod did before it was known whose it is."""
        for key, behaviour in other.behaviours.items():
            into = self.behaviour(key)
            if into is not None:
                into.join(behaviour)
        for identifier, each in other.instances.items():
            if identifier not in self.instances:
                self.instances[identifier] = each
                self.pods += 1
        self.first_ns = min(filter(None, (self.first_ns, other.first_ns)), default=0)
        self.last_ns = max(self.last_ns, other.last_ns)
        self.loss_ns = max(self.loss_ns, other.loss_ns)
        self.has_pending = self.has_pending or other.has_pending
        self.units += other.units
        self.wide_units += other.wide_units
        self.starts += other.starts
        self.beyond += other.beyond
        self._forget_instances()

    def lost(self, wall_ns: int) -> None:
        """The node lost events."""
        self.loss_ns = max(self.loss_ns, wall_ns)

    def restore(self, behaviours: dict[Key, Behaviour]) -> None:
        """Take the behaviours of a record."""
        self.behaviours = behaviours
        for key in behaviours:
            self._enter(key)
        self.has_pending = any(each.pending_generation for each in behaviours.values())

    def _forget_instances(self) -> None:
        while len(self.instances) > MAX_INSTANCES:
            oldest = min(self.instances, key=lambda each: self.instances[each].last_ns)
            del self.instances[oldest]
            for each in self.behaviours.values():
                each.seen_in.pop(oldest, None)

    def _is_beyond(self, key: Key) -> bool:
        if len(self.behaviours) >= MAX_BEHAVIOURS:
            self._count_beyond(key, "behaviours")
        elif not self._sizes[_program(key)] and self._programs >= self.limits.programs:
            self._count_beyond(key, "programs")
        elif key.kind in _NAMED and self._sizes[_bucket(key)] >= self.limits.names:
            self._count_beyond(key, key.kind.lower())
        else:
            return False
        return True

    def _count_beyond(self, key: Key, reason: str) -> None:
        """What is not learned anyway makes no profile incomplete, however much there is of it."""
        self.beyond[reason if key.standing == "LEARNED" else "evidence"] += 1

    def _is_full(self, peers: Peers, key: Key, *, named: bool) -> bool:
        if not peers.is_full(key.port, named=named):
            return False
        self.count_beyond(key.kind, key.standing)
        return True

    def count_beyond(self, kind: str, standing: str, count: int = 1) -> None:
        """A peer was one too many."""
        reason = "destinations" if kind == "EGRESS" else "sources"
        self.beyond[reason if standing == "LEARNED" else "evidence"] += count

    def _made(self, key: Key) -> Behaviour:
        made = self.behaviours[key] = Behaviour()
        self._enter(key)
        return made

    def _enter(self, key: Key) -> None:
        self._size(key)
        if key.kind in _ADDRESSED:
            self.peers_of(key.kind, key.path, key.script, key.protocol, key.standing).enter(key)

    def _size(self, key: Key) -> None:
        program = _program(key)
        self.has_forbidden |= key.standing == "FORBIDDEN"
        self._programs += not self._sizes[program]
        self._sizes[program] += 1
        self._sizes[_bucket(key)] += 1

    def _fold(self, peers: Peers) -> None:
        """Fold what is too many since a key was entered."""
        for wide, narrow in peers.fold(self._never_folded):
            into = self.behaviours.get(wide)
            if into is None:
                into = self.behaviours[wide] = Behaviour()
                self._size(wide)
            for each in narrow:
                into.absorb(self.behaviours.pop(each))
                self._sizes[_program(each)] -= 1
                self._sizes[_bucket(each)] -= 1


def _program(key: Key) -> tuple[str, ...]:
    return key.path, key.script, key.standing


def _bucket(key: Key) -> tuple[str, ...]:
    return key.kind, key.path, key.script, key.standing
