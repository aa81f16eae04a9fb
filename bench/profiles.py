# SPDX-License-Identifier: Apache-2.0
"""How long profiles take into the kernel, and what they cost: many workloads, and one with many rules.

A process that holds what the sensor holds, without Kafka (bench/profile_load.py), applies them to maps of its
own. ``change_one_ms`` is a change of one rule of one profile; ``take_over_ms`` is a new sensor that finds
everything in the kernel. ``kernel_slab_mb`` is what the whole kernel's slab grew by, which on a busy machine
is not these maps alone; ``kernel_tries_mb`` what it accounts to the tries.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import scene
from bench.errors import BenchError
from sensor.kernel.mounts import BPFFS
from sensor.kernel.pins import remove_all

if TYPE_CHECKING:
    from collections.abc import Iterable

WORKLOADS, RULES_EACH, MANY = 1_000, 100, 100_000


def run() -> dict[str, Any]:
    """Measure and return the figures of each load."""
    return {
        "workloads_1000_with_100_rules": _measure(_workload(number) for number in range(WORKLOADS)),
        "one_workload_100000_names": _measure([_profile("names", names=_names(MANY))]),
        "one_workload_100000_cidrs": _measure([_profile("cidrs", cidrs=_cidrs(MANY))]),
    }


def _measure(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    pins = BPFFS / f"nsp-bench-profiles-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="nsp-bench-") as directory, scene.Cgroup("profiles") as cgroup:
        file = Path(directory) / "records"
        with file.open("w") as lines:
            lines.writelines(json.dumps(record) + "\n" for record in records)
        command = [sys.executable, "-m", "bench.profile_load", str(pins), str(cgroup.path), str(file)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        finally:
            remove_all(pins)
    if done.returncode:
        raise BenchError(f"profiles could not be applied: {done.stderr}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def _workload(number: int) -> dict[str, Any]:
    names = [f"host{each}.team{number}.example.com" for each in range(RULES_EACH // 2)]
    cidrs = [f"10.{number >> 8}.{number & 255}.{each}/32" for each in range(RULES_EACH // 2)]
    return _profile(f"w{number}", names, cidrs)


def _names(count: int) -> list[str]:
    return [f"service-{each:06}.zone{each % 97}.example.com" for each in range(count)]


def _cidrs(count: int) -> list[str]:
    return [f"{10 + (each >> 16)}.{each >> 8 & 255}.{each & 255}.0/24" for each in range(count)]


def _profile(name: str, names: Iterable[str] = (), cidrs: Iterable[str] = ()) -> dict[str, Any]:
    ports = [{"protocol": 6, "first": 443, "last": 443}]
    l4 = {"protocols": [], "ports": ports, "icmp": []}
    egress = {"names": list(names), "cidrs": list(cidrs), "l3": None, "l4": l4, "l7": None}
    return {
        "namespace": "bench",
        "name": name,
        "generation": 1,
        "scope": "POD",
        "services": [],
        "mode": "ENFORCE",
        "trace_dns": False,
        "dry_run": False,
        "arp_spoofing": False,
        "expires_at_ns": 0,
        "resolvers": [],
        "default": {"raw_sockets": False, "egress": egress, "ingress": None},
        "processes": [],
    }
