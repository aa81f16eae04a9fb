# SPDX-License-Identifier: Apache-2.0
"""What a replay found, counted by who did what where, with a few examples of each. Pure.

Input: ``Alert`` records, and what profiles would have stopped. Output: rows for the report, the commonest
first. Bounded: what is one group too many is counted, not kept, and the report says so.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_apps.detect.rule import RANK
from stream_apps.detect.scene import endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream_apps.detect.rule import Severity

# More rows than anybody reads; each is a kilobyte with its examples.
MAX_GROUPS: Final = 20_000
MAX_EXAMPLES: Final = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is reported; an empty part lets everything pass. Patterns as in a shell.

    Attributes:
        namespaces: Of pods.
        workloads: As :func:`workload_of` writes them, or ids.
        rules: Ids of rules.
    """

    namespaces: Sequence[str] = ()
    workloads: Sequence[str] = ()
    rules: Sequence[str] = ()

    def rule(self, rule_id: str) -> bool:
        """Whether alerts of a rule are reported."""
        return _fits(self.rules, (rule_id,))

    def workload(self, workload: Mapping[str, Any]) -> bool:
        """Whether an ``AlertWorkload`` is reported."""
        names = (workload_of(workload), workload["id"], f"{workload['namespace']}/{workload['pod']}")
        return _fits(self.namespaces, (workload["namespace"] or "",)) and _fits(self.workloads, names)


class AlertKey(NamedTuple):
    """One row of alerts."""

    rule: str
    workload: str
    process: str
    destination: str


class StopKey(NamedTuple):
    """One row of what a profile would have stopped.

    Attributes:
        outcome: ``refused``, or ``alerted`` under a profile that only alerts.
        workload: Who.
        process: Its program.
        what: Destination, name, port, or request, in words.
        reason: Why, in words.
        place: Where in which profile the rule would have to be.
    """

    outcome: str
    workload: str
    process: str
    what: str
    reason: str
    place: str


@dataclass(slots=True)
class Row:
    """A group.

    Attributes:
        count: How many.
        first_ns: Wall ns of the first one's evidence.
        last_ns: Of the last one's.
        severity: The highest; empty where there is none.
        title: Of the rule.
        decisions: What the responses would have been.
        examples: Some of them, whole enough to find them again.
    """

    count: int = 0
    first_ns: int = 0
    last_ns: int = 0
    severity: str = ""
    title: str = ""
    decisions: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def see(self, wall_ns: int) -> None:
        """Count one."""
        self.count += 1
        self.first_ns = min(self.first_ns or wall_ns, wall_ns)
        self.last_ns = max(self.last_ns, wall_ns)


class Tally:
    """Counts.

    Attributes:
        alerts: Rows of alerts.
        stops: Rows of what profiles would have stopped.
        beyond: What got no row because there are too many, ``alerts`` and ``stops``.
        passed_over: Alerts that nobody wanted to see.
    """

    def __init__(self, wanted: Wanted | None = None, max_groups: int = MAX_GROUPS) -> None:
        self.wanted = wanted or Wanted()
        self.alerts: dict[AlertKey, Row] = {}
        self.stops: dict[StopKey, Row] = {}
        self.beyond: Counter[str] = Counter()
        self.passed_over = 0
        self._max_groups = max_groups

    def alert(self, alert: Mapping[str, Any]) -> None:
        """Count an ``Alert`` record."""
        if not (self.wanted.rule(alert["rule_id"]) and self.wanted.workload(alert["workload"])):
            self.passed_over += 1
            return
        key = AlertKey(
            alert["rule_id"], workload_of(alert["workload"]), _process_of(alert), _destination_of(alert)
        )
        row = self.alerts.get(key)
        if row is None:
            if len(self.alerts) >= self._max_groups:
                self.beyond["alerts"] += 1
                return
            row = self.alerts[key] = Row(title=alert["title"])
        row.see(alert["observed_at_ns"])
        severity: Severity = alert["severity"]
        if not row.severity or RANK[severity] > RANK[row.severity]:  # type: ignore[index] # one of them, or ""
            row.severity = severity
        response = alert["response"]
        row.decisions[f"{response['action']}: {response['decision']}"] += 1
        if len(row.examples) < MAX_EXAMPLES:
            row.examples.append(
                {
                    "id": alert["id"],
                    "node": alert["node"],
                    "observedAtNs": alert["observed_at_ns"],
                    "description": alert["description"],
                }
            )

    def stop(self, key: StopKey, wall_ns: int, node: str, position: int) -> None:
        """Count something that a profile would have stopped."""
        row = self.stops.get(key)
        if row is None:
            if len(self.stops) >= self._max_groups:
                self.beyond["stops"] += 1
                return
            row = self.stops[key] = Row()
        row.see(wall_ns)
        if len(row.examples) < MAX_EXAMPLES:
            row.examples.append({"node": node, "position": position, "observedAtNs": wall_ns})


def workload_of(workload: Mapping[str, Any]) -> str:
    """An ``AlertWorkload`` as people name it: all replicas by their owner."""
    if workload["namespace"]:
        return f"{workload['namespace']}/{workload['owner'] or workload['pod'] or workload['id']}"
    return str(workload["id"])


def _process_of(alert: Mapping[str, Any]) -> str:
    lineage = alert["lineage"]
    return str(lineage[0]["executable"]) if lineage else ""


def _destination_of(alert: Mapping[str, Any]) -> str:
    name, address, port = alert["dns_name"], alert["remote_address"], alert["remote_port"]
    where = endpoint(address, port or 0) if address else ""
    return f"{name} ({where})" if name and where else name or where


def _fits(patterns: Sequence[str], names: Iterable[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
