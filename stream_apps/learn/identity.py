# SPDX-License-Identifier: Apache-2.0
"""Which workload a cgroup belongs to, by owner: what all replicas have in common. Pure.

Input: a ``Workload`` record of a batch and the pod that is known for it. Output: :class:`Identity`, whose
``key`` is the same for all replicas on all nodes:

    <namespace>/<Kind>/<name>     of a pod with an owner; Pod is the kind of one without
    pod/<uid>                     of a pod nobody has told of yet
    host/<unit>                   of a systemd unit or another cgroup of hosts, on all nodes
    container/<id>                of a container outside of Kubernetes
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_apps.correlate.pods import Pod

# Transient units carry a number of their own (session-12.scope, run-r3f....scope): the kind is the workload.
_TRANSIENT: Final = re.compile(r"(?<=[-_])r?[0-9a-f]*\d[0-9a-f]*(?=[-_.]|$)")
# Labels that replicas do not share, or that a rollout changes: no selector may be made of them.
VOLATILE_LABELS: Final = frozenset({
    "pod-template-hash", "controller-revision-hash", "pod-template-generation",
    "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index", "controller-uid", "job-name",
    "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name",
    "batch.kubernetes.io/job-completion-index",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Identity:
    """A workload.

    Attributes:
        key: Its name, the same on all nodes.
        kind: As in the batch: POD, CONTAINER, HOST_SERVICE, HOST.
        instance: Which replica: the pod's UID, else the workload's id on its node.
        instance_name: The same for people.
        namespace: Of a pod.
        labels: Of a pod; what all replicas have.
        image: Image of the container, empty when not known.
        unit: systemd unit of a host service.
        cgroup_path: Of what is no pod.
    """

    key: str
    kind: str
    instance: str
    instance_name: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    image: str = ""
    unit: str = ""
    cgroup_path: str = ""


def identify(workload: Mapping[str, Any], pod: Pod | None) -> Identity:
    """Who a ``Workload`` is."""
    if pod is not None:
        return _of_pod(workload, pod)
    kind, found = workload["kind"], workload["id"]
    if kind == "POD":
        return Identity(provisional_key(found), kind, found, found)
    path = workload["cgroup_path"]
    if kind == "CONTAINER":
        key = f"container/{workload['container_id'] or path.lstrip('/')}"
        return Identity(key, kind, found, found, cgroup_path=path)
    unit = workload["unit"] or ""
    name = _without_numbers(unit) if unit.endswith(".scope") else unit or path.strip("/")
    return Identity(f"host/{name or '-'}", kind, found, found, unit=unit, cgroup_path=path)


def provisional_key(workload_id: str) -> str:
    """The key of a pod while nobody has told of it."""
    return f"pod/{workload_id}"


def _of_pod(workload: Mapping[str, Any], pod: Pod) -> Identity:
    container = pod.container(workload["container_id"])
    owner = pod.owner if pod.owner and "/" in pod.owner else f"Pod/{pod.name}"
    return Identity(
        key=f"{pod.namespace}/{owner}",
        kind="POD",
        instance=pod.uid,
        instance_name=pod.name,
        namespace=pod.namespace,
        labels={name: value for name, value in pod.labels.items() if name not in VOLATILE_LABELS},
        image=container.image if container else "",
    )


def _without_numbers(unit: str) -> str:
    return _TRANSIENT.sub("N", unit)
