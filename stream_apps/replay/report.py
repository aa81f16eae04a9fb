# SPDX-License-Identifier: Apache-2.0
"""The report of a replay, as a document for programs; text and HTML are made of it. Pure.

Input: a replay that is over. Output: a :class:`Report`. All text in it is as it came: it belongs to hostile
workloads, and whoever shows it escapes it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from stream_apps.detect.rule import RANK

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream_apps.correlate.ledger import Totals
    from stream_apps.replay.session import Replay
    from stream_apps.replay.tally import AlertKey, Row, StopKey

_NS_PER_S: Final = 1_000_000_000
# Nodes with losses that are named one by one, those that lost most first.
MAX_NODES: Final = 100


@dataclass(frozen=True, slots=True)
class Asked:
    """What the replay was asked for.

    Attributes:
        since_ns: Wall time from which messages count.
        until_ns: Up to which they were read.
        rules_version: Of the Sigma rules, empty without any.
        rules: How many of them.
        refused_rules: Rules that were refused, with the reason.
        profiles: Profiles that were tried, ``namespace/name``; None: none were.
        notes: What the reader must know, such as that the topic begins later than was asked for.
    """

    since_ns: int
    until_ns: int
    rules_version: str = ""
    rules: int = 0
    refused_rules: Sequence[str] = ()
    profiles: Sequence[str] | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What a replay found.

    Attributes:
        asked: What was asked for.
        document: The findings.
    """

    asked: Asked
    document: dict[str, Any]

    @property
    def proves(self) -> bool:
        """Whether nothing was missing: only then does silence say anything."""
        return bool(self.document["complete"])


def build(replay: Replay, asked: Asked) -> Report:
    """Put the report together."""
    figures = replay.figures
    totals, nodes = replay.losses()
    unusable = sum(figures.unusable.values())
    complete = not (totals.lost or totals.unaccounted or totals.gaps or unusable)
    document = {
        "since": moment(asked.since_ns),
        "until": moment(asked.until_ns),
        "firstMessage": moment(figures.first_ns),
        "lastMessage": moment(figures.last_ns),
        "complete": complete,
        "notes": list(asked.notes),
        "read": {
            "messages": figures.messages,
            "remembered": figures.remembered,
            "bytes": figures.size,
            "events": figures.events,
            "duplicates": figures.duplicates,
        },
        "missing": _missing(totals, nodes),
        "unusable": {
            "messages": unusable,
            "byStage": dict(figures.unusable),
            "named": [
                {"place": each.place, "stage": each.stage, "reason": each.reason} for each in figures.named
            ],
        },
        "rules": {
            "version": asked.rules_version,
            "loaded": asked.rules,
            "refused": list(asked.refused_rules),
        },
        "alerts": _alerts(replay),
        "profiles": None if asked.profiles is None else _stops(replay, asked.profiles),
    }
    return Report(asked, document)


def moment(wall_ns: int) -> str | None:
    """Wall ns as RFC 3339 to the second, in UTC; None for 0."""
    if not wall_ns:
        return None
    return datetime.fromtimestamp(wall_ns // _NS_PER_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _missing(totals: Totals, nodes: list[tuple[str, Totals]]) -> dict[str, Any]:
    worst = sorted(nodes, key=lambda each: -(each[1].lost + each[1].unaccounted))
    return {
        **_losses(totals),
        "nodes": [{"node": node, **_losses(each)} for node, each in worst[:MAX_NODES]],
        "nodesMore": max(0, len(worst) - MAX_NODES),
    }


def _losses(totals: Totals) -> dict[str, int]:
    return {"lost": totals.lost, "unaccounted": totals.unaccounted, "gaps": totals.gaps}


def _alerts(replay: Replay) -> dict[str, Any]:
    tally = replay.tally
    rows = sorted(tally.alerts.items(), key=lambda each: (-RANK.get(each[1].severity, 0), -each[1].count))  # type: ignore[call-overload] # a severity as text
    return {
        "total": sum(row.count for _, row in rows) + tally.beyond["alerts"],
        "beyond": tally.beyond["alerts"],
        "passedOver": tally.passed_over,
        "byRule": _by(rows, "rule"),
        "byWorkload": _by(rows, "workload"),
        "rows": [_alert_row(key, row) for key, row in rows],
    }


def _stops(replay: Replay, profiles: Sequence[str]) -> dict[str, Any]:
    tally = replay.tally
    rows = sorted(tally.stops.items(), key=lambda each: -each[1].count)
    outcomes = Counter[str]()
    for key, row in rows:
        outcomes[key.outcome] += row.count
    return {
        "tried": list(profiles),
        "refused": outcomes["refused"],
        "alerted": outcomes["alerted"],
        "beyond": tally.beyond["stops"],
        "byWorkload": _by(rows, "workload"),
        "rows": [_stop_row(key, row) for key, row in rows],
    }


def _by(rows: Iterable[tuple[AlertKey | StopKey, Row]], part: str) -> list[dict[str, Any]]:
    counts = Counter[str]()
    title: dict[str, str] = {}
    for key, row in rows:
        name = getattr(key, part)
        counts[name] += row.count
        title.setdefault(name, row.title)
    titles = part == "rule"
    return [
        {part: name, "count": count, **({"title": title[name]} if titles else {})}
        for name, count in counts.most_common()
    ]


def _alert_row(key: AlertKey, row: Row) -> dict[str, Any]:
    return {
        **key._asdict(),
        "title": row.title,
        "severity": row.severity,
        **_seen(row),
        "responses": dict(row.decisions),
        "examples": _examples(row),
    }


def _stop_row(key: StopKey, row: Row) -> dict[str, Any]:
    return {**key._asdict(), **_seen(row), "examples": _examples(row)}


def _seen(row: Row) -> dict[str, Any]:
    return {"count": row.count, "first": moment(row.first_ns), "last": moment(row.last_ns)}


def _examples(row: Row) -> list[Mapping[str, Any]]:
    return [{**each, "observedAt": moment(each["observedAtNs"])} for each in row.examples]
