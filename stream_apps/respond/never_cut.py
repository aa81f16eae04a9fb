# SPDX-License-Identifier: Apache-2.0
"""What is never cut, whatever a rule says.

Judged by the process that would be cut, not by what runs below it: else an attacker who starts one protected
program protects his whole tree. Paths are the kernel's, so a copy of ``sh`` named ``sshd`` in ``/tmp`` is not
protected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from stream_apps.detect.exclusions import has_labels, matches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_apps.correlate.pods import Pod
    from stream_apps.respond.threat import Threat

# 0 is the kernel, 1 the init of the node.
_LAST_RESERVED_TGID: Final = 1


@dataclass(frozen=True, slots=True)
class NeverCut:
    """The list. Patterns are shell patterns; ``*`` matches slashes too. Empty conditions protect nothing.

    Attributes:
        executables: Patterns of executable paths.
        argv_prefixes: First arguments, for programs in an interpreter.
        workloads: Patterns of workload ids.
        namespaces: Patterns of namespaces.
        labels: Pods with one of these labels (``*`` is any value).
    """

    executables: tuple[str, ...] = ()
    argv_prefixes: tuple[tuple[str, ...], ...] = ()
    workloads: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()

    def protects_process(self, threat: Threat) -> str | None:
        """Why the process of a threat must not be cut, or None."""
        if threat.root is not None and threat.root.tgid <= _LAST_RESERVED_TGID:
            return f"process {threat.root.tgid} is the node's own"
        for image in threat.root_images:
            reason = self._protects_image(image)
            if reason:
                return reason
        return self.protects_workload(threat.workload, threat.pod)

    def protects_workload(self, workload: Mapping[str, Any], pod: Pod | None) -> str | None:
        """Why nothing in a workload must be cut, or None."""
        if self.workloads and matches(self.workloads, workload["id"]):
            return f"workload {workload['id']} is on the never-cut list"
        if pod is None:
            return None
        if self.namespaces and matches(self.namespaces, pod.namespace):
            return f"namespace {pod.namespace} is on the never-cut list"
        for label in self.labels:
            if has_labels(pod.labels, (label,)):
                return f"pods with label {label[0]} are on the never-cut list"
        return None

    def _protects_image(self, image: Mapping[str, Any]) -> str | None:
        if self.executables and matches(self.executables, image["executable"]):
            return f"{image['executable']} is on the never-cut list"
        for prefix in self.argv_prefixes:
            if prefix and tuple(image["argv"][: len(prefix)]) == prefix:
                return f"{' '.join(prefix)} is on the never-cut list"
        return None
