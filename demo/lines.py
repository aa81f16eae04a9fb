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
    text: str | None = None
    match kind:
        case "ProcessExec":
            text = f"exec     {printable(' '.join(process['argv']))[:ARGV_SHOWN]}"
        case "SocketConnect":
            text = f"connect  {_peer(event)}"
        case "DatagramSend":
            text = f"send     {_peer(event)}"
        case "SocketAccept":
            text = f"accept   {_peer(event)}"
        case "SocketListen":
            text = f"listen   port {event['local_port']}"
        case "DnsQuestion":
            question_type = DNS_TYPES.get(event["question_type"], event["question_type"])
            text = f"asks     {printable(event['name'])} {question_type}"
        case "DnsAnswer":
            data = ", ".join(record["data"] for record in event["records"])
            text = (
                f"answer   {printable(event['name'])} = {printable(data) or 'rcode ' + str(event['rcode'])}"
            )
        case "Refusal":
            text = f"REFUSED  {event['hook']} {_peer(event)} ({event['reason']})"
    return text


def _peer(event: Mapping[str, Any]) -> str:
    protocol = PROTOCOLS.get(event.get("protocol", 6), str(event.get("protocol", 6)))
    return f"{event['remote_address']}:{event['remote_port']}/{protocol}"


def printable(text: str) -> str:
    """Return hostile text with everything but printable characters replaced."""
    return "".join(character if character.isprintable() else "." for character in text)
