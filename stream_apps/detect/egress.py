# SPDX-License-Identifier: Apache-2.0
"""Events by which something leaves a workload, put into words; shared by the detectors.

Input: an event and who did it. Output: a :class:`Sighting`, or None for what is no egress, stays inside the
workload, or goes to an excluded destination.

A question to a DNS server counts as egress itself, wherever the server is: the name leaves. Refusals count
where a destination is blocked or a profile does not allow it: the attempt was made, and its connect event
does not exist. What a quarantine refuses is the consequence of an alert, not the ground for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_apps.detect.rule import Destination, Severity, Sighting
from stream_apps.detect.scene import endpoint, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_apps.correlate.names import KnownName
    from stream_apps.detect.rule import Suspect
    from stream_apps.detect.scene import Scene

CONNECT: Final = "nsp.SocketConnect"
DATAGRAM: Final = "nsp.DatagramSend"
QUESTION: Final = "nsp.DnsQuestion"
REFUSAL: Final = "nsp.Refusal"
EGRESS_KINDS: Final = (CONNECT, DATAGRAM, QUESTION, REFUSAL)

PROTOCOL_NAMES: Final = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmpv6", 132: "sctp"}
_QUESTION_TYPES: Final = {1: "A", 2: "NS", 5: "CNAME", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV"}
_DNS: Final = "T1071.004"
_UDP: Final = 17
_DNS_PORT: Final = 53

# What tells most of an attack: where it went, then what it asked, then whom it asked.
WEIGHT_DESTINATION: Final = 3
_WEIGHT_NAME: Final = 2
_WEIGHT_RESOLVER: Final = 1


def egress(
    scene: Scene, suspect: Suspect, kind: str, event: Mapping[str, Any], severity: Severity
) -> Sighting | None:
    """Judge an event of one of :data:`EGRESS_KINDS`."""
    if kind == QUESTION:
        return _question(scene, suspect, event, severity)
    if kind == REFUSAL and not _is_attempt(event):
        return None
    address: str = event["remote_address"]
    if scene.stays_inside(suspect.actor, address):
        return None
    known = scene.name_behind(suspect.actor, address, event["ktime_ns"])
    if _excluded(suspect, address, known.name if known and known.trusted else None):
        return None
    return _connection(kind, event, known, severity)


def _is_attempt(event: Mapping[str, Any]) -> bool:
    """Whether a refusal is of what would have been egress, and not followed by the event it would have been.

    By a blocked destination or a profile; what is quarantined already is no news.
    """
    return (
        event["hook"] in {"CONNECT", "SENDMSG"}
        and not event["reason"].startswith("QUARANTINED")
        and not event.get("alerted_only", False)
    )


def _connection(kind: str, event: Mapping[str, Any], known: KnownName | None, severity: Severity) -> Sighting:
    protocol = PROTOCOL_NAMES.get(event["protocol"], f"protocol {event['protocol']}")
    where = endpoint(event["remote_address"], event["remote_port"]) + f"/{protocol}"
    name = f" ({shown(known.name)})" if known else ""
    verb, past = {
        CONNECT: ("connect to", "connected to"),
        DATAGRAM: ("datagram to", "sent a datagram to"),
        REFUSAL: ("refused: connect to", "tried to reach the refused"),
    }[kind]
    return Sighting(
        severity,
        summary=f"{verb} {where}{name}",
        says=f"{past} {where}{name}",
        destination=Destination(event["remote_address"], event["remote_port"], event["protocol"]),
        dns_name=known.name if known else None,
        weight=_WEIGHT_RESOLVER if prepares_question(kind, event) else WEIGHT_DESTINATION,
    )


def prepares_question(kind: str, event: Mapping[str, Any]) -> bool:
    """Whether an event is a question, or the datagram socket that one is asked over."""
    return kind == QUESTION or (event["protocol"] == _UDP and event["remote_port"] == _DNS_PORT)


def _question(
    scene: Scene, suspect: Suspect, event: Mapping[str, Any], severity: Severity
) -> Sighting | None:
    name: str = event["name"]
    server: str = event["server_address"]
    trusted = name if scene.names.is_trusted(server) else None
    if _excluded(suspect, None, trusted):
        return None
    kind = _QUESTION_TYPES.get(event["question_type"], f"type {event['question_type']}")
    return Sighting(
        severity,
        summary=f"asked {server} for {shown(name)} ({kind})",
        says=f"asked for the name {shown(name)}",
        dns_name=name,
        attack=(_DNS,),
        weight=_WEIGHT_NAME,
    )


def _excluded(suspect: Suspect, address: str | None, trusted_name: str | None) -> bool:
    return any(each.covers_destination(address, trusted_name) for each in suspect.exclusions)
