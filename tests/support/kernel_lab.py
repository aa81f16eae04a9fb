# SPDX-License-Identifier: Apache-2.0
"""A cgroup and a pin directory of a test's own, and the ring's records taken apart.

Programs attach machine-wide to tracepoints, but cgroup hooks only below the test's cgroup, so that a test
that goes wrong cuts nobody else off.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sensor.kernel.mounts import BPFFS, cgroup2_mount
from sensor.kernel.pins import remove_all
from sensor.kernel.ring import DISCARD_BIT, HEADER_BYTES, LENGTH_MASK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sensor.kernel import RingChunk

ROOT: Final = Path(__file__).resolve().parents[2]
_EVENT_HEADER: Final = struct.Struct("<QQQQIIHHHH")
_EMPTY_WAIT_S: Final = 10.0
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class RawEvent:
    """All bytes of one event, and its header taken apart."""

    data: bytes
    ktime_ns: int
    start_ns: int
    cgroup_id: int
    seq: int
    tgid: int
    tid: int
    type: int
    size: int
    cpu: int
    flags: int


def events_of(chunk: RingChunk) -> Iterator[RawEvent]:
    """The events of a chunk in ring order, discarded records left out."""
    at = 0
    while at < len(chunk.data):
        (length,) = struct.unpack_from("<I", chunk.data, at)
        bare = length & LENGTH_MASK
        if not length & DISCARD_BIT:
            data = chunk.data[at + HEADER_BYTES : at + HEADER_BYTES + bare]
            yield RawEvent(data, *_EVENT_HEADER.unpack_from(data))
        at += HEADER_BYTES + bare + 7 & ~7


@dataclass(frozen=True, slots=True)
class Cgroup:
    """A cgroup v2 directory to run processes in."""

    path: Path

    @property
    def id(self) -> int:
        """As the kernel programs see it."""
        return self.path.stat().st_ino

    def command(self, *arguments: str) -> list[str]:
        """A command line that enters the cgroup and then becomes the given one."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.path / "cgroup.procs"), *arguments]

    def python(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        """Start Python code inside, with pipes to it."""
        return subprocess.Popen(
            self.command(sys.executable, "-c", code, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> None:
        """Run a command inside to its end; it must succeed."""
        subprocess.run(self.command(*arguments), check=True)

    def remove(self) -> None:
        """Kill what is inside and remove the cgroup with those below it."""
        for path in sorted(self.path.rglob("*/"), reverse=True):
            Cgroup(path).remove()
        deadline = time.monotonic() + _EMPTY_WAIT_S
        while self.path.exists():
            for pid in (self.path / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            try:
                self.path.rmdir()
            except OSError:  # a killed process is still on its way out
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


def make_cgroup() -> Cgroup:
    """A new cgroup below the v2 root."""
    path = cgroup2_mount() / f"nsp-test-{os.getpid()}-{next(_numbers)}"
    path.mkdir()
    return Cgroup(path)


def make_pin_directory() -> Path:
    """A path on bpffs that nobody uses."""
    return BPFFS / f"nsp-test-{os.getpid()}-{next(_numbers)}"


def remove_leftovers() -> None:
    """Remove what test runs left that were killed and are gone: their programs slow the machine down."""
    for path in (*BPFFS.glob("nsp-test-*"), *cgroup2_mount().glob("nsp-test-*")):
        if not Path("/proc", path.name.split("-")[2]).exists():
            if path.is_relative_to(BPFFS):
                remove_all(path)
            else:
                Cgroup(path).remove()


def remove_pins(directory: Path) -> None:
    """Unload whatever a test left, without asking for the lock it may still hold."""
    remove_all(directory)


def start_python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start Python code outside, importing from this checkout, with pipes to it."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
