# SPDX-License-Identifier: Apache-2.0
"""One behaviour of one workload on one node: what, with what evidence, and what it counts for. Pure.

Two records of one behaviour are never added up within a node: whoever reads its events counts them once, by
their ring positions (:mod:`stream_apps.learn.shard`). Records of different nodes are of different pods, so
their counts and units add up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

# PROGRAM: it ran. EGRESS: it connected or sent. QUESTION: it asked for a name. LISTEN: it served on a port.
# INGRESS: somebody reached it there. REQUEST and SERVER_NAME: what it said, where a profile judges that.
Kind = Literal["PROGRAM", "EGRESS", "QUESTION", "LISTEN", "INGRESS", "REQUEST", "SERVER_NAME"]
# LEARNED counts for a profile. KNOWN_BAD was done by a tool that is never learned, FORBIDDEN is what a
# profile refused or the configuration forbids: both are kept as evidence, and never become a rule.
Standing = Literal["LEARNED", "KNOWN_BAD", "FORBIDDEN"]

# Hours of the wide unit, which must give the same estimate as single hours.
WIDE_HOURS: Final = 6


class Key(NamedTuple):
    """What a behaviour is.

    Attributes:
        kind: Kind.
        path: Path of the executable.
        script: Script it interprets, empty for none.
        protocol: IP protocol number, 0 where it does not matter.
        port: Remote port going out, local port coming in; 0 where it does not matter.
        last_port: The end of a range of ports that stand for each other; equals ``port`` for one.
        peer: Name or CIDR; of a SERVER_NAME the name, of a REQUEST the method and path.
        standing: What it counts for. One program may do the same in two standings: a shell that an entry
            point runs, and one that an intruder does.
    """

    kind: Kind
    path: str
    script: str = ""
    protocol: int = 0
    port: int = 0
    last_port: int = 0
    peer: str = ""
    standing: Standing = "LEARNED"


def forbidding(key: Key) -> tuple[Key, ...]:
    """The keys of which one is enough to forbid what a key says: there, to this peer at all, by its name."""
    exact = key._replace(standing="FORBIDDEN")
    peer = exact._replace(protocol=0, port=0, last_port=0)
    return exact, peer, peer._replace(kind="QUESTION"), peer._replace(kind="EGRESS")


@dataclass(slots=True)
class Behaviour:
    """The evidence.

    Attributes:
        first_ns: Wall ns, first seen.
        last_ns: Last seen.
        count: How often.
        units: Hours of pods in which it was seen.
        wide_units: Six-hour stretches of pods in which it was seen.
        pods: How many pods showed it.
        seen_in: For pods of now, the hour in which each showed it last.
        before_sensor: Only processes did it that were there before the sensor.
        drift: It was first seen after the workload had been found stable.
        pending_generation: Of the newest profile that would have stopped it, and only told; 0: none.
    """

    first_ns: int = 0
    last_ns: int = 0
    count: int = 0
    units: int = 0
    wide_units: int = 0
    pods: int = 0
    seen_in: dict[str, int] = field(default_factory=dict)
    before_sensor: bool = True
    drift: bool = False
    pending_generation: int = 0

    def see(self, instance: str, hour: int, count: int, seen_ns: tuple[int, int]) -> bool:
        """Take sightings of one hour, between two wall times; whether they are of a new unit."""
        first_ns, last_ns = seen_ns
        self.count += count
        if not self.first_ns or first_ns < self.first_ns:
            self.first_ns = first_ns
        if last_ns > self.last_ns:  # noqa: PLR1730 - once a deed, and max() takes three times as long
            self.last_ns = last_ns
        known = self.seen_in.get(instance, -1)
        if hour <= known:
            return False
        self.seen_in[instance] = hour
        self.units += 1
        self.wide_units += known < 0 or hour // WIDE_HOURS > known // WIDE_HOURS
        self.pods += known < 0
        return True

    def absorb(self, other: Behaviour) -> None:
        """Take over the evidence of another behaviour of the same pods, for which this one stands from now.

        In how many units either was seen is not known any more; at least in as many as the commoner one.
        """
        self.first_ns = min(filter(None, (self.first_ns, other.first_ns)), default=0)
        self.last_ns = max(self.last_ns, other.last_ns)
        self.count += other.count
        self.units = max(self.units, other.units)
        self.wide_units = max(self.wide_units, other.wide_units)
        self.pods = max(self.pods, other.pods)
        for instance, hour in other.seen_in.items():
            self.seen_in[instance] = max(hour, self.seen_in.get(instance, -1))
        self.before_sensor = self.before_sensor and other.before_sensor
        self.drift = self.drift or other.drift
        self._mark(other.pending_generation)

    def join(self, other: Behaviour) -> None:
        """Take over the evidence of the same behaviour of other pods of this node."""
        self.first_ns = min(filter(None, (self.first_ns, other.first_ns)), default=0)
        self.last_ns = max(self.last_ns, other.last_ns)
        self.count += other.count
        self.units += other.units
        self.wide_units += other.wide_units
        self.pods += other.pods
        self.seen_in |= other.seen_in
        self.before_sensor = self.before_sensor and other.before_sensor
        self._mark(other.pending_generation)

    def _mark(self, generation: int) -> None:
        self.pending_generation = max(self.pending_generation, generation)

    def plus(self, other: Behaviour) -> Behaviour:
        """The same behaviour on two nodes, which have no pod in common."""
        return Behaviour(
            first_ns=min(self.first_ns, other.first_ns),
            last_ns=max(self.last_ns, other.last_ns),
            count=self.count + other.count,
            units=self.units + other.units,
            wide_units=self.wide_units + other.wide_units,
            pods=self.pods + other.pods,
            before_sensor=self.before_sensor and other.before_sensor,
            drift=self.drift and other.drift,
            pending_generation=max(self.pending_generation, other.pending_generation),
        )

    def beside(self, other: Behaviour) -> Behaviour:
        """Two behaviours of the same pods as one: in how many pods and units either was seen is not known."""
        both = self.plus(other)
        both.units = max(self.units, other.units)
        both.wide_units = max(self.wide_units, other.wide_units)
        both.pods = max(self.pods, other.pods)
        return both


def to_record(key: Key, behaviour: Behaviour) -> dict[str, Any]:
    """The ``Behaviour`` record of ``nsp.observations``."""
    return {
        **key._asdict(),
        "first_ns": behaviour.first_ns,
        "last_ns": behaviour.last_ns,
        "count": behaviour.count,
        "units": behaviour.units,
        "wide_units": behaviour.wide_units,
        "pods": behaviour.pods,
        "seen_in": dict(behaviour.seen_in),
        "before_sensor": behaviour.before_sensor,
        "drift": behaviour.drift,
        "pending_generation": behaviour.pending_generation,
    }


def from_record(record: Mapping[str, Any]) -> tuple[Key, Behaviour]:
    """Back from the record."""
    key = Key(*(record[name] for name in Key._fields))
    return key, Behaviour(
        first_ns=record["first_ns"],
        last_ns=record["last_ns"],
        count=record["count"],
        units=record["units"],
        wide_units=record["wide_units"],
        pods=record["pods"],
        seen_in=dict(record["seen_in"]),
        before_sensor=record["before_sensor"],
        drift=record["drift"],
        pending_generation=record["pending_generation"],
    )
