# SPDX-License-Identifier: Apache-2.0
"""What is remembered for beacons: when each process connected outside, where to, and how much it said.

Input: connections of processes, by the time of the events. Output: for a process its connections within a
window, of all destinations or of one. Some 25 bytes a connection. Bounded by process, by destination of a
process and by connections of all; the oldest of a process go first, and the process unused for longest.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from stream_apps.detect.bounded import Bounded

if TYPE_CHECKING:
    from stream_apps.detect.rule import Severity

Owner = tuple[str, int, int]

# Processes that connect outside, on the nodes of one app.
MAX_PROCESSES: Final = 50_000
# Connections of one process: every ten seconds for almost six hours. Half is dropped when it is full.
MAX_CONNECTIONS: Final = 2048
# Of all processes together: 50 MB.
MAX_ALL_CONNECTIONS: Final = 2_000_000
# Destinations of one process that are told apart; a beacon keeps to few, and the rest share the last place.
MAX_DESTINATIONS: Final = 64
# Addresses of one process whose place is known without asking for their name.
MAX_ADDRESSES: Final = 256


class Process:
    """Connections of one process.

    Attributes:
        places: Place of each destination, by name where it has one, else by address.
        seconds: When each connection began, wall seconds.
        sent: Bytes.
        received: Bytes.
        place_of: Which destination each went to.
        check_ns: When it is looked at next.
        addresses: Place of each address met lately.
        counts: For each place, and the one that the others share, connections since ``counted_s``.
        counted_s: Since when these are counted.
        forgotten: It is in no table any more: what it is told is told to nobody.
        told: For each place what was told of it; -1 is the process as a whole.
    """

    __slots__ = (
        "addresses", "check_ns", "counted_s", "counts", "forgotten", "place_of", "places", "received",
        "seconds", "sent", "told",
    )  # fmt: skip

    def __init__(self) -> None:
        self.places: dict[str, int] = {}
        self.addresses: dict[str, int] = {}
        self.seconds = array("q")
        self.sent = array("q")
        self.received = array("q")
        self.place_of = array("B")
        self.check_ns = 0
        self.forgotten = False
        self.counts = [0]
        self.counted_s = 0
        self.told: dict[int, Severity] = {}

    def place(self, address: str, destination: str) -> int:
        """The place of a destination that an address stands for, given when it is new."""
        found = self.places.get(destination)
        if found is None:
            found = min(len(self.places), MAX_DESTINATIONS)
            if found < MAX_DESTINATIONS:
                self.places[destination] = found
                self.counts.append(0)
        if len(self.addresses) >= MAX_ADDRESSES:
            self.addresses.clear()
        self.addresses[address] = found
        return found

    def connections(self, since_s: int, place: int | None = None) -> list[tuple[int, int, int]]:
        """Second, bytes sent, bytes received of each connection since a second, to one place or to all."""
        return [
            (second, sent, received)
            for second, sent, received, where in zip(
                self.seconds, self.sent, self.received, self.place_of, strict=True
            )
            if second >= since_s and (place is None or where == place)
        ]

    def drop(self, count: int) -> None:
        """Forget the first connections."""
        del self.seconds[:count], self.sent[:count], self.received[:count], self.place_of[:count]


class BeaconMemory:
    """Connections of processes.

    Attributes:
        processes: By owner.
        connections: How many are kept.
        dropped: How many were forgotten because of a bound.
    """

    def __init__(self) -> None:
        self.processes: Bounded[Owner, Process] = Bounded(MAX_PROCESSES, Process, self._forget)
        self.connections = 0
        self.dropped = 0

    def add(self, process: Process, place: int, second: int, sent: int, received: int) -> None:
        """Take a connection."""
        process.seconds.append(second)
        process.sent.append(sent)
        process.received.append(received)
        process.place_of.append(place)
        process.counts[place] += 1
        self.connections += 1
        if len(process.seconds) > MAX_CONNECTIONS:
            self.dropped += MAX_CONNECTIONS // 2
            self.trim(process, MAX_CONNECTIONS // 2)
        while self.connections > MAX_ALL_CONNECTIONS:
            self.processes.drop_oldest()

    def trim(self, process: Process, count: int) -> None:
        """Forget a process's first connections."""
        process.drop(count)
        self.connections -= count

    def expire(self, process: Process, since_s: int) -> None:
        """Forget what began before a second; connections stand almost in order."""
        count = 0
        for each in process.seconds:
            if each >= since_s:
                break
            count += 1
        if count:
            self.trim(process, count)

    def _forget(self, process: Process) -> None:
        process.forgotten = True
        self.connections -= len(process.seconds)
        self.dropped += len(process.seconds)
