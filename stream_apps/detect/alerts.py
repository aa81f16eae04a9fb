# SPDX-License-Identifier: Apache-2.0
"""Alerts: a finding as a record of ``nsp.alerts``.

Input: a finding, its scene, and the response that was decided. Output: the ``Alert`` record. All text from
a workload is escaped where it is put in a sentence and verbatim where it is data (argv).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from stream_apps.correlate.programs import shown_name
from stream_apps.detect.scene import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_apps.detect.findings import Finding
    from stream_apps.detect.rule import Suspect
    from stream_apps.detect.scene import Scene

# Images in an alert's lineage; the sensor keeps up to 64 and most chains have ten.
MAX_LINEAGE: Final = 64


def build_alert(
    finding: Finding, scene: Scene, workload: Mapping[str, Any], response: Mapping[str, Any], now_ns: int
) -> dict[str, Any]:
    """Make the ``Alert`` record.

    Args:
        finding: What was found.
        scene: Where.
        workload: The ``AlertWorkload`` record.
        response: The ``AlertResponse`` record.
        now_ns: Wall time of the decision.
    """
    view = scene.view
    destination = finding.telling.destination or next(iter(finding.destinations), None)
    return {
        "id": finding.alert_id(view.node, view.boot_id),
        "rule_id": finding.rule.id,
        "title": finding.rule.title,
        "description": describe(finding, scene),
        "severity": finding.severity,
        "attack": list(finding.attack),
        "node": view.node,
        "boot_id": view.boot_id,
        "observed_at_ns": scene.wall_ns(finding.boot_ns),
        "observed_boot_ns": finding.boot_ns,
        "detected_at_ns": now_ns,
        "workload": dict(workload),
        "lineage": lineage(finding.suspect, scene),
        "evidence": finding.evidence,
        "remote_address": destination.address if destination else None,
        "remote_port": destination.port if destination else None,
        "dns_name": finding.dns_name,
        "response": dict(response),
        "audit": None,
        "verdict": asdict(finding.telling.verdict) if finding.telling.verdict else None,
    }


def describe(finding: Finding, scene: Scene) -> str:
    """What was seen, in a sentence with the facts."""
    suspect = finding.suspect
    if not suspect.actor:
        return f"The sensor of {shown(scene.view.node)} {finding.telling.says}.{_summed(finding)}"
    parts = [_process(scene, suspect.actor)]
    if suspect.service:
        between = _between(scene, suspect)
        if between:
            parts.append(f", started by way of {between}")
        if suspect.cut_root and scene.view.same_process(suspect.cut_root, suspect.service):
            parts.append(
                f", which replaced the serving program {_process(scene, suspect.service)} in its process"
            )
        else:
            parts.append(f" below the serving program {_process(scene, suspect.service)}")
        parts.append(",")
    if suspect.why and finding.telling.says != suspect.why:
        parts.append(f" {suspect.why} and")
    parts.append(f" {finding.telling.says}.{_summed(finding)}")
    return "".join(parts)


def _summed(finding: Finding) -> str:
    """How often, of what is summed by itself and not by process tree."""
    if finding.suspect.cut_root:
        return ""
    times = f" {finding.count} times in one batch." if finding.count > 1 else ""
    return times + (f" {finding.summed} times more since the alert before." if finding.summed else "")


def lineage(suspect: Suspect, scene: Scene) -> list[dict[str, Any]]:
    """``LineageEntry`` records: the actor first, then what it came from."""
    if not suspect.actor:
        return []
    entries = []
    for index in scene.view.chain(suspect.actor)[:MAX_LINEAGE]:
        image = scene.view.processes[index]
        entries.append({
            "tgid": image["tgid"],
            "start_ns": image["start_ns"],
            "executable": image["executable"],
            "argv": image["argv"],
            "uid": image["uid"],
            "serving": image["serving"],
            "role": _part(suspect, index),
        })  # fmt: skip
    return entries


def _part(suspect: Suspect, index: int) -> str:
    if index == suspect.service:
        return "service"
    if index == suspect.cut_root:
        return "cut-root"
    if index == suspect.actor:
        return "actor"
    return "tool" if index == suspect.tool else ""


def _process(scene: Scene, index: int) -> str:
    image = scene.view.processes[index]
    return f"{shown(shown_name(image))} ({image['tgid']})"


def _between(scene: Scene, suspect: Suspect) -> str:
    """The programs between actor and service, nearest the service first; each process once."""
    names: list[str] = []
    seen = {scene.view.key(suspect.actor)}
    for index in scene.view.chain(suspect.actor)[1:]:
        if index == suspect.service:
            break
        key = scene.view.key(index)
        if key not in seen and scene.view.processes[index]["origin"] != "FORK":
            seen.add(key)
            names.append(_process(scene, index))
        if index == suspect.cut_root:
            break
    return ", ".join(reversed(names[-4:]))
