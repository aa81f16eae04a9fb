# SPDX-License-Identifier: Apache-2.0
"""The pin directory: ``<directory>/v<layout>/{maps,links,programs,interfaces}`` and the lock on it.

What is pinned lives on when every process of the sensor is gone; that is how enforcement survives one.
The layout version is in the path, so a sensor never takes maps of another layout for its own. bpffs
reserves dots in names, so there are none.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.errors import BpfCallError, KernelError, PinsIncompatible, PinsInUse
from sensor.kernel.interface_pins import HookPin
from sensor.kernel.state import LAYOUT_VERSION

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

# A killed sensor's loader may still be at work; it ends within this time, or something hangs.
LOCK_WAIT_S: Final = 15.0
_LOCK_RETRY_S: Final = 0.05
_KINDS: Final = ("interfaces", "links", "programs", "maps")  # in the order in which they can be removed


@dataclass(frozen=True, slots=True)
class Pins:
    """Paths of one layout version below a pin directory."""

    directory: Path
    version: int = LAYOUT_VERSION

    @property
    def base(self) -> Path:
        """Where this version's pins are."""
        return self.directory / f"v{self.version}"

    def path(self, kind: str, name: str) -> Path:
        """The path of one pin."""
        return self.base / kind / name

    def names(self, kind: str) -> set[str]:
        """What is pinned of one kind."""
        try:
            return {path.name for path in (self.base / kind).iterdir()}
        except FileNotFoundError:
            return set()

    def create(self, undo: ExitStack) -> None:
        """Make the directories; those made now are removed by undo."""
        for path in (self.base, *(self.base / kind for kind in _KINDS)):
            try:
                path.mkdir(mode=0o700)
            except FileExistsError:
                continue
            undo.callback(path.rmdir)

    def pin(self, fd: int, kind: str, name: str, undo: ExitStack) -> None:
        """Pin one object; undo removes the pin."""
        path = self.path(kind, name)
        bpf.obj_pin(fd, str(path))
        undo.callback(path.unlink, missing_ok=True)

    def get(self, kind: str, name: str) -> int | None:
        """Open one pin, or None."""
        try:
            return bpf.obj_get(str(self.path(kind, name)))
        except BpfCallError as error:
            if error.errno == errno.ENOENT:
                return None
            raise

    def replace(self, fd: int, kind: str, name: str) -> None:
        """Pin one object in another's place, in one step."""
        beside = self.path(kind, f"{name}-next-{os.getpid()}")
        bpf.obj_pin(fd, str(beside))
        beside.rename(self.path(kind, name))

    def remove_others(self, kind: str, keep: set[str]) -> None:
        """Remove pins of one kind that an earlier sensor left and this one does not have."""
        for name in self.names(kind) - keep:
            _remove(self.path(kind, name), kind)

    def remove(self, kind: str, name: str) -> None:
        """Remove one pin; what it holds attached is detached."""
        _remove(self.path(kind, name), kind)

    def refuse_other_versions(self) -> None:
        """Refuse to work beside pins of another layout.

        Raises:
            PinsIncompatible: There are some.
        """
        others = sorted(path.name for path in self.directory.iterdir() if path != self.base)
        if others:
            message = (
                f"{self.directory} has pins of layout {', '.join(others)}; this sensor has {self.base.name}"
            )
            raise PinsIncompatible(message)


def lock(directory: Path, wait_s: float = LOCK_WAIT_S) -> int:
    """Lock a pin directory until the returned descriptor, and all its copies, are closed.

    The kernel gives the lock back when a process dies, so there are no stale ones.

    Raises:
        PinsInUse: Another sensor keeps it for longer than wait_s.
        KernelError: The directory cannot be made.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise KernelError(f"{directory}: {error.strerror}", "the sensor needs root and bpffs") from error
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(fd)
                raise PinsInUse(f"another sensor works with {directory}", "stop it first") from None
            time.sleep(_LOCK_RETRY_S)
        else:
            return fd


def remove_all(directory: Path) -> None:
    """Detach every program and remove every pin, of all layout versions, and the directory."""
    if not directory.is_dir():
        return
    for entry in sorted(directory.iterdir()):
        for kind in _KINDS:
            folder = entry / kind
            for pin in sorted(folder.iterdir()) if folder.is_dir() else ():
                _remove(pin, kind)
            if folder.is_dir():
                folder.rmdir()
        entry.rmdir()
    directory.rmdir()


def is_filter(name: str) -> bool:
    """Whether a pin of kind interfaces only marks a classifier, which somebody else must remove."""
    pin = HookPin.parse(name)
    return pin is None or pin.is_filter


def _remove(path: Path, kind: str) -> None:
    if kind == "links" or (kind == "interfaces" and not is_filter(path.name)):
        _detach(str(path))
    path.unlink(missing_ok=True)


def _detach(path: str) -> None:
    """Detach a link now: dropping its last reference would do so at some later time."""
    try:
        fd = bpf.obj_get(path)
    except BpfCallError as error:
        if error.errno == errno.ENOENT:
            return  # somebody else removed it: a child that was still at work
        raise
    try:
        info = bpf.link_info(fd)
        if info.cgroup_id or info.ifindex:
            bpf.link_detach(fd, path)
    finally:
        os.close(fd)
