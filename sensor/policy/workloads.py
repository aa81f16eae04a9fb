# SPDX-License-Identifier: Apache-2.0
"""Which profiles each workload of the node has, and what that makes its policy. Pure state.

Input: compiled profiles, which pods they select (the stream apps join labels, the sensor has none), and the
workloads that are there. Output: a :class:`Plan`: slot and policy of everyone, and the names of cgroups that
are to have their slot at birth. Failure: what cannot be united is refused with the reason for that workload
alone, and its policy in force stays.

Pods that nobody has spoken of are unknown and have the node's ``unknownWorkload`` mode. Services of the host
are never unknown: without a profile of their own they have the host's, which knows executables only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sensor.policy import layout
from sensor.policy.errors import PolicyRefused
from sensor.policy.expected import pod_cgroup_names, unit_cgroup_names
from sensor.policy.limits import MAX_PROFILES
from sensor.policy.policy import Policy, Selection, union_of, unknown_policy
from sensor.policy.slots import Slots
from sensor.workload.paths import identify

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from sensor.policy.profile import CompiledProfile
    from sensor.policy.rules import RuleSet


class Governed(Protocol):
    """What is asked of a workload, or one of its cgroups (sensor/workload/table.py)."""

    @property
    def id(self) -> str:
        """Pod UID, or host/..."""

    @property
    def kind(self) -> str:
        """POD, CONTAINER, HOST_SERVICE or HOST."""

    @property
    def cgroup_path(self) -> str:
        """Under the cgroup v2 mount."""

    @property
    def unit(self) -> str | None:
        """Unit of systemd."""


@dataclass(slots=True)
class Plan:
    """What the kernel is to hold.

    Attributes:
        policies: By slot.
        slots: By subject, of what is there and of units that are selected.
        refused: By subject, why its policy stays what it was.
        expected: Cgroup name: slot, of pods and units that may yet come.
    """

    policies: dict[int, Policy | None] = field(default_factory=dict)
    slots: dict[str, int] = field(default_factory=dict)
    refused: dict[str, PolicyRefused] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)


class Profiles:
    """The profiles this node obeys and whom they select.

    Args:
        node: Its name, as in workload ids.
        unknown_mode: ``allow``, ``alert`` or ``deny``.
        parents: Names of cgroups below which unknown workloads appear.
    """

    def __init__(self, node: str, unknown_mode: str, parents: Collection[str] = ()) -> None:
        self._node = node
        self._parents = tuple(parents)
        self._unknown = unknown_policy(unknown_mode)
        self._profiles: dict[str, CompiledProfile] = {}
        self._selected: dict[str, frozenset[str]] = {}
        self.slots = Slots()

    def put(self, profile: CompiledProfile) -> None:
        """A profile is there, or is another now.

        Raises:
            PolicyRefused: More profiles than a node obeys.
        """
        if profile.key not in self._profiles and len(self._profiles) >= MAX_PROFILES:
            raise PolicyRefused(
                f"profile {profile.key}: this node obeys {MAX_PROFILES} profiles already", "delete some"
            )
        self._profiles[profile.key] = profile

    def drop(self, key: str) -> bool:
        """A profile is gone; False when it was not there."""
        return self._profiles.pop(key, None) is not None

    def select(self, pod: str, keys: Collection[str]) -> None:
        """A pod is known, and these profiles select it; they may come later than this."""
        self._selected[pod] = frozenset(keys)

    def forget(self, pod: str) -> None:
        """A pod is gone."""
        self._selected.pop(pod, None)

    def selected_pods(self) -> frozenset[str]:
        """The pods that are known."""
        return frozenset(self._selected)

    def get(self, key: str) -> CompiledProfile | None:
        """One profile."""
        return self._profiles.get(key)

    def keys(self) -> frozenset[str]:
        """All profiles."""
        return frozenset(self._profiles)

    def next_expiry(self, now_ns: int) -> int | None:
        """Wall time at which the plan changes by itself."""
        ends = [each.expires_at_ns for each in self._profiles.values()]
        return min((end for end in ends if end > now_ns), default=None)

    def waits_for(self) -> dict[str, int]:
        """Cgroup name: slot, of what has to do with no profile."""
        return dict.fromkeys(self._parents, layout.SLOT_UNKNOWN)

    def fallback(self, subject: str) -> Policy | None:
        """The policy of a workload that cannot have its own and has none: a pod is as good as unknown."""
        return self._unknown if subject in self._selected else None

    def rule_sets(self, contents: Collection[bytes]) -> Iterator[RuleSet]:
        """Compile rule sets again, one after the other, each once."""
        left = set(contents)
        for profile in self._profiles.values():
            for rules in profile.rule_sets(left):
                left.discard(rules.content)
                yield rules

    def subject_of(self, workload: Governed) -> str:
        """Whose slot a cgroup has: its workload's, or that of a selected part of it."""
        root = identify(workload.cgroup_path).root
        inner = [path for path in self._paths() if _is_below(path, root) and path != root]
        within = [path for path in inner if _is_below(workload.cgroup_path, path)]
        return f"{workload.id}@{max(within, key=len)}" if within else workload.id

    def selections(self, workload: Governed) -> list[Selection]:
        """The profiles that have to do with a workload."""
        if workload.kind == "POD":
            keys = self._selected.get(workload.id, frozenset())
            return [Selection(each) for key in sorted(keys) if (each := self._profiles.get(key))]
        found = []
        for profile in self._profiles.values():
            if profile.node_scope:
                executables = frozenset(each.executable for each in profile.services if each.executable)
                if any(_selects(each.unit, each.cgroup_path, workload) for each in profile.services):
                    found.append(Selection(profile))
                elif executables:
                    found.append(Selection(profile, executables))
        return found

    def plan(self, workloads: Iterable[Governed], wall_ns: int, boot_ns: int) -> Plan:
        """What the kernel is to hold for the workloads that are there, and those that will be."""
        plan = Plan(expected=self.waits_for())
        unions = _Unions(wall_ns)
        host = _Service(f"host/{self._node}", "HOST", "/", None)
        self._add(plan, layout.SLOT_HOST, host, unions)
        plan.policies[layout.SLOT_UNKNOWN] = self._unknown
        there = {self.subject_of(each): each for each in workloads if each.kind != "HOST"}
        for pod in self._selected.keys() - there.keys():
            slot = self._place(plan, _Service(pod, "POD", "", None), pod, boot_ns, unions)
            if slot is not None:
                plan.expected |= dict.fromkeys(pod_cgroup_names(pod), slot)
        for unit in self._units():
            service = _Service(f"host/{self._node}/{unit}", "HOST_SERVICE", f"/system.slice/{unit}", unit)
            if service.id not in there:
                slot = self._place(plan, service, service.id, boot_ns, unions)
                if slot is not None:
                    plan.expected |= dict.fromkeys(unit_cgroup_names(unit), slot)
        for subject, workload in there.items():
            self._place(plan, workload, subject, boot_ns, unions)
        for subject in self.slots.subjects() - plan.slots.keys():
            gone = self.slots.release(subject, boot_ns)
            if gone is not None:
                plan.policies[gone] = None
        return plan

    def _place(
        self, plan: Plan, workload: Governed, subject: str, boot_ns: int, unions: _Unions
    ) -> int | None:
        slot = self.slots.assign(subject, boot_ns)
        if slot is None:
            return None
        plan.slots[subject] = slot
        self._add(plan, slot, workload, unions, subject)
        return slot

    def _add(self, plan: Plan, slot: int, workload: Governed, unions: _Unions, subject: str = "") -> None:
        if workload.kind == "POD" and workload.id not in self._selected:
            plan.policies[slot] = self._unknown
            return
        try:
            plan.policies[slot] = unions.of(self.selections(workload))
        except PolicyRefused as refusal:
            plan.refused[subject or workload.id] = refusal

    def _paths(self) -> set[str]:
        services = (each for profile in self._profiles.values() for each in profile.services)
        return {each.cgroup_path for each in services if each.cgroup_path}

    def _units(self) -> list[str]:
        services = (each for profile in self._profiles.values() for each in profile.services)
        return sorted({each.unit for each in services if each.unit})


@dataclass(frozen=True, slots=True)
class _Service:
    """A workload that is not there yet, or has no cgroup of its own."""

    id: str
    kind: str
    cgroup_path: str
    unit: str | None


class _Unions:
    """Unions already made in one plan: replicas have the same profiles."""

    def __init__(self, wall_ns: int) -> None:
        self._wall_ns = wall_ns
        self._made: dict[tuple[tuple[str, bool], ...], Policy | None] = {}

    def of(self, selections: list[Selection]) -> Policy | None:
        key = tuple(sorted((each.profile.key, each.executables is None) for each in selections))
        if key not in self._made:
            self._made[key] = union_of(selections, self._wall_ns)
        return self._made[key]


def _selects(unit: str, cgroup_path: str, workload: Governed) -> bool:
    if unit:
        return workload.unit == unit
    return bool(cgroup_path) and _is_below(workload.cgroup_path, cgroup_path)


def _is_below(path: str, outer: str) -> bool:
    return path == outer or path.startswith(outer.rstrip("/") + "/")
