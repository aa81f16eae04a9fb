# SPDX-License-Identifier: Apache-2.0
"""``nsp.port-scan``: somebody looks for what is open: many ports of one host, or one port of many hosts.

Input: TCP connections that never came up (refused or unanswered: the kernel says so when the socket closes),
those that a profile or a block refused, and first datagrams. Output: told when one workload, within a window,
failed at so many distinct ports of a host, or hosts at a port. Zeek's ``policy/misc/scan`` counts the same,
with the same defaults; of datagrams no outcome is seen, so Elastic's 100 distinct ports of one host count.

What is known to answer fails for other reasons: an endpoint that once was reached by this workload does not
count. So a scraper whose targets are down, or a client of a service that is being rolled out, is no scan.
Counted by workload, since a shell's loop is a process a port. Endpoints and workloads are bounded.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from stream_apps.detect.bounded import Bounded
from stream_apps.detect.character import DROPPED, and_so, character
from stream_apps.detect.egress import CONNECT, DATAGRAM, REFUSAL
from stream_apps.detect.observer import Frame, Observer
from stream_apps.detect.rule import Destination, Rule, Sighting
from stream_apps.detect.scene import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.detect.exclusions import Exclusion
    from stream_apps.detect.observer import Handler
    from stream_apps.detect.rule import Severity

RULE: Final = Rule(
    id="nsp.port-scan",
    title="A workload looks for open ports",
    severity="HIGH",
    attack=("T1046",),
)
CLOSE: Final = "nsp.SocketClose"

MAX_WORKLOADS: Final = 4096
# Endpoints that failed, in one workload's window; a sweep of a /22 on one port fits.
MAX_FAILED: Final = 1024
# Endpoints that answered, of one workload: a large scraper's targets; and of all: some 80 MB.
MAX_REACHED: Final = 2048
MAX_ALL_REACHED: Final = 500_000

_NS_PER_S: Final = 1_000_000_000
_TCP: Final = 6
_UDP: Final = 17
_SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class ScanLimits:
    """When looking around is a scan.

    Attributes:
        ports: Distinct ports of one host that failed (Zeek: 15).
        hosts: Distinct hosts on one port that failed (Zeek: 25).
        datagram_ports: Distinct ports of one host that datagrams went to (Elastic: 100).
        window_s: Within so long (Zeek: 5 minutes).
    """

    ports: int = 15
    hosts: int = 25
    datagram_ports: int = 100
    window_s: int = 300


class _Tried:
    """Distinct endpoints in a sliding window, with counts by host and by port."""

    __slots__ = ("endpoints", "evicted", "hosts_of", "ports_of")

    def __init__(self) -> None:
        self.endpoints: OrderedDict[tuple[str, int], int] = OrderedDict()
        self.ports_of: Counter[str] = Counter()
        self.hosts_of: Counter[int] = Counter()
        self.evicted = 0

    def add(self, address: str, port: int, now_ns: int, since_ns: int) -> bool:
        """Take an endpoint; whether it is new in the window."""
        endpoints = self.endpoints
        while endpoints:
            first = next(iter(endpoints))
            if endpoints[first] >= since_ns and len(endpoints) < MAX_FAILED:
                break
            self.evicted += endpoints[first] >= since_ns
            self._forget(first)
        if (address, port) in endpoints:
            return False
        endpoints[address, port] = now_ns
        self.ports_of[address] += 1
        self.hosts_of[port] += 1
        return True

    def _forget(self, endpoint: tuple[str, int]) -> None:
        del self.endpoints[endpoint]
        address, port = endpoint
        self.ports_of[address] -= 1
        if not self.ports_of[address]:
            del self.ports_of[address]
        self.hosts_of[port] -= 1
        if not self.hosts_of[port]:
            del self.hosts_of[port]


class _Workload:
    """What one workload tried."""

    __slots__ = ("datagrams", "failed", "forgotten", "reached", "told_until_ns")

    def __init__(self) -> None:
        self.forgotten = False
        self.failed = _Tried()
        self.datagrams = _Tried()
        self.reached: OrderedDict[tuple[str, int], None] = OrderedDict()
        self.told_until_ns = 0


class PortScan(Observer):
    """The detector.

    Args:
        exclusions: What is known and wanted.
        severity: The highest it gives.
        limits: When it is a scan.
    """

    settings: ClassVar[tuple[str, ...]] = (*Observer.settings, "_limits", "_window_ns")

    def __init__(
        self,
        exclusions: Sequence[Exclusion] = (),
        severity: Severity | None = None,
        limits: ScanLimits | None = None,
    ) -> None:
        super().__init__(RULE, exclusions, severity)
        self._limits = limits or ScanLimits()
        self._window_ns = self._limits.window_s * _NS_PER_S
        self._workloads: Bounded[str, _Workload] = Bounded(MAX_WORKLOADS, _Workload, self._forget)
        self._reached = 0
        self._endpoints_evicted = 0
        # Of the batch's images, what was looked up.
        self._of: list[_Workload | None] = []

    def begin(self, frame: Frame, first_ns: int) -> None:
        """See :class:`Observer`."""
        del first_ns
        self._of = [None] * len(frame.owners)

    def handlers(self) -> Mapping[str, Handler]:
        """See :class:`Observer`."""
        return {CLOSE: self._closed, REFUSAL: self._refused}

    def firsts(self) -> Mapping[str, Handler]:
        """See :class:`Observer`."""
        return {DATAGRAM: self._datagram, CONNECT: self._connected}

    def metrics(self) -> Mapping[str, int]:
        """See :class:`Observer`."""
        return {
            "evicted": self._workloads.evicted,
            "endpoints_evicted": self._endpoints_evicted,
            "reached_now": self._reached,
            "workloads_now": len(self._workloads),
        }

    def _closed(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        if event["inbound"]:
            return None
        if not event["established"]:
            return self._failed(frame, index, event)
        workload = self._of[index]
        if workload is None or workload.forgotten:
            workload = self._of[index] = self._workloads.at(frame.workload_ids[index])
        reached = workload.reached
        endpoint = event["remote_address"], event["remote_port"]
        if endpoint not in reached:
            reached[endpoint] = None
            self._reached += 1
            if len(reached) > MAX_REACHED:
                reached.popitem(last=False)
                self._reached -= 1
                self._endpoints_evicted += 1
            while self._reached > MAX_ALL_REACHED:
                self._workloads.drop_oldest()
        return None

    def _forget(self, workload: _Workload) -> None:
        workload.forgotten = True
        self._reached -= len(workload.reached)
        self._endpoints_evicted += len(workload.reached)

    def _refused(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        attempt = event["hook"] == "CONNECT" and event["protocol"] == _TCP
        if not attempt or event["alerted_only"] or event["reason"].startswith("QUARANTINED"):
            return None
        return self._failed(frame, index, event)

    def _failed(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        address, port = event["remote_address"], event["remote_port"]
        workload = self._workloads.at(frame.workload_ids[index])
        if (address, port) in workload.reached or frame.scene.stays_inside(index, address):
            return None
        tried, now_ns = workload.failed, event["ktime_ns"] + frame.offset_ns
        if not self._add(tried, address, port, now_ns) or now_ns < workload.told_until_ns:
            return None
        if tried.ports_of[address] >= self._limits.ports:
            ports = sorted(each for host, each in tried.endpoints if host == address)
            what = f"failed at {len(ports)} ports of {address}: {_list(ports)}"
        elif tried.hosts_of[port] >= self._limits.hosts:
            hosts = [host for host, each in tried.endpoints if each == port]
            what = f"failed at port {port} of {len(hosts)} hosts: {_list(hosts)}"
        else:
            return None
        workload.told_until_ns = now_ns + self._window_ns
        return self._sighting(frame, index, what, Destination(address, port, _TCP))

    def _connected(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        return self._datagram(frame, index, event) if event["protocol"] == _UDP else None

    def _datagram(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        address, port = event["remote_address"], event["remote_port"]
        if frame.scene.stays_inside(index, address):
            return None
        workload = self._workloads.at(frame.workload_ids[index])
        tried, now_ns = workload.datagrams, event["ktime_ns"] + frame.offset_ns
        if not self._add(tried, address, port, now_ns) or now_ns < workload.told_until_ns:
            return None
        if tried.ports_of[address] < self._limits.datagram_ports:
            return None
        workload.told_until_ns = now_ns + self._window_ns
        what = f"sent datagrams to {tried.ports_of[address]} ports of {address}"
        return self._sighting(frame, index, what, Destination(address, port, event["protocol"]))

    def _add(self, tried: _Tried, address: str, port: int, now_ns: int) -> bool:
        before = tried.evicted
        new = tried.add(address, port, now_ns, now_ns - self._window_ns)
        self._endpoints_evicted += tried.evicted - before
        return new

    def _sighting(self, frame: Frame, index: int, what: str, destination: Destination) -> Sighting:
        level, why = character(frame, index)
        within = f"{what} within {self._limits.window_s} s"
        return Sighting(
            self.capped("HIGH" if level >= DROPPED else "MEDIUM"),
            shown(within),
            and_so(why, within),
            destination,
            weight=level,
        )


def _list(items: Sequence[object]) -> str:
    more = len(items) - _SHOWN
    return ", ".join(map(str, items[:_SHOWN])) + (f" and {more} more" if more > 0 else "")
