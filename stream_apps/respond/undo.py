# SPDX-License-Identifier: Apache-2.0
"""What an order re-opens that the one before it had closed, and what it closes: the diff people are shown.

Input: two ``Enforcement`` records of one subject, or None for nothing in force. Output: lines. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def difference(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[str]:
    """Lines that begin with ``+`` (is open again) or ``-`` (is closed now), what is reopened first."""
    closed_before, closed_now = closed(before), closed(after)
    opened = [f"+ {each}" for each in closed_before if each not in closed_now]
    shut = [f"- {each}" for each in closed_now if each not in closed_before]
    return opened + shut


def reopened(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[str]:
    """What is open again, without the signs."""
    return [each[2:] for each in difference(before, after) if each.startswith("+")]


def closed(record: Mapping[str, Any] | None) -> list[str]:
    """What an order closes, one thing a line."""
    if record is None:
        return []
    lines = []
    if record["quarantined"]:
        allowed = ", ".join(_flow(each) for each in record.get("allowed", ()))
        lines.append(
            f"the whole network of {record['subject']}" + (f", but for {allowed}" if allowed else "")
        )
    lines += [f"{_destination(each)} for {record['subject']}" for each in record["blocked_destinations"]]
    return lines


def _destination(record: Mapping[str, Any]) -> str:
    if not record["port"]:
        return f"{record['address']}, all ports"
    protocol = {6: "tcp", 17: "udp"}.get(record["protocol"], str(record["protocol"]))
    return f"{record['address']} {protocol} port {record['port']}"


def _flow(record: Mapping[str, Any]) -> str:
    protocol = {6: "tcp", 17: "udp"}.get(record["protocol"], str(record["protocol"]))
    way = "in from" if record["incoming"] else "out to"
    return f"{protocol} port {record['port']} {way} {record['network']}"
