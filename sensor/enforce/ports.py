# SPDX-License-Identifier: Apache-2.0
"""What enforcement needs of the rest of the sensor, and nothing more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from sensor.kernel.state import AllowedKey, DestinationKey, EnforcementValue, ProcessKey, ProcessValue


class Maps(Protocol):
    """The pinned maps that enforce. :class:`sensor.kernel.maps.EnforcementMaps` is the real one."""

    def set_quarantine(self, key: ProcessKey, value: EnforcementValue) -> None:
        """Cut the processes marked with this root."""

    def drop_quarantine(self, key: ProcessKey) -> bool:
        """Free them; False when there was none."""

    def quarantine(self, key: ProcessKey) -> EnforcementValue | None:
        """One quarantine with its counters."""

    def quarantines(self) -> Iterable[tuple[ProcessKey, EnforcementValue]]:
        """Every quarantine with its counters."""

    def mark_process(self, tgid: int, start_ns: int, root: ProcessKey | None) -> bool:
        """Set the root a process is cut with; False when there is no such process any more."""

    def process(self, tgid: int) -> ProcessValue | None:
        """One live process."""

    def processes(self) -> Iterable[tuple[int, ProcessValue]]:
        """Every live process by tgid."""

    def parent_of_ended(self, key: ProcessKey) -> ProcessKey | None:
        """The parent of a process that has ended; None when it lives or is forgotten."""

    def mark_sockets(self) -> int:
        """Stamp the open sockets of marked processes; how many were stamped now."""

    def set_workload_quarantine(self, cgroup_id: int, value: EnforcementValue) -> None:
        """Cut a workload (once its flags say so)."""

    def drop_workload_quarantine(self, cgroup_id: int) -> bool:
        """Free it; False when there was none."""

    def workload_quarantine(self, cgroup_id: int) -> EnforcementValue | None:
        """One workload's quarantine with its counters."""

    def workload_quarantines(self) -> Iterable[tuple[int, EnforcementValue]]:
        """Every quarantined workload with its counters."""

    def block_destination(self, key: DestinationKey, value: EnforcementValue) -> None:
        """Block one destination of a workload (once its flags say so)."""

    def unblock_destination(self, key: DestinationKey) -> bool:
        """Free it; False when there was none."""

    def blocked_destinations(self) -> Iterable[tuple[DestinationKey, EnforcementValue]]:
        """Every blocked destination with its counters."""

    def allow_flow(self, key: AllowedKey, generation: int) -> None:
        """Let a flow pass a workload's quarantine of this generation (once its flags say so)."""

    def drop_allowed_flow(self, key: AllowedKey) -> bool:
        """End that; False when it was not there."""

    def allowed_flows(self) -> Iterable[AllowedKey]:
        """Every flow that passes a quarantine."""

    def set_workload_flags(self, cgroup_id: int, flags: int) -> None:
        """Say which of the above the kernel must look into; 0 is none."""


class HasState(Protocol):
    """The kernel side as far as it enforces."""

    @property
    def state(self) -> Maps:
        """Its maps."""


class Workloads(Protocol):
    """The table of workloads on this node."""

    def cgroups_of(self, workload_id: str) -> Collection[int]:
        """Workload cgroup ids (values of the kernel's ``workloads``) of one workload; empty: not known."""


class Notices(Protocol):
    """Where the sensor reports on itself. Called from the enforcement thread."""

    def notice(self, kind: str, subject: str, detail: str) -> None:
        """Put a SensorNotice into the event stream."""


class Reports(Protocol):
    """Where statuses go. Never raises, never blocks."""

    def send(self, record: Mapping[str, Any]) -> None:
        """Send one EnforcementStatus."""
