# SPDX-License-Identifier: Apache-2.0
"""The only package that knows BPF: load, pin, adopt, ring, maps.

Everything others use is here; what it imports is small, because the long-lived sensor keeps it.
"""

from __future__ import annotations

from sensor.kernel.errors import (
    BpfCallError,
    KernelError,
    LoaderFailed,
    PinsIncompatible,
    PinsInUse,
    ProgramRefused,
)
from sensor.kernel.maps import EnforcementMaps
from sensor.kernel.ring import EventRing, RingChunk
from sensor.kernel.runtime import Kernel, KernelOptions
from sensor.kernel.state import (
    WORKLOAD_HAS_BLOCKS,
    WORKLOAD_HAS_QUARANTINE,
    DestinationKey,
    EnforcementValue,
    ProcessKey,
    ProcessValue,
    SensorState,
)

__all__ = [
    "WORKLOAD_HAS_BLOCKS",
    "WORKLOAD_HAS_QUARANTINE",
    "BpfCallError",
    "DestinationKey",
    "EnforcementMaps",
    "EnforcementValue",
    "EventRing",
    "Kernel",
    "KernelError",
    "KernelOptions",
    "LoaderFailed",
    "PinsInUse",
    "PinsIncompatible",
    "ProcessKey",
    "ProcessValue",
    "ProgramRefused",
    "RingChunk",
    "SensorState",
]
