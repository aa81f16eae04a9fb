# SPDX-License-Identifier: Apache-2.0
"""The verdict: what happened, in figures, and whether all of it really did.

``build/demo/report.json`` holds the figures; the exit code is 0 only if every check holds.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one run.

    The three ``_ms`` are those of the attack whose shell was seen to open and go silent; bytes and
    beacons are sums over all attacks, each counted from its own block. ``profile_reached`` are connects to
    what an allowed name had just been answered with, ``profile_refused`` how a question for another name
    and a connect to another address ended.
    """

    alerts: int
    rules: list[str]
    attacks: int
    attacks_cut: int
    shells_opened: int
    time_to_block_ms: float
    decided_after_ms: float
    first_refused_after_ms: float
    service_requests: int
    service_requests_failed: int
    attacker_bytes_before_block: int
    attacker_bytes_after_block: int
    attacker_beacons_after_block: int
    profile_reached: int
    profile_wrongly_refused: int
    profile_refused: list[str]
    events_produced: int
    events_seen: int
    events_counted_lost: int
    events_unaccounted: int
    recorded: bool

    def failures(self) -> list[str]:
        """Return what did not happen as it must; empty when the demonstration succeeded."""
        checks = {
            "an alert for RCE egress": "nsp.rce-egress" in self.rules,
            "the map was written after the event": self.time_to_block_ms > 0 or self.recorded,
            "the kernel refused something": self.first_refused_after_ms > 0 or self.recorded,
            "every attack was cut": self.attacks_cut == self.attacks,
            "the attacker had a shell before a cut": self.shells_opened > 0 or self.recorded,
            "nothing reached the attacker after the block": self.attacker_bytes_after_block == 0,
            "no beacon got out after the block": self.attacker_beacons_after_block == 0,
            "the service was used": self.service_requests > 0 or self.recorded,
            "the service never failed": self.service_requests_failed == 0,
            "what the profile allows was reached": self.profile_reached > 0 or self.recorded,
            "the profile refused nothing wrongly": self.profile_wrongly_refused == 0,
            "the profile refused what it does not allow": self.profile_refused == ["EPERM", "EPERM"]
            or self.recorded,
            "events were produced": self.events_produced > 0,
            "every event is accounted for": self.events_unaccounted == 0,
        }
        return [what for what, holds in checks.items() if not holds]

    def write(self, path: Path) -> None:
        """Write the figures as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")
