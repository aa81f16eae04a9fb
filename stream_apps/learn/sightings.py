# SPDX-License-Identifier: Apache-2.0
"""Events of a batch as what was done how often: the hot part of learning. Pure.

Input: events in order. Output: for each distinct deed its number, first and last time. A batch has hundreds
of events and few distinct deeds, so all the rest of learning is per deed. Events that say nothing about what
a workload does (closes, answers, forks) cost one look-up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable, Mapping

    from stream_apps.correlate.order import Event
    from stream_apps.learn.behaviour import Kind

    Reader = Callable[[Mapping[str, Any]], "Deed | None"]

HOUR_NS: Final = 3600 * 1_000_000_000
_TCP: Final = 6
_UDP: Final = 17
# From here on are the ports that the kernel gives to clients.
_CLIENT_PORT: Final = 32_768
_ESTABLISHED: Final = 1
_LISTENING: Final = 10
_UNCONNECTED: Final = 7
# Of these a profile speaks against the peer itself, whatever the port.
_WHOLE_PEER: Final = frozenset({"ADDRESS", "DNS_NAME", "BLOCKED_DESTINATION"})
_BY_PORT: Final = frozenset({"L4_PROTOCOL"})


# What one image did: index of the image; kind as of behaviour.Key; IP protocol or 0; remote port going out,
# local port coming in, or 0; address, name or what was said; whether the kernel refused it. A plain tuple:
# one is made for every second event, and a named one takes four times as long.
Deed = tuple[int, "Kind", int, int, str, bool]


def tally(events: Iterable[Event], unusable: Counter[str]) -> dict[Deed, list[int]]:
    """Count deeds: number, first and last time. Events that cannot be read are counted and passed over."""
    found: dict[Deed, list[int]] = {}
    reader_of = _READERS.get
    for kind, event in events:
        reader = reader_of(kind)
        if reader is None:
            continue
        try:
            deed = reader(event)
        except (KeyError, TypeError, AttributeError):
            unusable["unusable_event"] += 1
            continue
        if deed is None:
            continue
        known = found.get(deed)
        if known is None:
            moment = event["ktime_ns"]
            found[deed] = [1, moment, moment]
        else:
            known[0] += 1
            known[2] = event["ktime_ns"]
    return found


def _outgoing(event: Mapping[str, Any]) -> Deed:
    return event["process"], "EGRESS", event["protocol"], event["remote_port"], event["remote_address"], False


def _question(event: Mapping[str, Any]) -> Deed | None:
    if not event["name"]:
        return None
    refused = event.get("verdict", "ALLOWED") == "REFUSED" and event.get("reason") == "DNS_NAME"
    return event["process"], "QUESTION", 0, 0, event["name"], refused


def _listen(event: Mapping[str, Any]) -> Deed:
    return event["process"], "LISTEN", event["protocol"], event["local_port"], "", False


def _accept(event: Mapping[str, Any]) -> Deed:
    return event["process"], "INGRESS", _TCP, event["local_port"], event["remote_address"], False


def _program(event: Mapping[str, Any]) -> Deed:
    return event["process"], "PROGRAM", 0, 0, "", False


def _request(event: Mapping[str, Any]) -> Deed | None:
    if event["verdict"] == "REFUSED":
        return None
    path = event["uri"].partition("?")[0]
    return event["process"], "REQUEST", _TCP, _said_at(event), f"{event['method']} {path}", False


def _hello(event: Mapping[str, Any]) -> Deed | None:
    if event["verdict"] == "REFUSED" or not event["server_name"]:
        return None
    return event["process"], "SERVER_NAME", _TCP, _said_at(event), event["server_name"], False


def _said_at(event: Mapping[str, Any]) -> int:
    port: int = event["local_port"] if event["inbound"] else event["remote_port"]
    return port


def _refusal(event: Mapping[str, Any]) -> Deed | None:
    """What a profile refused or a response blocked; what a profile only alerts on is told as done."""
    reason = event["reason"]
    if event["hook"] not in {"CONNECT", "SENDMSG"} or event.get("alerted_only", False):
        return None
    process, address = event["process"], event["remote_address"]
    if reason in _WHOLE_PEER:
        return process, "EGRESS", 0, 0, address, True
    if reason in _BY_PORT:
        return process, "EGRESS", event["protocol"], event["remote_port"], address, True
    return None


def _found_socket(event: Mapping[str, Any]) -> Deed | None:
    """A socket from before the sensor; who opened a connection is told by who has a client's port."""
    state, local, remote = event["tcp_state"], event["local_port"], event["remote_port"]
    if event["protocol"] == _TCP and state == _LISTENING:
        return _listen(event)
    if event["protocol"] == _UDP and state == _UNCONNECTED and not remote and 0 < local < _CLIENT_PORT:
        return _listen(event)
    if state != _ESTABLISHED or not remote:
        return None
    if local >= _CLIENT_PORT > remote:
        return _outgoing(event)
    return _accept(event) if remote >= _CLIENT_PORT > local and event["protocol"] == _TCP else None


Stop = tuple[Deed, int]
"""What a profile would have stopped, and its generation."""


def stops(events: Iterable[Event]) -> dict[Stop, list[int]]:
    """What profiles would have stopped, and only told, with first and last time; the unreadable is none."""
    found: dict[Stop, list[int]] = {}
    for kind, event in events:
        reader = _STOPS.get(kind)
        if reader is None:
            continue
        try:
            deed, generation, moment = reader(event), event["generation"], event["ktime_ns"]
        except (KeyError, TypeError, AttributeError):
            continue  # counted where it is tallied
        if deed is not None:
            found.setdefault((deed, generation), [moment, moment])[1] = moment
    return found


def _stop(event: Mapping[str, Any]) -> Deed | None:
    if not event.get("alerted_only", False):
        return None
    match event["hook"]:
        case "CONNECT" | "SENDMSG" | "PACKET_OUT":
            return _outgoing(event)
        case "PACKET_IN":
            port, address = event["local_port"], event["remote_address"]
            return event["process"], "INGRESS", event["protocol"], port, address, False
        case "BIND":
            return _listen(event)
        case _:
            return None


def _told(reader: Reader) -> Reader:
    return lambda event: reader(event) if event.get("verdict") == "ALERTED" else None


_STOPS: Final[Mapping[str, Reader]] = {
    "nsp.Refusal": _stop,
    "nsp.DnsQuestion": _told(_question),
    "nsp.HttpRequest": _told(_request),
    "nsp.TlsHello": _told(_hello),
}
_READERS: Final[Mapping[str, Reader]] = {
    "nsp.SocketConnect": _outgoing,
    "nsp.DatagramSend": _outgoing,
    "nsp.DnsQuestion": _question,
    "nsp.SocketListen": _listen,
    "nsp.SocketAccept": _accept,
    "nsp.ProcessExec": _program,
    "nsp.ProcessInventory": _program,
    "nsp.SocketInventory": _found_socket,
    "nsp.HttpRequest": _request,
    "nsp.TlsHello": _hello,
    "nsp.Refusal": _refusal,
}
