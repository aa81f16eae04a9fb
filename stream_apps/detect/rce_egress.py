# SPDX-License-Identifier: Apache-2.0
"""``nsp.rce-egress``: a service started a shell, interpreter or downloader, which goes out to the network.

Input: the descents of ``correlate.lineage``. An image is suspect when, in its own workload, it descends from
a serving program and on the way down a shell, interpreter, downloader or relay was executed. It is caught
when it resolves a name, connects or sends out. Neither half is enough: services start shells all day, and
connect out all day.

A connection to the own workload (loopback, own pod address) is no egress: health checks and local caches
are used by such shells legitimately, and nothing leaves. A DNS question counts even when the resolver is on
loopback. Port 53 by itself counts like any other port, since not all that goes there is DNS.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from stream_apps.correlate.programs import program_name
from stream_apps.detect.egress import EGRESS_KINDS, egress
from stream_apps.detect.exclusions import apply_exclusions
from stream_apps.detect.rule import Rule, Suspect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.correlate.view import BatchView
    from stream_apps.detect.exclusions import Exclusion
    from stream_apps.detect.rule import Severity, Sighting
    from stream_apps.detect.scene import Scene

RULE: Final = Rule(
    id="nsp.rce-egress",
    title="A service started a program that goes out to the network",
    severity="CRITICAL",
    attack=("T1190", "T1071"),
)


class RceEgress:
    """The detector."""

    kinds: Sequence[str] = EGRESS_KINDS
    settings: Sequence[str] = ("rule", "_exclusions")

    def __init__(self, exclusions: Sequence[Exclusion] = (), severity: Severity = RULE.severity) -> None:
        self.rule = Rule(RULE.id, RULE.title, severity, RULE.attack)
        self._exclusions = tuple(exclusions)

    def watch(self, scene: Scene) -> Mapping[int, Suspect]:
        """See :class:`stream_apps.detect.rule.Detector`."""
        found = {}
        for index, descent in enumerate(scene.descents):
            if descent is None or not descent.tool:
                continue
            suspect = Suspect(index, descent.cut_root, descent.service, descent.tool)
            remaining = apply_exclusions(scene, suspect, self._exclusions)
            if remaining is not None:
                found[index] = replace(suspect, exclusions=remaining) if remaining else suspect
        return found

    def judge(self, scene: Scene, suspect: Suspect, kind: str, event: Mapping[str, Any]) -> Sighting | None:
        """See :class:`stream_apps.detect.rule.Detector`."""
        found = egress(scene, suspect, kind, event, self.rule.severity)
        if found is None:
            return None
        techniques = techniques_of(scene.view, {suspect.tool, suspect.actor})
        return replace(found, attack=(*techniques, *found.attack))


_BY_INTERPRETER: Final = {
    "python": "T1059.006", "pypy": "T1059.006", "node": "T1059.007", "nodejs": "T1059.007", "lua":
    "T1059.011",
    "luajit": "T1059.011",
}  # fmt: skip


def techniques_of(view: BatchView, images: set[int]) -> tuple[str, ...]:
    """ATT&CK ids of the programs that were used."""
    found = set()
    for index in images:
        role = view.roles[index]
        if role == "shell":
            found.add("T1059.004")
        elif role == "downloader":
            found.add("T1105")
        elif role == "interpreter":
            name = program_name(view.processes[index]["executable"]).rstrip("0123456789.-")
            found.add(_BY_INTERPRETER.get(name, "T1059"))
        elif role == "relay":
            found.add("T1095")
    return tuple(sorted(found))
