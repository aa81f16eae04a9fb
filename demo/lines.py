# SPDX-License-Identifier: Apache-2.0
"""One readable line per event of the demonstration's own workloads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

DNS_TYPES = {1: "A", 28: "AAAA", 5: "CNAME"}
PROTOCOLS = {6: "tcp", 17: "udp", 1: "icmp"}
ARGV_SHOWN = 60


def describe_event(
    batch: Mapping[str, Any], kind: str, event: Mapping[str, Any], names: Mapping[str, str]
) -> str | None:
    """Return the line for one event, or None when it is not worth a line or not of ours.

    Args:
        batch: decoded EventBatch the event is from.
        kind: record name without namespace, e.g. ``SocketConnect``.
        event: its fields.
        names: workload id -> name to show; others are left out.
    """
    process = batch["processes"][event["process"]]
    name = names.get(batch["workloads"][process["workload"]]["id"])
    text = _describe(kind, event, process)
    if name is None or text is None:
        return None
    program = process["executable"].rpartition("/")[2] or process["comm"]
    return f"{name:<8} {program + '[' + str(process['tgid']) + ']':<20} {text}"


def _describe(kind: str, event: Mapping[str, Any], process: Mapping[str, Any]) -> str | None:
    match kind:
        case "ProcessExec":
            command = " ".join(process["argv"])
            return f"exec     {printable(command)[:ARGV_SHOWN]}"
        case "SocketConnect" | "DatagramSend":
            verb = "connect " if kind == "SocketConnect" else "send    "
            return f"{verb} {_peer(event)}"
        case "SocketAccept":
            return f"accept   {_peer(event)}"
        case "SocketListen":
            return f"listen   port {event['local_port']}"
        case "DnsQuestion":
            question_type = DNS_TYPES.get(event["question_type"], event["question_type"])
            return f"asks     {printable(event['name'])} {question_type}"
        case "DnsAnswer":
            data = ", ".join(record["data"] for record in event["records"])
            return f"answer   {printable(event['name'])} = {printable(data) or 'rcode ' + str(event['rcode'])}"
        case "Refusal":
            return f"REFUSED  {event['hook']} {_peer(event)} ({event['reason']})"
        case _:
            return None


def _peer(event: Mapping[str, Any]) -> str:
    protocol = PROTOCOLS.get(event.get("protocol", 6), str(event.get("protocol", 6)))
    return f"{event['remote_address']}:{event['remote_port']}/{protocol}"


def printable(text: str) -> str:
    """Return hostile text with everything but printable characters replaced."""
    return "".join(character if character.isprintable() else "." for character in text)
