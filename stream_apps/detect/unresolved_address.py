# SPDX-License-Identifier: Apache-2.0
"""``nsp.unresolved-address``: a connection to an address outside that no answer ever named.

Input: DNS answers, connects, first datagrams, sockets that were there before. People and programs speak of
names; an address that came from nowhere was in the program, or in a command that somebody else sent. Each
workload is remembered with all addresses it was ever answered (not only while the name lives: programs
cache), a host's services together, since one of them resolves for the others.

Learned, and no alert: private networks (configurable); an address given on the command line of the process or
of one above it; what a program contacts that was there before we looked, for as long as it may have resolved
it then. Not judged: resolvers and time servers, which are configured by address; a UDP association of a
program in character, by which many find out their own address without sending anything.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, ClassVar, Final

from stream_apps.detect.bounded import Bounded
from stream_apps.detect.character import DROPPED, TOOL, and_so, character
from stream_apps.detect.egress import CONNECT, DATAGRAM, PROTOCOL_NAMES
from stream_apps.detect.networks import INSIDE, NOT_PUBLIC, Networks
from stream_apps.detect.observer import Frame, Observer
from stream_apps.detect.rule import Destination, Rule, Sighting
from stream_apps.detect.scene import endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.detect.exclusions import Exclusion
    from stream_apps.detect.observer import Handler
    from stream_apps.detect.rule import Severity

RULE: Final = Rule(
    id="nsp.unresolved-address",
    title="A connection to an address that no name server gave",
    severity="HIGH",
    attack=("T1071", "T1095"),
)
ANSWER: Final = "nsp.DnsAnswer"
NOTICE: Final = "nsp.SensorNotice"
SOCKET_THERE: Final = "nsp.SocketInventory"

# Resolvers, time servers and DNS over TLS are configured by address.
IGNORED_PORTS: Final = (53, 123, 853)
# A program that was there before we looked may have resolved then; what it contacts meanwhile is learned.
SETTLE_S: Final = 3600
# Workloads, addresses of one (a crawler resolves some thousand an hour), and of all: some 80 MB.
MAX_WORKLOADS: Final = 4096
MAX_ADDRESSES: Final = 4096
MAX_ALL_ADDRESSES: Final = 500_000
MAX_NODES: Final = 8192

_NS_PER_S: Final = 1_000_000_000
_FOR_EVER: Final = 1 << 63
# An address that was told is told again a day later.
_TOLD_NS: Final = 86_400 * _NS_PER_S
# An answer with more records than are followed hides addresses for about so long.
_BLIND_NS: Final = 300 * _NS_PER_S
_ADDRESS_TYPES: Final = (1, 28)
_UDP: Final = 17
_NO_ADDRESS: Final = re.compile(r"[^0-9a-fA-F:.]+")


class _Memory:
    """What a workload was answered."""

    __slots__ = ("blind_until_ns", "known", "since_ns")

    def __init__(self) -> None:
        self.since_ns = -1
        self.blind_until_ns = 0
        self.known: OrderedDict[str, int] = OrderedDict()


class UnresolvedAddress(Observer):
    """The detector.

    Args:
        exclusions: What is known and wanted.
        severity: The highest it gives.
        ignored_networks: Not judged.
        ignored_ports: Not judged.
        settle_s: How long programs that were there before may contact what they resolved before.
    """

    settings: ClassVar[tuple[str, ...]] = (*Observer.settings, "_ignored", "_ports", "_settle_ns")

    def __init__(
        self,
        exclusions: Sequence[Exclusion] = (),
        severity: Severity | None = None,
        *,
        ignored_networks: Sequence[str] = NOT_PUBLIC,
        ignored_ports: Sequence[int] = IGNORED_PORTS,
        settle_s: int = SETTLE_S,
    ) -> None:
        super().__init__(RULE, exclusions, severity)
        self._ignored = INSIDE if tuple(ignored_networks) == NOT_PUBLIC else Networks(ignored_networks)
        self._ports = frozenset(ignored_ports)
        self._settle_ns = settle_s * _NS_PER_S
        self._memories: Bounded[str, _Memory] = Bounded(MAX_WORKLOADS, _Memory, self._forget)
        self._addresses = 0
        self._nodes: Bounded[str, list[int]] = Bounded(MAX_NODES, list)
        self._addresses_evicted = 0

    def firsts(self) -> Mapping[str, Handler]:
        """See :class:`Observer`."""
        return {CONNECT: self._connect, DATAGRAM: self._contact}

    def handlers(self) -> Mapping[str, Handler]:
        """See :class:`Observer`."""
        return {ANSWER: self._answer, SOCKET_THERE: self._was_there, NOTICE: self._notice}

    def metrics(self) -> Mapping[str, int]:
        """See :class:`Observer`."""
        return {
            "evicted": self._memories.evicted + self._nodes.evicted,
            "addresses_evicted": self._addresses_evicted,
            "addresses_now": self._addresses,
            "workloads_now": len(self._memories),
        }

    def begin(self, frame: Frame, first_ns: int) -> None:
        """See :class:`Observer`: since when we see what a node's programs resolve."""
        since = self._nodes.at(frame.scene.view.node)
        if not since:
            since.append(first_ns)

    def _memory(self, frame: Frame, index: int, now_ns: int) -> _Memory:
        memory = self._memories.at(frame.pool(index))
        if memory.since_ns < 0:
            since = self._nodes.at(frame.scene.view.node)
            # After an eviction it may be one that we forgot, with all its names.
            memory.since_ns = now_ns if self._memories.evicted or not since else since[0]
        return memory

    def _learn(self, memory: _Memory, address: str, until_ns: int = _FOR_EVER) -> None:
        known = memory.known
        self._addresses += address not in known
        known[address] = until_ns
        known.move_to_end(address)
        if len(known) > MAX_ADDRESSES:
            known.popitem(last=False)
            self._addresses -= 1
            self._addresses_evicted += 1
        while self._addresses > MAX_ALL_ADDRESSES and len(self._memories) > 1:
            self._memories.drop_oldest()

    def _forget(self, memory: _Memory) -> None:
        self._addresses -= len(memory.known)
        self._addresses_evicted += len(memory.known)
        memory.known.clear()

    def _answer(self, frame: Frame, index: int, event: Mapping[str, Any]) -> None:
        records = event["records"]
        memory = self._memory(frame, index, event["ktime_ns"] + frame.offset_ns)
        if event["incomplete"]:
            memory.blind_until_ns = event["ktime_ns"] + frame.offset_ns + _BLIND_NS
        known = memory.known
        for each in records:
            if each["type"] in _ADDRESS_TYPES:
                address = each["data"]
                if known.get(address) == _FOR_EVER:
                    known.move_to_end(address)
                else:
                    self._learn(memory, address)

    def _was_there(self, frame: Frame, index: int, event: Mapping[str, Any]) -> None:
        if event["remote_port"]:
            memory = self._memory(frame, index, event["ktime_ns"] + frame.offset_ns)
            self._learn(memory, event["remote_address"])

    def _notice(self, frame: Frame, index: int, event: Mapping[str, Any]) -> None:
        """A sensor that starts anew has missed what was resolved while there was none."""
        del index
        if event["kind"] == "STARTED":
            self._nodes.put(frame.scene.view.node, [event["ktime_ns"] + frame.offset_ns])

    def _connect(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        if event["remote_address"] in self._ignored:
            return None
        if event["protocol"] == _UDP and character(frame, index).level < DROPPED:
            return None
        return self._contact(frame, index, event)

    def _contact(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        address: str = event["remote_address"]
        if not index or event["remote_port"] in self._ports or address in self._ignored:
            return None
        now_ns = event["ktime_ns"] + frame.offset_ns
        memory = self._memory(frame, index, now_ns)
        if memory.known.get(address, 0) > now_ns or now_ns < memory.blind_until_ns:
            return None
        scene = frame.scene
        if scene.name_behind(index, address, event["ktime_ns"]) or scene.pods.at(address):
            return None
        begun_ns: int = scene.view.processes[index]["image_ns"] + frame.offset_ns
        if (begun_ns < memory.since_ns and now_ns < memory.since_ns + self._settle_ns) or _was_given(
            frame, index, address
        ):
            self._learn(memory, address)
            return None
        self._learn(memory, address, now_ns + _TOLD_NS)
        return self._sighting(frame, index, event)

    def _sighting(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting:
        level, why = character(frame, index)
        if level >= DROPPED:
            severity: Severity = "HIGH"
        else:
            severity = "MEDIUM" if level == TOOL and frame.contained(index) else "LOW"
        address, port, protocol = event["remote_address"], event["remote_port"], event["protocol"]
        where = f"{endpoint(address, port)}/{PROTOCOL_NAMES.get(protocol, protocol)}"
        return Sighting(
            self.capped(severity),
            f"contact with {where}, which was never resolved",
            and_so(why, f"contacts {where}, which no name server gave its workload"),
            Destination(address, port, protocol),
            weight=level,
        )


def _was_given(frame: Frame, index: int, address: str) -> bool:
    """Whether an address is on the command line of a process, or of one above it in its workload."""
    view = frame.scene.view
    seen: set[int] = set()
    while index and index not in seen:
        seen.add(index)
        for each in view.processes[index]["argv"]:
            if address in each and any(
                word == address or word.startswith(f"{address}:") for word in _NO_ADDRESS.split(each)
            ):
                return True
        index = view.parent_within(index)
    return False
