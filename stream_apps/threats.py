# SPDX-License-Identifier: Apache-2.0
"""From what was found to what is responded to. Pure; used by :mod:`stream_apps.pipeline`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from schemas.subject import ProcessSubject
from stream_apps.detect.alerts import describe
from stream_apps.respond.threat import Threat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_apps.detect.findings import Finding
    from stream_apps.detect.node_finding import NodeFinding
    from stream_apps.detect.scene import Scene


def threat_of(scene: Scene, finding: Finding, alert_id: str) -> Threat:
    """What a finding is about, and which process would be cut for it."""
    view = scene.view
    suspect = finding.suspect
    place = finding.telling.workload
    workload = view.workloads[view.workload_of[suspect.actor] if place is None else place]
    root: ProcessSubject | None = None
    images: tuple[Mapping[str, Any], ...] = ()
    if suspect.cut_root:
        tgid, start_ns = view.key(suspect.cut_root)
        root = ProcessSubject(view.boot_id, tgid, start_ns)
        images = tuple(
            view.processes[each]
            for each in view.chain(suspect.actor)
            if view.same_process(each, suspect.cut_root)
        )
    return Threat(
        rule_id=finding.rule.id,
        severity=finding.severity,
        alert_id=alert_id,
        node=view.node,
        summary=f"{finding.rule.id}: {describe(finding, scene)}",
        workload=workload,
        pod=scene.pods.of_workload(workload),
        root=root,
        root_images=images,
        destinations=tuple(finding.destinations),
        observed_ns=scene.wall_ns(finding.boot_ns),
        observed_boot_ns=finding.boot_ns,
    )


def threat_of_node(found: NodeFinding) -> Threat:
    """Something about a node as a whole: nothing there can be cut."""
    return Threat(
        rule_id=found.rule.id,
        severity=found.severity,
        alert_id=found.alert_id(),
        node=found.node,
        summary=found.says,
        workload=found.workload,
        pod=None,
        root=None,
        root_images=(),
        destinations=(),
        observed_ns=found.wall_ns,
        observed_boot_ns=found.boot_ns,
    )
