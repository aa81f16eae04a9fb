# SPDX-License-Identifier: Apache-2.0
"""The names cgroups will have before they are there, so that the kernel knows their slot at mkdir. Pure.

A pod's profile comes with its UID, which is in the name of its cgroup whatever the runtime. Units have the
name of their unit. The forms are those of sensor/workload/paths.py.
"""

from __future__ import annotations

from typing import Final

# Guaranteed pods are directly below kubepods.
_CLASSES: Final = ("", "burstable-", "besteffort-")
# Prefixes of the systemd driver: as usual, and of a kubelet with a cgroup of its own (kind).
_SYSTEMD: Final = ("kubepods-", "kubelet-kubepods-")
# Where a kubelet has its pods, with both drivers: made when it is started, which may be after the sensor.
POD_PARENT_NAMES: Final = ("kubepods", *(f"{prefix[:-1]}.slice" for prefix in _SYSTEMD))


def pod_cgroup_names(uid: str) -> tuple[str, ...]:
    """The names a pod's cgroup can have, with both cgroup drivers, in every quality-of-service class."""
    written = uid.replace("-", "_")
    systemd = (f"{prefix}{each}pod{written}.slice" for prefix in _SYSTEMD for each in _CLASSES)
    return (f"pod{uid}", *systemd)


def unit_cgroup_names(unit: str) -> tuple[str, ...]:
    """The name of a unit's cgroup."""
    return (unit,)
