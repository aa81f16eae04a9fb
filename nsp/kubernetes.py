# SPDX-License-Identifier: Apache-2.0
"""Pods as the Kubernetes API prints them, made into ``Pod`` documents. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_HASH_LABEL: Final = "pod-template-hash"
_STATUS_LISTS: Final = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")


def is_kubernetes_list(content: object) -> bool:
    """Whether this is a List or PodList object."""
    return isinstance(content, dict) and content.get("kind") in {"List", "PodList"}


def pod_documents(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The ``Pod`` documents of a list; items that are no pods, or on no node yet, are left out."""
    items = content.get("items") or []
    return [
        _document(each)
        for each in items
        if each.get("kind", "Pod") == "Pod" and each.get("spec", {}).get("nodeName")
    ]


def _document(pod: Mapping[str, Any]) -> dict[str, Any]:
    metadata, spec, status = pod.get("metadata", {}), pod["spec"], pod.get("status", {})
    labels = metadata.get("labels") or {}
    owner_kind, owner_name = _owner(metadata, labels)
    return {
        "uid": metadata.get("uid", ""),
        "namespace": metadata.get("namespace", ""),
        "name": metadata.get("name", ""),
        "labels": labels,
        "owner_kind": owner_kind,
        "owner_name": owner_name,
        "service_account": spec.get("serviceAccountName"),
        "node": spec["nodeName"],
        "ips": [each["ip"] for each in status.get("podIPs") or [] if each.get("ip")],
        "containers": [
            {
                # containerd://0123... : the scheme is the runtime's
                "id": (each.get("containerID") or "").rpartition("://")[2],
                "name": each.get("name", ""),
                "image": each.get("image", ""),
            }
            for name in _STATUS_LISTS
            for each in status.get(name) or []
        ],
        "ready": _ready(status),
    }


def _ready(status: Mapping[str, Any]) -> bool | None:
    """What the pod's Ready condition says; None where it has none."""
    for each in status.get("conditions") or []:
        if each.get("type") == "Ready":
            return bool(each.get("status") == "True")
    return None


def _owner(metadata: Mapping[str, Any], labels: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The controller; behind a Deployment's ReplicaSet, whose name ends in the template hash, that one."""
    for each in metadata.get("ownerReferences") or []:
        if not each.get("controller"):
            continue
        kind, name = each.get("kind"), each.get("name")
        suffix = f"-{labels.get(_HASH_LABEL, '')}"
        if kind == "ReplicaSet" and name and len(suffix) > 1 and name.endswith(suffix):
            return "Deployment", name.removesuffix(suffix)
        return kind, name
    return None, None
