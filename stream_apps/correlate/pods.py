# SPDX-License-Identifier: Apache-2.0
"""Pods by uid, container id and address: what ``nsp.pods`` says, ready to join with a workload.

Input: ``Pod`` records and removals in topic order. Output: :class:`Pod` and the ``AlertWorkload`` record of
an alert. Failure: a pod beyond the bound is not taken and counted; a workload whose pod is not known keeps
what its cgroup says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# Kubernetes is tested to 150,000 pods a cluster; about 2 kB each here.
MAX_PODS: Final = 200_000


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a pod."""

    id: str
    name: str
    image: str


@dataclass(frozen=True, slots=True)
class Pod:
    """What is known of one pod. ``owner`` is ``Kind/name``; ``ready`` is None when nobody says."""

    uid: str
    namespace: str
    name: str
    labels: Mapping[str, str]
    owner: str | None
    service_account: str | None
    node: str
    ips: tuple[str, ...]
    containers: tuple[Container, ...]
    ready: bool | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Pod:
        """Read a ``Pod`` record."""
        kind, name = record["owner_kind"], record["owner_name"]
        return cls(
            uid=record["uid"],
            namespace=record["namespace"],
            name=record["name"],
            labels=dict(record["labels"]),
            owner=f"{kind}/{name}" if kind and name else name or kind,
            service_account=record["service_account"],
            node=record["node"],
            ips=tuple(record["ips"]),
            containers=tuple(
                Container(each["id"], each["name"], each["image"]) for each in record["containers"]
            ),
            ready=record.get("ready"),
        )

    def container(self, container_id: str | None) -> Container | None:
        """The container of an id."""
        if not container_id:
            return None
        return next((each for each in self.containers if each.id == container_id), None)


class PodTable:
    """All pods, by what an event may name them by.

    Attributes:
        refused: Pods not taken because the table is full.
    """

    def __init__(self, max_pods: int = MAX_PODS) -> None:
        self.refused = 0
        self._max_pods = max_pods
        self._by_uid: dict[str, Pod] = {}
        self._by_container: dict[str, Pod] = {}
        self._by_owner: dict[tuple[str, str], dict[str, Pod]] = {}
        # Pods on the host's network share its address: only an address of one pod names it.
        self._by_ip: dict[str, dict[str, Pod]] = {}

    def __len__(self) -> int:
        return len(self._by_uid)

    def put(self, record: Mapping[str, Any]) -> None:
        """Take a ``Pod`` record, new or changed."""
        pod = Pod.of(record)
        if pod.uid not in self._by_uid and len(self._by_uid) >= self._max_pods:
            self.refused += 1
            return
        self.remove(pod.uid)
        self._by_uid[pod.uid] = pod
        if pod.owner:
            self._by_owner.setdefault((pod.namespace, pod.owner), {})[pod.uid] = pod
        for container in pod.containers:
            if container.id:
                self._by_container[container.id] = pod
        for address in pod.ips:
            self._by_ip.setdefault(address, {})[pod.uid] = pod

    def remove(self, uid: str) -> None:
        """Forget a pod; unknown ones too."""
        pod = self._by_uid.pop(uid, None)
        if pod is None:
            return
        if pod.owner:
            owned = self._by_owner.get((pod.namespace, pod.owner), {})
            owned.pop(uid, None)
            if not owned:
                self._by_owner.pop((pod.namespace, pod.owner), None)
        for container in pod.containers:
            if self._by_container.get(container.id) is pod:
                del self._by_container[container.id]
        for address in pod.ips:
            sharing = self._by_ip.get(address, {})
            sharing.pop(uid, None)
            if not sharing:
                self._by_ip.pop(address, None)

    def by_uid(self, uid: str) -> Pod | None:
        """The pod of a uid."""
        return self._by_uid.get(uid)

    def of_owner(self, pod: Pod) -> list[Pod]:
        """The pods with the same owner, itself among them; none when nothing owns it."""
        if not pod.owner:
            return []
        return list(self._by_owner.get((pod.namespace, pod.owner), {}).values())

    def at(self, address: str) -> Pod | None:
        """The one pod that has an address; None where several share it."""
        sharing = self._by_ip.get(address)
        return next(iter(sharing.values())) if sharing and len(sharing) == 1 else None

    def on_node(self, node: str) -> int:
        """How many pods are known on a node. Walks all: not for every event."""
        return sum(each.node == node for each in self._by_uid.values())

    def of_workload(self, workload: Mapping[str, Any]) -> Pod | None:
        """The pod of a ``Workload`` record.

        By uid; else by container id, which also finds static pods: their cgroup has another uid than the
        API gives them.
        """
        uid, container_id = workload["pod_uid"], workload["container_id"]
        return (self._by_uid.get(uid) if uid else None) or (
            self._by_container.get(container_id) if container_id else None
        )

    def describe(self, workload: Mapping[str, Any]) -> dict[str, Any]:
        """The ``AlertWorkload`` record of a ``Workload`` record."""
        pod = self.of_workload(workload)
        container = pod.container(workload["container_id"]) if pod else None
        return {
            "id": workload["id"],
            "kind": workload["kind"],
            "cgroup_path": workload["cgroup_path"],
            "namespace": pod.namespace if pod else None,
            "pod": pod.name if pod else None,
            "pod_uid": pod.uid if pod else workload["pod_uid"],
            "container": container.name if container else None,
            "container_id": workload["container_id"],
            "image": container.image if container else None,
            "owner": pod.owner if pod else None,
            "service_account": pod.service_account if pod else None,
            "labels": dict(pod.labels) if pod else {},
        }
