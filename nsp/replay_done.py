# SPDX-License-Identifier: Apache-2.0
"""What an event says was done, as far as a profile decides on it, and the same in words. Pure.

Input: events by their kind. Output: :class:`Done`, equal for what need be asked only once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sensor.policy import layout
from sensor.policy.layers import DNS_PORT, PROTOCOL_NAMES, TCP
from sensor.policy.payloads import Payload
from stream_apps.detect.scene import endpoint, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_OTHERS_SAY: Final = frozenset({"QUARANTINED_PROCESS", "QUARANTINED_WORKLOAD", "BLOCKED_DESTINATION"})


class Done(NamedTuple):
    """What was done, as far as it decides: what is asked once."""

    way: str
    protocol: int
    address: str = ""
    remote_port: int = 0
    local_port: int = 0
    said: tuple[str, ...] = ()


def payload_of(said: tuple[str, ...]) -> Payload | None:
    """What is said, to be asked with its flow."""
    match said:
        case ("dns", name):
            return Payload(layout.L7_DNS, name)
        case ("http", method, uri, host):
            return Payload(layout.L7_HTTP, method=method, uri=uri, host=host or None)
        case ("tls", name, encrypted):
            return Payload(layout.L7_TLS, name, encrypted=bool(encrypted))
        case _:
            return None


def words_of(done: Done, names: frozenset[str]) -> str:
    """What was done, for people; text of workloads is escaped."""
    protocol = PROTOCOL_NAMES.get(done.protocol, str(done.protocol))
    if done.way == "bind":
        return f"listen on {protocol} {done.local_port}"
    where = f"{endpoint(done.address, done.remote_port)}/{protocol}"
    if names:
        where += f" ({', '.join(shown(each) for each in sorted(names)[:3])})"
    if done.way == "in":
        where = f"from {endpoint(done.address, 0).rpartition(':')[0]} to {protocol} {done.local_port} here"
    match done.said:
        case ("dns", name):
            return f"question for {shown(name)} to {shown(done.address)}"
        case ("http", method, uri, host):
            return f"{shown(method)} {shown(uri)} of host {shown(host) or 'none'}, {where}"
        case ("tls", name, _):
            return f"TLS for {shown(name) or 'no name'}, {where}"
        case _:
            return where


def _out(event: Mapping[str, Any]) -> Done:
    return Done("out", event["protocol"], event["remote_address"], event["remote_port"])


def _accept(event: Mapping[str, Any]) -> Done:
    return Done("in", TCP, event["remote_address"], 0, event["local_port"])


def _listen(event: Mapping[str, Any]) -> Done:
    return Done("bind", event["protocol"], local_port=event["local_port"])


def _question(event: Mapping[str, Any]) -> Done | None:
    if not event["name"]:
        return None
    return Done("out", event["protocol"], event["server_address"], DNS_PORT, said=("dns", event["name"]))


def _request(event: Mapping[str, Any]) -> Done:
    return _on_connection(event, ("http", event["method"], event["uri"], event["host"]))


def _hello(event: Mapping[str, Any]) -> Done:
    encrypted = "yes" if "ENCRYPTED_HELLO" in event["notes"] else ""
    return _on_connection(event, ("tls", event["server_name"], encrypted))


def _on_connection(event: Mapping[str, Any], said: tuple[str, ...]) -> Done:
    if event["inbound"]:
        return Done("in", TCP, event["remote_address"], 0, event["local_port"], said)
    return Done("out", TCP, event["remote_address"], event["remote_port"], 0, said)


def _refusal(event: Mapping[str, Any]) -> Done | None:
    """What did not happen is told by nothing else; what was only alerted on is told by its own event."""
    if event.get("alerted_only", False) or event["reason"] in _OTHERS_SAY:
        return None
    match event["hook"]:
        case "CONNECT" | "SENDMSG":
            return _out(event)
        case "PACKET_IN":
            return Done("in", event["protocol"], event["remote_address"], 0, event["local_port"])
        case "BIND":
            return _listen(event)
        case _:
            return None


def _answer(_event: Mapping[str, Any]) -> None:
    """Only teaches names."""


READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Done | None]]] = {
    "nsp.SocketConnect": _out,
    "nsp.DatagramSend": _out,
    "nsp.SocketAccept": _accept,
    "nsp.SocketListen": _listen,
    "nsp.DnsQuestion": _question,
    "nsp.DnsAnswer": _answer,
    "nsp.HttpRequest": _request,
    "nsp.TlsHello": _hello,
    "nsp.Refusal": _refusal,
}
