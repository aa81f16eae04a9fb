# SPDX-License-Identifier: Apache-2.0
"""Which DNS servers are believed: those of the node, and those a workload was started with.

Input: resolv.conf files. Output: addresses. Failure: a line that is none is left out; a file that cannot be
read, or that the workload may have written itself, names nobody.

What a listed server answers is learned, so a file a process can write must not list any. A workload's counts
only if the runtime put it there (it is a mount, which cannot be replaced from inside) and nobody changed it
since the workload's first process began: ctime is the kernel's own. An address of the loopback in it is
whoever binds it there, and is not believed; the node's stub is, for the node's own services only.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import stat
import struct
from pathlib import Path
from typing import Final

_NODE_FILE: Final = Path("/etc/resolv.conf")
_FILE_INSIDE: Final = "etc/resolv.conf"
# resolv.conf(5) takes three; a few more are harmless, thousands would be somebody's attempt.
MAX_RESOLVERS: Final = 8
_MAX_BYTES: Final = 64 * 1024

_OPENAT2: Final = 437  # the same number on every architecture
_STATX: Final = {"x86_64": 332, "aarch64": 291}.get(os.uname().machine, 291)
# Nothing outside of the workload's root, whatever its symbolic links say.
_RESOLVE_IN_ROOT: Final = 0x10
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_AT_EMPTY_PATH: Final = 0x1000
_STATX_CTIME: Final = 0x80
_MOUNT_ROOT: Final = 0x2000
_STATX_BYTES: Final = 256
_STATX_ATTRIBUTES: Final = (8, 56)  # offsets of stx_attributes and stx_attributes_mask
_STATX_CTIME_OFFSET: Final = 96
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_NS: Final = 1_000_000_000
# A file's times are those of the last tick: up to 10 ms (HZ=100) before it was changed.
_TICK_NS: Final = 10_000_000


def resolvers_in(text: str) -> tuple[str, ...]:
    """The addresses of a resolv.conf's ``nameserver`` lines, without a zone, in order, each once."""
    found: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":  # noqa: PLR2004 - a keyword and an address
            continue
        try:
            address = str(ipaddress.ip_address(words[1].partition("%")[0]))
        except ValueError:
            continue
        if address not in found:
            found.append(address)
    return tuple(found[:MAX_RESOLVERS])


def node_resolvers(path: Path = _NODE_FILE) -> tuple[str, ...]:
    """Those of the node itself, a stub on the loopback among them."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return resolvers_in(file.read(_MAX_BYTES))
    except OSError:
        return ()


def is_loopback(address: str) -> bool:
    """Whether each network namespace has somebody else there; also the mapped and the unspecified ones."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return parsed.is_loopback or parsed.is_unspecified


def workload_resolvers(pid: int, began_ns: int, proc: Path = Path("/proc")) -> tuple[str, ...]:
    """Those a workload was started with.

    Args:
        pid: Of any of its processes.
        began_ns: When its first process began, wall clock.
        proc: Where processes are.
    """
    with contextlib.ExitStack() as open_files:
        try:
            root = os.open(proc / str(pid) / "root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            open_files.callback(os.close, root)
            file = _open_inside(root, _FILE_INSIDE)
            open_files.callback(os.close, file)
            if not stat.S_ISREG(os.fstat(file).st_mode) or not _is_as_mounted(file, began_ns):
                return ()
            text = os.read(file, _MAX_BYTES).decode("utf-8", "replace")
            # Read first, then looked at again: it may have been written in between.
            if not _is_as_mounted(file, began_ns):
                return ()
        except OSError:
            return ()
    return tuple(address for address in resolvers_in(text) if not is_loopback(address))


def _open_inside(root: int, path: str) -> int:
    """Open for reading, below a root, without waiting for a writer should it be a pipe."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    how = struct.pack("<QQQ", flags, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    descriptor: int = _LIBC.syscall(_OPENAT2, root, path.encode(), how, len(how))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "openat2", path)
    return descriptor


def _is_as_mounted(file: int, began_ns: int) -> bool:
    """Whether it is a mount of its own and was last changed before the workload began."""
    found = ctypes.create_string_buffer(_STATX_BYTES)
    if _LIBC.syscall(_STATX, file, b"", _AT_EMPTY_PATH, _STATX_CTIME, found):
        raise OSError(ctypes.get_errno(), "statx")
    attributes, known = (struct.unpack_from("<Q", found, offset)[0] for offset in _STATX_ATTRIBUTES)
    seconds, nanoseconds = struct.unpack_from("<qI", found, _STATX_CTIME_OFFSET)
    return bool(attributes & known & _MOUNT_ROOT) and seconds * _NS + nanoseconds + _TICK_NS < began_ns
