# SPDX-License-Identifier: Apache-2.0
"""Where this node has bpffs and the cgroup v2 hierarchy, read from /proc/self/mountinfo.

Neither place is assumed: hybrid hosts have v2 under /sys/fs/cgroup/unified, containers often lack bpffs.
"""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sensor.kernel.errors import KernelError

BPFFS: Final = Path("/sys/fs/bpf")
_MOUNTINFO: Final = Path("/proc/self/mountinfo")
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo: where, of what type, and which directory of that file system is seen there."""

    point: Path
    type: str
    root: str


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 8))


def parse_mountinfo(mountinfo: str) -> list[Mount]:
    """The mounts in mountinfo's text, in its order (later ones lie over earlier ones)."""
    mounts = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        root, point = (_ESCAPE.sub(_unescaped, text) for text in before.split()[3:5])
        mounts.append(Mount(Path(point), after.split()[0], root))
    return mounts


def current_mounts() -> list[Mount]:
    """The mounts this process sees."""
    return parse_mountinfo(_MOUNTINFO.read_text(encoding="utf-8"))


def cgroup2_mount(mounts: list[Mount] | None = None) -> Path:
    """The root of the cgroup v2 hierarchy.

    Raises:
        KernelError: It is mounted nowhere.
    """
    found = [mount for mount in mounts or current_mounts() if mount.type == "cgroup2"]
    if not found:
        cure = "mount it: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified"
        raise KernelError("no cgroup v2 hierarchy is mounted", cure)
    # A host may have bind mounts of parts of it, and of the whole elsewhere.
    return min(found, key=lambda mount: (mount.root != "/", len(mount.point.parts))).point


def file_system_of(path: Path, mounts: list[Mount] | None = None) -> str:
    """The type of the file system a path is, or would be, on."""
    over = [mount for mount in mounts or current_mounts() if path.is_relative_to(mount.point)]
    # On equal length the later mount covers the earlier one.
    return max(enumerate(over), key=lambda item: (len(item[1].point.parts), item[0]))[1].type


def ensure_bpffs(path: Path) -> None:
    """Make sure a pin directory is on bpffs; mount it at /sys/fs/bpf when it is missing there.

    Raises:
        KernelError: The path is on something else, or mounting failed.
    """
    if file_system_of(path) == "bpf":
        return
    if not path.is_relative_to(BPFFS):
        raise KernelError(f"{path} is not on bpffs", f"choose a pin directory under {BPFFS}")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bpf", os.fsencode(BPFFS), b"bpf", 0, None) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise KernelError(f"cannot mount bpffs: {reason}", f"mount -t bpf bpf {BPFFS}")
