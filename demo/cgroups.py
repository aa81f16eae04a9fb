# SPDX-License-Identifier: Apache-2.0
"""The demonstration's cgroups, laid out as a kubelet with the cgroupfs driver lays out pods.

``<cgroup v2 mount>/nsp-demo-<run>/kubepods/besteffort/pod<uid>/<container id>``: the sensor is
attached to the run's own subtree, so the machine's other programs are never touched, and reads pod
UID and container id from the path exactly as on a node. Hosts that are not ours (the attacker, the
name server) live in ``nsp-demo-<run>-outside``.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from demo.errors import NotSupportedError

if TYPE_CHECKING:
    from types import TracebackType

EMPTY_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """What identifies a pod and its one container."""

    name: str
    uid: str
    container_id: str


def pod_identity(run_id: int, name: str) -> PodIdentity:
    """Return ids as Kubernetes and containerd would shape them, new for each run."""
    uid = str(uuid.uuid5(uuid.NAMESPACE_URL, f"nsp-demo/{run_id}/{name}"))
    return PodIdentity(name, uid, hashlib.sha256(uid.encode()).hexdigest())


def cgroup_v2_mount() -> Path:
    """Return where the unified hierarchy is mounted (hybrid systems have it elsewhere)."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split()[0] == "cgroup2":
            return Path(fields.split()[4])
    message = "no cgroup v2 hierarchy is mounted (mount -t cgroup2 none /sys/fs/cgroup/unified)"
    raise NotSupportedError(message)


class Cgroups:
    """The run's cgroups; a context manager that removes them again."""

    def __init__(self, run_id: int) -> None:
        """Plan; nothing is made before ``__enter__``."""
        mount = cgroup_v2_mount()
        self.root = mount / f"nsp-demo-{run_id}"
        self.outside = mount / f"nsp-demo-{run_id}-outside"

    def __enter__(self) -> Self:
        """Make the two roots."""
        self.root.mkdir()
        self.outside.mkdir()
        return self

    def add_pod(self, pod: PodIdentity) -> Path:
        """Make the pod's cgroup and return its container's."""
        container = self.root / "kubepods" / "besteffort" / f"pod{pod.uid}" / pod.container_id
        container.mkdir(parents=True)
        return container

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill whatever is left inside and remove the cgroups, deepest first."""
        for root in (self.root, self.outside):
            with contextlib.suppress(OSError):
                (root / "cgroup.kill").write_text("1")
            directories = sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True)
            for directory in [*directories, root]:
                _remove_when_empty(directory)


def _remove_when_empty(directory: Path) -> None:
    deadline = time.monotonic() + EMPTY_TIMEOUT_S
    while True:
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
