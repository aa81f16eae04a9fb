# SPDX-License-Identifier: Apache-2.0
"""Can this machine run the kernel part, and if not, what is missing and what to do about it?

Asked by ``nsp sensor check``, by the demonstration and by the tests before they touch the kernel. It
changes nothing that stays: it loads one empty program of each sort and drops it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.errors import KernelError
from sensor.kernel.mounts import BPFFS, cgroup2_mount, file_system_of
from sensor.kernel.source import source_directory

if TYPE_CHECKING:
    from collections.abc import Callable

# Older ones lack bpf_sock_from_file and batch reads of hash maps, or were never tried.
MINIMUM_KERNEL: Final = (5, 15)
_BTF: Final = Path("/sys/kernel/btf/vmlinux")
_CAPABILITIES: Final = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
_BCC_TIMEOUT_S: Final = 60.0
# Two instructions: the result is 1, the end.
_EMPTY_PROGRAM: Final = bytes.fromhex("b7000000010000009500000000000000")
_PROBES: Final = (
    bpf.ProgramSpec("nsp_probe_packet", 8),
    bpf.ProgramSpec("nsp_probe_connect", 18, 10),
    bpf.ProgramSpec("nsp_probe_trace", 17),
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that keeps the kernel part from running here.

    Args:
        cause: What is missing or refused.
        cure: What a person can do.
    """

    cause: str
    cure: str


def check_support() -> list[Problem]:
    """Every problem of this machine; empty when the kernel part can run."""
    problems: list[Problem] = []
    for check in (_kernel, _capabilities, _btf, _cgroup2, _bpffs, _sources, _bcc):
        problem = check()
        if problem is not None:
            problems.append(problem)
    # A program load says nothing new where the reason is known already.
    return problems or _refused_programs()


def kernel_version(release: str) -> tuple[int, int]:
    """Major and minor of ``uname -r``; (0, 0) when it is not understood."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def missing_capabilities(status: str) -> list[str]:
    """Which capabilities the process with this /proc/<pid>/status lacks."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    effective = int(match[1], 16) if match else 0
    return [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]


def _kernel() -> Problem | None:
    release = os.uname().release
    if kernel_version(release) >= MINIMUM_KERNEL:
        return None
    needed = ".".join(map(str, MINIMUM_KERNEL))
    return Problem(f"kernel {release} is older than {needed}", "run a newer kernel")


def _capabilities() -> Problem | None:
    missing = missing_capabilities(Path("/proc/self/status").read_text(encoding="ascii"))
    if not missing:
        return None
    return Problem(f"without {', '.join(missing)}", "run as root (in a container: privileged)")


def _btf() -> Problem | None:
    if _BTF.exists():
        return None
    return Problem(f"{_BTF} is missing", "run a kernel built with CONFIG_DEBUG_INFO_BTF=y")


def _cgroup2() -> Problem | None:
    return _problem_of(cgroup2_mount)


def _bpffs() -> Problem | None:
    # The sensor mounts it itself; only the place to mount it on must be there.
    if BPFFS.is_dir() or file_system_of(BPFFS) == "bpf":
        return None
    return Problem(f"{BPFFS} does not exist", "run a kernel built with CONFIG_BPF_SYSCALL=y and mount sysfs")


def _sources() -> Problem | None:
    return _problem_of(source_directory)


def _problem_of(attempt: Callable[[], object]) -> Problem | None:
    try:
        attempt()
    except KernelError as error:
        return Problem(error.message, error.cure)
    return None


def _bcc() -> Problem | None:
    # In a process of its own: importing BCC would bring LLVM into this one.
    command = [sys.executable, "-P", "-c", "import bcc"]
    cure = (
        "install the distribution's python3-bpfcc and run its Python (a virtual environment on it needs "
        "--system-site-packages)"
    )
    try:
        result = subprocess.run(command, capture_output=True, timeout=_BCC_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Problem(f"BCC cannot be imported: {error}", cure)
    if result.returncode == 0:
        return None
    last = result.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return Problem(f"BCC cannot be imported by {sys.executable}: {''.join(last)}", cure)


def _refused_programs() -> list[Problem]:
    for spec in _PROBES:
        try:
            os.close(bpf.prog_load(_EMPTY_PROGRAM, spec))
        except KernelError as error:
            cause = f"the kernel refuses BPF: {error.message.strip()}"
            return [
                Problem(cause, error.cure or "look for seccomp, lockdown or LSM policies that forbid BPF")
            ]
    return []
