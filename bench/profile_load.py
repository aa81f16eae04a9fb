# SPDX-License-Identifier: Apache-2.0
"""Applies profiles to the kernel as the sensor does, in a process that imports what the sensor imports.

Started by bench/profiles.py: ``python -m bench.profile_load PIN_DIRECTORY CGROUP RECORDS``; RECORDS is a file
of SecurityProfile records, one in a line, each of which selects one pod. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.machine import pss_mb
from sensor import memory
from sensor.kernel import Kernel, KernelOptions
from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.state import U32
from sensor.policy import layout
from sensor.policy.apply import PolicyTables
from sensor.policy.profile import compile_profile
from sensor.policy.workloads import Profiles

if TYPE_CHECKING:
    from collections.abc import Iterator

MS_PER_S = 1000
BYTES_PER_MB = 1 << 20


def main() -> None:
    """Measure and print."""
    pins, cgroup, records = (Path(argument) for argument in sys.argv[1:4])
    memory.bound_arenas()
    with Kernel.start(KernelOptions(pin_directory=pins, cgroup_root=cgroup)) as kernel:
        print(json.dumps(measure(kernel, records)))


def measure(kernel: Kernel, records: Path) -> dict[str, Any]:
    """Apply, change one, take over."""
    tables, profiles = PolicyTables(kernel.policy), Profiles("bench", "allow")
    memory.settle()
    pss_before, slab_before = pss_mb(os.getpid()), slab_mb()
    started = time.monotonic()
    for each in read(records):
        put(profiles, each)
    del each  # the last one, with all its rules
    compiled = time.monotonic()
    apply(tables, profiles)
    applied = time.monotonic()
    memory.tidy()
    figures: dict[str, Any] = {
        "compile_ms": round((compiled - started) * MS_PER_S, 1),
        "apply_ms": round((applied - compiled) * MS_PER_S, 1),
        "rulesets": tables.usage()["rulesets"],
        "kernel_tries_mb": round(trie_bytes(kernel) / BYTES_PER_MB, 1),
        "kernel_slab_mb": round(slab_mb() - slab_before, 1),
        "sensor_pss_mb_before": round(pss_before, 1),
        "sensor_pss_mb_more": round(pss_mb(os.getpid()) - pss_before, 1),
    }
    record = next(read(records))
    record["default"]["egress"]["cidrs"].append("203.0.113.7/32")
    started = time.monotonic()
    put(profiles, record | {"generation": 2})
    apply(tables, profiles)
    figures["change_one_ms"] = round((time.monotonic() - started) * MS_PER_S, 1)
    started = time.monotonic()
    successor = PolicyTables(kernel.policy)
    successor.adopt()
    apply(successor, profiles)
    figures["take_over_ms"] = round((time.monotonic() - started) * MS_PER_S, 1)
    figures["take_over_built"] = successor.counters["rulesets_built"]
    return figures


def read(records: Path) -> Iterator[dict[str, Any]]:
    """The records, one in memory at a time."""
    with records.open() as file:
        for line in file:
            yield json.loads(line)


def put(profiles: Profiles, record: dict[str, Any]) -> None:
    """A profile for a pod of its own."""
    compiled = compile_profile(record)
    profiles.put(compiled)
    profiles.select(f"pod-{record['name']}", [compiled.key])


def apply(tables: PolicyTables, profiles: Profiles) -> None:
    """Bring the kernel to the plan."""
    plan = profiles.plan([], time.time_ns(), time.monotonic_ns())
    failed = tables.apply(plan.policies, profiles.rule_sets)
    if failed:
        raise next(iter(failed.values()))


def slab_mb() -> float:
    """The kernel's own small allocations, of which tries are most."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Slab:"):
            return int(line.split()[1]) / 1024
    return 0.0


def trie_bytes(kernel: Kernel) -> int:
    """What the kernel accounts to the tries of all rule sets."""
    total = 0
    for index, _ in kernel.policy.rulesets():
        for kind in layout.KINDS:
            map_id = bpf.map_lookup(kernel._maps[f"{kind}_rules"], U32.pack(index), U32.size)  # noqa: SLF001 - looks into the sensor
            if map_id is not None:
                fd = bpf.map_get_fd_by_id(U32.unpack(map_id)[0])
                lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
                os.close(fd)
                total += sum(int(line.split()[1]) for line in lines if line.startswith("memlock:"))
    return total


if __name__ == "__main__":
    main()
