# SPDX-License-Identifier: Apache-2.0
"""The tables of ``docs/sigma.md``, made from ``taxonomy``; a test holds the document to them."""

from __future__ import annotations

from typing import Final

from stream_apps.sigma import taxonomy

_CATEGORIES: Final = {
    "process": "process_creation",
    "connection": "network_connection",
    "ends": "network_connection",
    "question": "dns_query, dns",
    "answer": "dns_query, dns",
}


def field_table() -> str:
    """What rules can ask for, and what they cannot, in Markdown."""
    rows = ["| Field | In | Kind | What it is |", "|---|---|---|---|"]
    for each in taxonomy.FIELDS:
        categories = dict.fromkeys(_CATEGORIES[stream] for stream in each.streams)
        where = "all" if len(each.streams) == len(taxonomy.RECORDS) else ", ".join(categories)
        rows.append(f"| {each.name} | {where} | {each.kind} | {each.meaning} |")
    rows += ["", "| Not there | Why |", "|---|---|"]
    rows += [f"| {name} | {reason} |" for name, reason in taxonomy.ABSENT.items()]
    return "\n".join(rows)
