# SPDX-License-Identifier: Apache-2.0
"""EXEC and PROCESS_INVENTORY events to ProcessImage records.

Input: the ring record's bytes. Output: a record (see lineage.py) with the parent's key. argv and path come
from whoever runs there: they are text with invalid UTF-8 replaced, and never interpreted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sensor.publish.addresses import AddressText, endpoint
from sensor.publish.layout import (
    EXEC_EVENT,
    PATH_DETACHED,
    PATH_TRUNCATED,
    RING_HEADER_BYTES,
    STDIO_INET,
    STDIO_KINDS,
    reader,
)
from sensor.publish.procfs import split_argv

if TYPE_CHECKING:
    from sensor.publish.lineage import Key, Record

_EXEC: Final = reader(
    EXEC_EVENT, "ktime_ns", "start_ns", "cgroup_id", "tgid", "parent_start_ns", "inode", "parent_tgid", "dev",
    "nlink", "uid", "gid", "mnt_ns", "pid_ns", "net_ns", "argv_total_bytes", "path_bytes", "argv_bytes",
    "stdio_port", "stdio_kind", "path_flags", "stdio_address", "comm",
)  # fmt: skip
_TAIL: Final = RING_HEADER_BYTES + EXEC_EVENT.size_bytes


def read_image(
    data: bytes, offset: int, addresses: AddressText, *, seen_exec: bool
) -> tuple[Record, Key, int]:
    """One program image.

    Args:
        data: Ring bytes.
        offset: Of the ring record.
        addresses: Shared text of addresses.
        seen_exec: An EXEC; otherwise it was there before the sensor.

    Returns:
        The record, the parent process's key and the cgroup id.
    """
    (
        ktime_ns, start_ns, cgroup_id, tgid, parent_start_ns, inode, parent_tgid, device, nlink, uid, gid,
        mnt_ns, pid_ns, net_ns, argv_total_bytes, path_bytes, argv_bytes, stdio_port, stdio, path_flags,
        stdio_address, comm,
    ) = _EXEC.unpack_from(data, offset)  # fmt: skip
    path_end = offset + _TAIL + path_bytes
    record: Record = {
        "tgid": tgid,
        "start_ns": start_ns,
        "image_ns": ktime_ns if seen_exec else start_ns,
        "origin": "EXEC" if seen_exec else "INVENTORY",
        "executable": executable_path(data[offset + _TAIL : path_end], path_flags),
        "inode": inode & 0x7FFF_FFFF_FFFF_FFFF,  # Avro's long is signed
        "device": device,
        "deleted": bool(inode) and not nlink,
        "argv": split_argv(data[path_end : path_end + argv_bytes]),
        "argv_truncated": argv_total_bytes > argv_bytes,
        "comm": comm.partition(b"\0")[0].decode("utf-8", "replace"),
        "uid": uid,
        "gid": gid,
        "mnt_ns": mnt_ns,
        "pid_ns": pid_ns,
        "net_ns": net_ns,
        "stdio": [STDIO_KINDS[kind] if kind < len(STDIO_KINDS) else "OTHER" for kind in stdio],
        "stdio_peer": endpoint(addresses[stdio_address], stdio_port) if STDIO_INET in stdio else None,
    }
    return record, (parent_tgid, parent_start_ns), cgroup_id


def executable_path(components: bytes, flags: int) -> str:
    """The path from its components, leaf first, each ended by NUL.

    A path whose root end is missing (too long, a memfd, a detached mount) does not begin with a slash, so
    that it never equals a rule's absolute path.
    """
    if not components:
        return ""
    names = components.removesuffix(b"\0").split(b"\0")
    names.reverse()
    path = b"/".join(name for name in names if name).decode("utf-8", "replace")
    return path if flags & (PATH_TRUNCATED | PATH_DETACHED) else f"/{path}"
