# SPDX-License-Identifier: Apache-2.0
"""Which pods each profile selects, node by node. Pure state.

Input: profiles, pods and node names as they come and go. Output: what each node is to be told, and where
something may have changed since that was last asked (:meth:`ProfileBook.take_changed`). Failure: what is
beyond a bound is not taken, and counted; a profile that was there stays.

Labels of nodes are not known here: a node has its name as ``kubernetes.io/hostname``, nothing else.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from schemas.codec import encode
from schemas.profile.selector import selects_node, selects_pod
from schemas.subject import NodeSubject, ProfileSubject

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from stream_apps.correlate.pods import Pod

# A cluster has a few per namespace; each is kept decoded.
MAX_PROFILES: Final = 10_000
# A few of them may be of the largest size; all of them may not.
MAX_TOTAL_BYTES: Final = 256 * 1024 * 1024
# Kubernetes is tested to 5,000 nodes a cluster, and several clusters may share a Kafka.
MAX_NODES: Final = 20_000
# As sensors take (sensor/enforce/profile_order.py), far above what a kubelet runs.
MAX_NODE_PODS: Final = 4096
HOSTNAME_LABEL: Final = "kubernetes.io/hostname"

_Name = TypeVar("_Name", str, int)
AnySubject = ProfileSubject | NodeSubject
Place = tuple[str, AnySubject]
"""A node, and whom something is said about there."""


def digest_of(profile: Mapping[str, Any]) -> bytes:
    """A ``SecurityProfile`` in 16 bytes, generation included."""
    return hashlib.blake2b(encode("SecurityProfile", profile), digest_size=16).digest()


@dataclass(slots=True)
class Held:
    """One profile.

    Attributes:
        record: The ``SecurityProfile``.
        digest: Of what it says.
        size: Its encoded size, bytes.
        pods: UIDs of the pods it selects, by node.
        over: Its end has passed.
    """

    record: Mapping[str, Any]
    digest: bytes
    size: int
    pods: dict[str, set[str]] = field(default_factory=dict)
    over: bool = False

    @property
    def subject(self) -> ProfileSubject:
        """It as an order's subject."""
        return ProfileSubject(self.record["namespace"], self.record["name"])


