# SPDX-License-Identifier: Apache-2.0
"""The sightings of one batch, gathered into findings: one per rule and process tree.

Input: sightings in event order. Output: :class:`Finding`, each the ground for at most one alert. A sighting
of a higher level than those before opens the finding anew (so that its id rests on the event that made it
one to act on, wherever a batch was cut) and keeps what came before as evidence. The heaviest sighting
describes it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from stream_apps.detect.rule import RANK, level

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_apps.detect.rule import Destination, Rule, Severity, Sighting, Suspect
    from stream_apps.detect.scene import Scene

# Evidence in one alert, and destinations of one batch's finding: enough to act on; a flood adds nothing.
MAX_EVIDENCE: Final = 16
MAX_DESTINATIONS: Final = 16

TreeKey = tuple[str, int, int]
"""Rule id, tgid and start_ns of the cut root; for what no process did, 0 and the event's group or time."""


@dataclass(slots=True)
class Finding:
    """What a rule found about one process tree in one batch.

    Attributes:
        rule: The rule.
        key: Which tree.
        suspect: Who gave the heaviest sighting.
        severity: The highest seen.
        telling: The heaviest sighting.
        position: Ring position of the event that the id rests on: the first of this level.
        boot_ns: Its time, CLOCK_BOOTTIME.
        evidence: ``Evidence`` records, oldest first.
        destinations: Where it went, in order.
        dns_name: First name seen.
        attack: ATT&CK ids.
        count: How many sightings.
        summed: How many came since the alert before this one, without an alert.
        single: No process and no group: nothing will ever be the same again.
    """

    rule: Rule
    key: TreeKey
    suspect: Suspect
    severity: Severity
    telling: Sighting
    position: int
    boot_ns: int
    evidence: list[dict[str, Any]] = field(default_factory=list)
    destinations: list[Destination] = field(default_factory=list)
    dns_name: str | None = None
    attack: dict[str, None] = field(default_factory=dict)
    count: int = 0
    summed: int = 0
    single: bool = False

    def alert_id(self, node: str, boot_id: str) -> str:
        """32 hex digits, the same whenever the same evidence is read."""
        _, tgid, start_ns = self.key
        text = f"{self.rule.id}\n{node}\n{boot_id}\n{tgid}\n{start_ns}\n{self.position}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class Findings:
    """Gathers."""

    def __init__(self) -> None:
        self._found: dict[TreeKey, Finding] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def in_order(self) -> list[Finding]:
        """All findings, in the order of their first evidence."""
        return sorted(self._found.values(), key=lambda each: each.position)

    def add(
        self,
        scene: Scene,
        rule: Rule,
        suspect: Suspect,
        sighting: Sighting,
        place: tuple[str, Mapping[str, Any]],
    ) -> None:
        """Take a sighting; ``place`` is the event with its kind."""
        kind, event = place
        nobody = (0, sighting.group or event["ktime_ns"])
        tgid, start_ns = scene.view.key(suspect.cut_root) if suspect.cut_root else nobody
        key = (rule.id, tgid, start_ns)
        finding = self._found.get(key)
        if finding is None or level(sighting.severity) > level(finding.severity):
            finding = self._found[key] = _opened(finding, rule, key, suspect, sighting, event)
            finding.single = not suspect.cut_root and not sighting.group
        _take(finding, suspect, sighting, (kind, event))


def _opened(
    before: Finding | None,
    rule: Rule,
    key: TreeKey,
    suspect: Suspect,
    sighting: Sighting,
    event: Mapping[str, Any],
) -> Finding:
    finding = Finding(rule, key, suspect, sighting.severity, sighting, event["position"], event["ktime_ns"])
    finding.attack.update(dict.fromkeys(rule.attack))
    if before is not None:
        # Half of the room stays for what comes from now on.
        finding.evidence = before.evidence[: MAX_EVIDENCE // 2]
        finding.destinations = before.destinations
        finding.count = before.count
        finding.dns_name = before.dns_name
        finding.attack.update(before.attack)
    return finding


def _take(
    finding: Finding, suspect: Suspect, sighting: Sighting, place: tuple[str, Mapping[str, Any]]
) -> None:
    kind, event = place
    finding.count += 1
    if RANK[sighting.severity] > RANK[finding.severity]:
        finding.severity = sighting.severity
    if sighting.weight > finding.telling.weight:
        finding.telling = sighting
        finding.suspect = suspect
    finding.attack.update(dict.fromkeys(sighting.attack))
    if finding.dns_name is None:
        finding.dns_name = sighting.dns_name
    destination = sighting.destination
    if (
        destination is not None
        and destination not in finding.destinations
        and len(finding.destinations) < MAX_DESTINATIONS
    ):
        finding.destinations.append(destination)
    if len(finding.evidence) < MAX_EVIDENCE:
        finding.evidence.append({
            "position": event["position"],
            "ktime_ns": event["ktime_ns"],
            "kind": kind.rpartition(".")[2],
            "summary": sighting.summary,
        })  # fmt: skip
