# SPDX-License-Identifier: Apache-2.0
"""Which network namespace is whose: from the processes of each workload's cgroups, by /proc.

Input: cgroup directories with their workload. Output: :class:`Namespace`, the host's first. Cheap enough to
be asked often: one small file and one link per cgroup. Failure: what ends meanwhile is left out.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sensor.kernel.attach_request import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterable

# The node's first process is in the node's network namespace. Where it may not be looked at, which takes
# CAP_SYS_PTRACE, the sensor's own is meant: it runs in the node's (hostNetwork).
_FIRST_PROCESS: Final = Path("/proc/1/ns/net")
_OWN: Final = Path("/proc/self/ns/net")


def host_namespace() -> Path:
    """A path to open the node's network namespace by."""
    try:
        _FIRST_PROCESS.stat()
    except OSError:
        # Of the process that asks now: the child that opens it is another, in the same namespace.
        return _OWN
    return _FIRST_PROCESS


def namespaces_of(
    cgroups: Iterable[tuple[Path, int]], host: Path, limit: int = 4096
) -> tuple[Namespace, ...]:
    """The host's namespace, then each other one once, with the workload first found in it.

    Args:
        cgroups: cgroup v2 directories, each with its workload's cgroup id.
        host: Of the host's namespace.
        limit: How many: as many as the kernel's table has interfaces.
    """
    own = os.stat(host).st_ino  # noqa: PTH116 - as below, thousands of times
    found = {own: Namespace(own, str(host))}
    for directory, workload_cgroup_id in cgroups:
        pid = _first_pid(directory)
        if pid is None or len(found) >= limit:
            continue
        path = f"/proc/{pid}/ns/net"
        try:
            netns = os.stat(path).st_ino  # noqa: PTH116 - as above
        except OSError:
            continue
        if workload_cgroup_id and netns not in found:
            found[netns] = Namespace(netns, path, workload_cgroup_id)
    return tuple(found.values())


def find_namespace(netns: int) -> str | None:
    """A path to open a namespace by, through any process that is in it; None when nobody is."""
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            path = directory / "ns" / "net"
            try:
                if path.stat().st_ino == netns:
                    return str(path)
            except OSError:
                continue
    return None


def _first_pid(directory: Path) -> int | None:
    try:
        with open(directory / "cgroup.procs", encoding="ascii") as file:  # noqa: PTH123 - cheaper
            first = file.readline().strip()
    except OSError:
        return None
    return int(first) if first else None