class ProfileBook:
    """Profiles, pods and nodes.

    Attributes:
        counts: What was not taken, by reason.
    """

    def __init__(self, max_profiles: int = MAX_PROFILES, max_nodes: int = MAX_NODES) -> None:
        self.counts: Counter[str] = Counter()
        self._max_profiles = max_profiles
        self._max_nodes = max_nodes
        self._profiles: dict[str, Held] = {}
        self._by_namespace: dict[str, set[str]] = {}
        self._by_generation: dict[int, set[str]] = {}
        self._node_scope: set[str] = set()
        self._tracing: set[str] = set()
        self._bytes = 0
        # With the time of its newest change.
        self._pods: dict[str, tuple[Pod, int]] = {}
        self._pods_of_namespace: dict[str, set[str]] = {}
        self._pods_of_node: dict[str, set[str]] = {}
        self._nodes: set[str] = set()
        # Wall time of the newest evidence, in order of their coming.
        self._changed: dict[Place, int] = {}
        self._next_end_ns = 0

    def sizes(self) -> Mapping[str, int]:
        """How many there are, for the metrics."""
        return {"profiles_now": len(self._profiles), "profile_nodes_now": len(self._nodes)}

    def put_profile(self, key: str, record: Mapping[str, Any], size: int) -> str | None:
        """A profile is there, or is another now; why it is not taken, None if it is.

        Args:
            key: ``<namespace>/<name>``, as the record has them.
            record: A ``SecurityProfile`` without a problem.
            size: Its encoded size, bytes.
        """
        before = self._profiles.get(key)
        total = self._bytes + size - (before.size if before else 0)
        if before is None and len(self._profiles) >= self._max_profiles:
            self.counts["profiles_refused"] += 1
            return f"{self._max_profiles} profiles are known already"
        if total > MAX_TOTAL_BYTES:
            self.counts["profiles_refused"] += 1
            return f"all profiles together would have {total} bytes, more than {MAX_TOTAL_BYTES}"
        if before is not None:
            self._forget(key, before)
        held = Held(record, digest_of(record), size)
        self._bytes = total
        self._profiles[key] = held
        self._by_namespace.setdefault(record["namespace"], set()).add(key)
        self._by_generation.setdefault(record["generation"], set()).add(key)
        if record["scope"] == "NODE":
            self._node_scope.add(key)
        if record["trace_dns"]:
            self._tracing.add(key)
        for uid in self._pods_of_namespace.get(record["namespace"], ()):
            pod, _ = self._pods[uid]
            if selects_pod(record, pod.namespace, pod.labels):
                held.pods.setdefault(pod.node, set()).add(uid)
        end_ns = record["expires_at_ns"]
        if end_ns and (not self._next_end_ns or end_ns < self._next_end_ns):
            self._next_end_ns = end_ns
        self._touch_profile(held, record["generation"])
        return None

    def remove_profile(self, key: str, changed_ns: int) -> None:
        """A profile is gone."""
        held = self._profiles.get(key)
        if held is not None:
            self._bytes -= held.size
            self._forget(key, held)
            self._touch_profile(held, changed_ns)

    def _forget(self, key: str, held: Held) -> None:
        del self._profiles[key]
        self._node_scope.discard(key)
        self._tracing.discard(key)
        _discard(self._by_namespace, held.record["namespace"], key)
        _discard(self._by_generation, held.record["generation"], key)
        # What it selected until now is told of the change too.
        self._touch_profile(held, 0)

    def _touch_profile(self, held: Held, changed_ns: int) -> None:
        nodes = self._nodes if held.record["scope"] == "NODE" else held.pods
        for node in nodes:
            self._touch(node, held.subject, changed_ns)

    def put_pod(self, pod: Pod, changed_ns: int) -> None:
        """A pod is there, or is another now; one that is on no node yet does not count."""
        self.remove_pod(pod.uid, changed_ns)
        if not pod.node or not self.node(pod.node):
            return
        there = self._pods_of_node.setdefault(pod.node, set())
        if len(there) >= MAX_NODE_PODS:
            self.counts["node_pods_refused"] += 1
            return
        there.add(pod.uid)
        self._pods[pod.uid] = pod, changed_ns
        self._pods_of_namespace.setdefault(pod.namespace, set()).add(pod.uid)
        self._touch(pod.node, NodeSubject(pod.node), changed_ns)
        for key in self._by_namespace.get(pod.namespace, ()):
            held = self._profiles[key]
            if selects_pod(held.record, pod.namespace, pod.labels):
                held.pods.setdefault(pod.node, set()).add(pod.uid)
                self._touch(pod.node, held.subject, changed_ns)

    def remove_pod(self, uid: str, changed_ns: int) -> None:
        """A pod is gone; unknown ones too."""
        known = self._pods.pop(uid, None)
        if known is None:
            return
        pod, _ = known
        _discard(self._pods_of_node, pod.node, uid)
        _discard(self._pods_of_namespace, pod.namespace, uid)
        self._touch(pod.node, NodeSubject(pod.node), changed_ns)
        for key in self._by_namespace.get(pod.namespace, ()):
            held = self._profiles[key]
            if uid in held.pods.get(pod.node, ()):
                _discard(held.pods, pod.node, uid)
                self._touch(pod.node, held.subject, changed_ns)

    def node(self, name: str) -> bool:
        """A node is there; False when there are too many."""
        if name in self._nodes:
            return True
        if len(self._nodes) >= self._max_nodes:
            self.counts["nodes_refused"] += 1
            return False
        self._nodes.add(name)
        for key in self._node_scope:
            held = self._profiles[key]
            self._touch(name, held.subject, held.record["generation"])
        return True

    def tick(self, now_ns: int) -> None:
        """Let profiles end whose time it is."""
        if not self._next_end_ns or now_ns < self._next_end_ns:
            return
        self._next_end_ns = 0
        for held in self._profiles.values():
            end_ns = held.record["expires_at_ns"]
            if end_ns > now_ns:
                self._next_end_ns = min(end_ns, self._next_end_ns or end_ns)
            elif end_ns and not held.over:
                held.over = True
                self._touch_profile(held, end_ns)

    def touch(self, node: str, subject: AnySubject) -> None:
        """Let it be looked at again."""
        self._touch(node, subject, 0)

    def _touch(self, node: str, subject: AnySubject, changed_ns: int) -> None:
        place = node, subject
        self._changed[place] = max(changed_ns, self._changed.get(place, 0))

    def take_changed(self) -> Mapping[Place, int]:
        """What may have changed since this was last asked, with the wall time of the newest evidence."""
        changed, self._changed = self._changed, {}
        return changed

    def subjects(self, node: str) -> Iterator[AnySubject]:
        """All that a node is to be told of."""
        yield NodeSubject(node)
        for held in self._profiles.values():
            if node in held.pods or held.record["scope"] == "NODE":
                yield held.subject

    def newest_ns(self, uids: Collection[str]) -> int:
        """Wall time of the newest change of some pods, 0 without any."""
        return max((self._pods[uid][1] for uid in uids), default=0)

    def nodes(self) -> Collection[str]:
        """All nodes."""
        return self._nodes

    def wanted(self, node: str, subject: ProfileSubject) -> tuple[Held, list[str]] | None:
        """A profile with the pods it selects on a node, sorted; None when it has no place there."""
        held = self._profiles.get(f"{subject.namespace}/{subject.name}")
        if held is None or held.over:
            return None
        if held.record["scope"] == "NODE":
            known = node in self._nodes and selects_node(held.record, {HOSTNAME_LABEL: node})
            return (held, []) if known else None
        pods = held.pods.get(node)
        return (held, sorted(pods)) if pods else None

    def pods_on(self, node: str) -> list[str]:
        """UIDs of a node's pods, sorted."""
        return sorted(self._pods_of_node.get(node, ()))

    def profiles(self) -> Iterator[Mapping[str, Any]]:
        """All profiles."""
        return (held.record for held in self._profiles.values())

    def at_generation(self, generation: int) -> tuple[str, ...]:
        """Keys of the profiles that have a generation now."""
        return tuple(sorted(self._by_generation.get(generation, ())))

    def record(self, key: str) -> Mapping[str, Any] | None:
        """The profile of a key."""
        held = self._profiles.get(key)
        return held.record if held else None

    def places(self, key: str) -> Mapping[str, frozenset[str]]:
        """The nodes where a profile has a place, with the UIDs of the pods it selects there."""
        held = self._profiles.get(key)
        if held is None or held.over:
            return {}
        if held.record["scope"] == "NODE":
            here = (node for node in self._nodes if selects_node(held.record, {HOSTNAME_LABEL: node}))
            return dict.fromkeys(here, frozenset())
        return {node: frozenset(uids) for node, uids in held.pods.items()}

    def traces_anything(self) -> bool:
        """Whether any profile asks for DNS tracing."""
        return bool(self._tracing)

    def traces(self, node: str, workload: Mapping[str, Any]) -> bool:
        """Whether a profile that selects a ``Workload`` record of a node asks for DNS tracing."""
        uid = workload["pod_uid"]
        for key in self._tracing:
            held = self._profiles[key]
            if held.over:
                continue
            if uid:
                if uid in held.pods.get(node, ()):
                    return True
            elif selects_node(held.record, {HOSTNAME_LABEL: node}) and any(
                _selects_service(each, workload) for each in held.record["services"]
            ):
                return True
        return False


def _selects_service(service: Mapping[str, str], workload: Mapping[str, Any]) -> bool:
    """By unit or by cgroup; who selects an executable does not select the service it runs in."""
    if service["unit"]:
        return bool(service["unit"] == workload["unit"])
    outer = service["cgroup_path"]
    path: str = workload["cgroup_path"]
    return bool(outer) and (path == outer or path.startswith(outer.rstrip("/") + "/"))


def _discard(sets: dict[_Name, set[str]], name: _Name, item: str) -> None:
    held = sets.get(name)
    if held is not None:
        held.discard(item)
        if not held:
            del sets[name]
