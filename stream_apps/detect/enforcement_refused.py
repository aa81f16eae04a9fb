# SPDX-License-Identifier: Apache-2.0
"""``nsp.enforcement-refused``: a sensor did not obey a message on ``nsp.enforcement``.

Somebody who can write to that topic tried to command a sensor without our key, with an old message, or with
one meant for another node; or our own parts disagree. Input: the sensor's notices. What is not explained by
delay alone is HIGH.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_apps.correlate.order import NOTICE
from stream_apps.detect.rule import RANK, Rule, Severity, Sighting, Suspect
from stream_apps.detect.scene import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.detect.scene import Scene

RULE: Final = Rule(
    id="nsp.enforcement-refused",
    title="A sensor refused a command",
    severity="HIGH",
    attack=("T1562.001", "T1565.002"),
)

_HOSTILE: Final = frozenset({"unsigned", "unknown-key", "bad-signature", "foreign", "replayed"})
_SUSPECTS: Final = {0: Suspect(0)}


class EnforcementRefused:
    """The detector."""

    kinds: Sequence[str] = (NOTICE,)
    settings: Sequence[str] = ("rule",)

    def __init__(self, severity: Severity = RULE.severity) -> None:
        self.rule = Rule(RULE.id, RULE.title, severity, RULE.attack)

    def watch(self, scene: Scene) -> Mapping[int, Suspect]:
        """See :class:`stream_apps.detect.rule.Detector`."""
        del scene
        return _SUSPECTS

    def judge(self, scene: Scene, suspect: Suspect, kind: str, event: Mapping[str, Any]) -> Sighting | None:
        """See :class:`stream_apps.detect.rule.Detector`."""
        del scene, suspect, kind
        if event["kind"] != "ENFORCEMENT_REFUSED":
            return None
        reason = event["detail"].partition(":")[0].strip()
        wanted: Severity = "HIGH" if reason in _HOSTILE else "MEDIUM" if reason == "malformed" else "LOW"
        subject = f" for {shown(event['subject'])}" if event["subject"] else ""
        return Sighting(
            min(wanted, self.rule.severity, key=RANK.__getitem__),
            summary=f"refused a message{subject}: {shown(event['detail'])}",
            says=f"refused an enforcement message{subject}: {shown(event['detail'])}",
        )
