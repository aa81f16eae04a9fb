# SPDX-License-Identifier: Apache-2.0
"""What a cgroup path says about who runs in it. Pure.

Input: a path under the cgroup v2 mount. Output: a :class:`PathIdentity`. There is no failure: a path that
fits no known form is a host cgroup.

Forms (recorded ones are in the tests): kubelet with the cgroupfs driver
(``/kubepods/burstable/pod<uid>/<container>``) and with the systemd driver
(``/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid_>.slice/cri-containerd-<container>.scope``),
containerd, CRI-O, Docker and Podman, each also nested in another container (kind).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

WorkloadKind = Literal["POD", "CONTAINER", "HOST_SERVICE", "HOST"]

# A pod's UID; static pods have a hash without dashes. The systemd driver writes dashes as underscores.
_POD: Final = re.compile(
    r"(?:.*-)?pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})"
    r"(?:\.slice)?"
)
# "<runtime>-conmon-<id>.scope" is the container's monitor on the host, not the container: it does not match.
_CONTAINER: Final = re.compile(
    r"(?:(?:cri-containerd|containerd|nerdctl|crio|docker|libpod)-)?([0-9a-f]{64})(?:\.scope)?"
)
_UNIT: Final = re.compile(r".+\.(?:service|scope|socket|mount|swap)")
# Cgroups that only group others; a unit or a pod is below. They are nobody's workload.
_GROUPING: Final = re.compile(r".+\.slice|(?:.*-)?kubepods|burstable|besteffort|guaranteed")


@dataclass(frozen=True, slots=True)
class PathIdentity:
    """What one path says.

    Attributes:
        kind: As in the EventBatch schema.
        root: Path of the cgroup that is the whole workload: the pod's, the container's outside of
            Kubernetes, the unit's, else the cgroup itself.
        pod_uid: With dashes, as Kubernetes writes it.
        container_id: Without a runtime's prefix.
        unit: systemd unit.
        grouping: True for a slice and the like: processes of several workloads live below.
    """

    kind: WorkloadKind
    root: str
    pod_uid: str | None = None
    container_id: str | None = None
    unit: str | None = None
    grouping: bool = False


def identify(path: str) -> PathIdentity:
    """Read a path, outermost component first; what is nearer to the process wins.

    A pod inside of a container (kind) is the pod. A container inside of a pod's container (a build, say)
    stays the pod's: whoever is inside cannot leave by nesting. A unit counts only outside of containers.
    """
    parts = [part for part in path.split("/") if part]
    if not parts:
        return PathIdentity("HOST", "/")
    pod = container = unit = None
    pod_end = container_end = unit_end = 0
    for end, part in enumerate(parts, start=1):
        if (found := _POD.fullmatch(part)) and any("kubepods" in above for above in parts[:end]):
            pod, pod_end, container = found[1].replace("_", "-"), end, None
        elif found := _CONTAINER.fullmatch(part):
            if not (pod and container):
                container, container_end = found[1], end
        elif _UNIT.fullmatch(part) and not (pod or container) and (not unit or unit.startswith("user@")):
            unit, unit_end = part, end
    if pod:
        return PathIdentity("POD", _join(parts[:pod_end]), pod, container)
    if container:
        return PathIdentity("CONTAINER", _join(parts[:container_end]), container_id=container)
    if unit:
        return PathIdentity("HOST_SERVICE", _join(parts[:unit_end]), unit=unit)
    grouping = _GROUPING.fullmatch(parts[-1]) is not None
    return PathIdentity("HOST_SERVICE", _join(parts), grouping=grouping)


def workload_id(identity: PathIdentity, node: str) -> str:
    """The id of design section 5: the pod UID, else ``host/<node>/<unit or path>``.

    A unit is named alone where that is unique (system units); one of a user's own manager by its path.
    """
    if identity.pod_uid:
        return identity.pod_uid
    if identity.kind == "HOST":
        return f"host/{node}"
    if identity.unit and identity.root.startswith("/system.slice/"):
        return f"host/{node}/{identity.unit}"
    return f"host/{node}{identity.root}"


def _join(parts: list[str]) -> str:
    return "/" + "/".join(parts)
