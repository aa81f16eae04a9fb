# SPDX-License-Identifier: Apache-2.0
"""What /proc still says of a process the kernel's events did not describe in full.

Input: a ProcessImage record with tgid and start time. Output: the same record with argv, and for an UNKNOWN
one also executable, comm and ids. A pid is only believed when its start time is the record's, read after
everything else: a reused pid would have the other process's. Failure: what is gone stays empty.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# As NSP_ARGV_MAX_BYTES, so that an argv looks the same whoever read it.
ARGV_MAX_BYTES: Final = 1024
# A flood of lost fork events must not turn the drain into a /proc reader: at 100 us each, at most 5 %.
MAX_READS_PER_SECOND: Final = 500
_NS_PER_TICK: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class ProcessFiles:
    """Reader of /proc with a bounded rate.

    Args:
        root: Where it is mounted.
        clock_ns: Monotonic time.
    """

    def __init__(self, root: Path = Path("/proc"), clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.refused = 0
        self._root = root
        self._clock_ns = clock_ns
        self._second = 0
        self._reads = 0

    def complete(self, record: dict[str, Any], *, unlimited: bool = False) -> int:
        """Fill what is empty in a record.

        Returns:
            The parent's tgid as /proc has it, 0 when the process is gone or another.
        """
        if not unlimited and not self._may_read():
            self.refused += 1
            return 0
        directory = self._root / str(record["tgid"])
        try:
            found = self._read(directory, record)
            comm, parent, start_ns = _stat((directory / "stat").read_bytes())
        except (OSError, ValueError, IndexError):
            return 0
        if start_ns // _NS_PER_TICK != record["start_ns"] // _NS_PER_TICK:
            return 0
        if record["origin"] == "UNKNOWN":
            found["comm"] = comm
        record.update(found)
        return parent

    def _read(self, directory: Path, record: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if not record["argv"]:
            with (directory / "cmdline").open("rb") as file:
                data = file.read(ARGV_MAX_BYTES + 1)
            found["argv"] = split_argv(data[:ARGV_MAX_BYTES])
            found["argv_truncated"] = len(data) > ARGV_MAX_BYTES
        if record["origin"] == "UNKNOWN":
            status = _status((directory / "status").read_bytes())
            found["uid"], found["gid"] = status
            try:
                target = os.readlink(directory / "exe")  # noqa: PTH115 - the text, also of a deleted file
            except OSError:
                return found  # a kernel thread, or not ours to look at
            found["deleted"] = target.endswith(" (deleted)")
            found["executable"] = target.removesuffix(" (deleted)")
        return found

    def _may_read(self) -> bool:
        second = self._clock_ns() // 1_000_000_000
        if second != self._second:
            self._second = second
            self._reads = 0
        self._reads += 1
        return self._reads <= MAX_READS_PER_SECOND


def split_argv(data: bytes) -> list[str]:
    """NUL-separated arguments as text; the NUL at the end is no further argument."""
    if not data:
        return []
    return data.removesuffix(b"\0").decode("utf-8", "replace").split("\0")


def _stat(data: bytes) -> tuple[str, int, int]:
    """comm, parent tgid and start time (ns since boot, to the tick) of /proc/PID/stat."""
    opening = data.index(b"(")
    closing = data.rindex(b")")  # comm itself may contain both
    fields = data[closing + 2 :].split()
    comm = data[opening + 1 : closing].decode("utf-8", "replace")
    return comm, int(fields[1]), int(fields[19]) * _NS_PER_TICK


def _status(data: bytes) -> tuple[int, int]:
    """Real uid and gid of /proc/PID/status."""
    ids = {}
    for line in data.split(b"\n"):
        name, _, value = line.partition(b":")
        if name in (b"Uid", b"Gid"):
            ids[name] = int(value.split()[0])
    return ids[b"Uid"], ids[b"Gid"]
