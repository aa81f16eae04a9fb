# SPDX-License-Identifier: Apache-2.0
"""bpf(2) by system call number: the few commands the sensor needs, typed.

BCC compiles, but cannot load tp_btf and iterator programs, create or update links, or pin them; and the
long-lived process must not import it. So every command goes through here. Objects are file descriptors
(closed on exec by the kernel); a refused command raises with its name and what to do.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from sensor.kernel.errors import BpfCallError, KernelError, ProgramRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

# Other 64-bit architectures use the generic number.
_SYSCALL_NUMBERS: Final = {"x86_64": 321, "aarch64": 280}
# Larger than union bpf_attr of any kernel so far; the kernel accepts a zero tail.
_ATTR_BYTES: Final = 168
# The largest log every supported kernel takes.
_LOG_BYTES: Final = (1 << 24) - 1
_LOG_LINES: Final = 20
_NAME_BYTES: Final = 15
_INSTRUCTION_BYTES: Final = 8
_INFO_BYTES: Final = 256
# Entries a batch asks for at first: small, because the buffer is part of the sensor's memory.
_BATCH_ENTRIES: Final = 256
_BATCH_LIMIT: Final = 1 << 16


class _Command(IntEnum):
    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    RAW_TRACEPOINT_OPEN = 17
    BTF_LOAD = 18
    MAP_LOOKUP_AND_DELETE_ELEM = 21
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    LINK_CREATE = 28
    LINK_UPDATE = 29
    ITER_CREATE = 33
    LINK_DETACH = 34


class UpdateFlag(IntEnum):
    """How an update treats an entry that is, or is not, there."""

    ANY = 0
    NO_EXIST = 1
    EXIST = 2


@dataclass(frozen=True, slots=True)
class MapInfo:
    """What the kernel says of a map."""

    type: int
    map_id: int
    key_bytes: int
    value_bytes: int
    max_entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """What the kernel says of a link.

    Attributes:
        type: ``enum bpf_link_type``.
        link_id: Its id.
        program_id: Of the program it runs now.
        cgroup_id: 0 for other links, and when the cgroup is gone.
        ifindex: Of a TCX link; 0 for other links, and when the interface is gone.
    """

    type: int
    link_id: int
    program_id: int
    cgroup_id: int
    ifindex: int


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """How to load one program."""

    name: str
    type: int
    expected_attach_type: int = 0
    attach_btf_id: int = 0


_LIBC = ctypes.CDLL(None, use_errno=True)
_NUMBER: Final = _SYSCALL_NUMBERS.get(os.uname().machine, 280)
_CGROUP_LINK: Final = 3
_TCX_LINK: Final = 11
_BEFORE: Final = 1 << 3  # BPF_F_BEFORE, relative to nothing: first of all

_Buffer = ctypes.Array[ctypes.c_char]


def _address(buffer: _Buffer | None) -> int:
    return 0 if buffer is None else ctypes.addressof(buffer)


def _copy(data: bytes) -> _Buffer:
    return ctypes.create_string_buffer(data, len(data))


def _attr(layout: str, *values: int | bytes) -> _Buffer:
    return ctypes.create_string_buffer(struct.pack(layout, *values), _ATTR_BYTES)


def _try(command: _Command, attr: _Buffer) -> int:
    """Run a command; the result, or the negative errno."""
    result: int = _LIBC.syscall(_NUMBER, int(command), attr, _ATTR_BYTES)
    return result if result >= 0 else -ctypes.get_errno()


def _call(command: _Command, attr: _Buffer, subject: str = "") -> int:
    result = _try(command, attr)
    if result < 0:
        raise BpfCallError(command.name, subject, -result)
    return result


def prog_load(instructions: bytes, spec: ProgramSpec) -> int:
    """Load a program and return its descriptor.

    The verifier's log costs time and memory, so it is asked for only when the load failed.

    Raises:
        ProgramRefused: With the last lines of the verifier's log.
    """
    result = _try_load(instructions, spec, None)
    if result >= 0:
        return result
    log = ctypes.create_string_buffer(_LOG_BYTES)
    again = _try_load(instructions, spec, log)
    if again >= 0:
        return again
    lines = log.value.decode(errors="replace").splitlines()
    raise ProgramRefused(spec.name, -result, "\n".join(lines[-_LOG_LINES:]))


def _try_load(instructions: bytes, spec: ProgramSpec, log: _Buffer | None) -> int:
    code, licence = _copy(instructions), _copy(b"GPL\0")
    attr = _attr(
        "<IIQQIIQII16sIIIIQIIQIII",
        spec.type,
        len(instructions) // _INSTRUCTION_BYTES,
        _address(code),
        _address(licence),
        *(0 if log is None else 1, 0 if log is None else len(log), _address(log)),
        *(0, 0),
        spec.name.encode()[:_NAME_BYTES],
        *(0, spec.expected_attach_type),
        *(0, 0, 0, 0, 0, 0, 0),
        spec.attach_btf_id,
        0,
    )
    return _try(_Command.PROG_LOAD, attr)


@dataclass(frozen=True, slots=True)
class MapTypes:
    """BTF of a map's key and value; the caller closes the descriptor when the map is there."""

    fd: int
    key_id: int
    value_id: int


def storage_types(value_bytes: int) -> MapTypes:
    """Types for a socket storage, which the kernel does not make without: an int, and that many bytes."""
    names = b"\0int\0byte\0"
    integer = struct.pack("<IIII", 1, 1 << 24, 4, 1 << 24 | 32)  # BTF_KIND_INT, signed, 32 bits
    byte = struct.pack("<IIII", 5, 1 << 24, 1, 8)
    array = struct.pack("<IIIIII", 0, 3 << 24, 0, 2, 1, value_bytes)  # BTF_KIND_ARRAY of byte by int
    types = integer + byte + array
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names))
    blob = _copy(header + types + names)
    fd = _call(_Command.BTF_LOAD, _attr("<QQIII", _address(blob), 0, len(blob), 0, 0), "map types")
    return MapTypes(fd, key_id=1, value_id=3)


def map_create(  # noqa: PLR0913 - these are what a map is
    name: str,
    map_type: int,
    key_bytes: int,
    value_bytes: int,
    max_entries: int,
    flags: int = 0,
    *,
    inner_fd: int = 0,
    types: MapTypes | None = None,
) -> int:
    """Create a map and return its descriptor; ``inner_fd`` is a map whose shape the maps in it have."""
    sizes = (map_type, key_bytes, value_bytes, max_entries, flags, inner_fd, 0)
    btf = (0, 0, 0) if types is None else (types.fd, types.key_id, types.value_id)
    attr = _attr("<IIIIIII16sIIII", *sizes, name.encode()[:_NAME_BYTES], 0, *btf)
    return _call(_Command.MAP_CREATE, attr, name)


def map_lookup(fd: int, key: bytes, value_bytes: int) -> bytes | None:
    """The value of a key, or None. For per-CPU maps, value_bytes covers all possible CPUs."""
    key_buffer, value = _copy(key), ctypes.create_string_buffer(value_bytes)
    attr = _attr("<I4xQQQ", fd, _address(key_buffer), _address(value), 0)
    result = _try(_Command.MAP_LOOKUP_ELEM, attr)
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise BpfCallError(_Command.MAP_LOOKUP_ELEM.name, "", -result)
    return value.raw


def map_update(fd: int, key: bytes, value: bytes, flag: UpdateFlag = UpdateFlag.ANY) -> bool:
    """Write an entry; False when flag forbids it (the key is there, or is not)."""
    key_buffer, value_buffer = _copy(key), _copy(value)
    attr = _attr("<I4xQQQ", fd, _address(key_buffer), _address(value_buffer), flag)
    result = _try(_Command.MAP_UPDATE_ELEM, attr)
    forbidden = {UpdateFlag.NO_EXIST: -errno.EEXIST, UpdateFlag.EXIST: -errno.ENOENT}.get(flag)
    if result < 0 and result != forbidden:
        raise BpfCallError(_Command.MAP_UPDATE_ELEM.name, "", -result)
    return result >= 0


def map_delete(fd: int, key: bytes) -> bool:
    """Remove an entry; False when there was none."""
    key_buffer = _copy(key)
    result = _try(_Command.MAP_DELETE_ELEM, _attr("<I4xQQQ", fd, _address(key_buffer), 0, 0))
    if result < 0 and result != -errno.ENOENT:
        raise BpfCallError(_Command.MAP_DELETE_ELEM.name, "", -result)
    return result >= 0


def map_update_batch(fd: int, keys: bytes, values: bytes, entries: int) -> None:
    """Write many entries, in order; on an error those before it are written.

    For a map of maps this waits once for the programs that still see the old ones, 10 ms; for each
    single update it would do so again.
    """
    keys_buffer, values_buffer = _copy(keys), _copy(values)
    attr = _attr("<QQQQIIQQ", 0, 0, _address(keys_buffer), _address(values_buffer), entries, fd, 0, 0)
    _call(_Command.MAP_UPDATE_BATCH, attr)


def map_take(fd: int, key: bytes, value_bytes: int) -> bytes | None:
    """Remove an entry of a hash and return its last value, in one step; None when there was none."""
    key_buffer, value = _copy(key), ctypes.create_string_buffer(value_bytes)
    attr = _attr("<I4xQQQ", fd, _address(key_buffer), _address(value), 0)
    result = _try(_Command.MAP_LOOKUP_AND_DELETE_ELEM, attr)
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise BpfCallError(_Command.MAP_LOOKUP_AND_DELETE_ELEM.name, "", -result)
    return value.raw


def map_items(fd: int, info: MapInfo) -> Iterator[tuple[bytes, bytes]]:
    """All entries of a hash map or a trie, in batches.

    Entries that come and go meanwhile may or may not be seen; an entry that stays is seen once.
    """
    # The kernel writes the number of a hash's bucket, or the last key of a trie.
    position = ctypes.create_string_buffer(max(8, info.key_bytes))
    started, entries, done = False, _BATCH_ENTRIES, False
    while not done:
        keys = ctypes.create_string_buffer(entries * info.key_bytes)
        values = ctypes.create_string_buffer(entries * info.value_bytes)
        attr = _attr(
            "<QQQQIIQQ",
            _address(position) if started else 0,
            _address(position),
            _address(keys),
            _address(values),
            *(entries, fd, 0, 0),
        )
        result = _try(_Command.MAP_LOOKUP_BATCH, attr)
        if result == -errno.ENOSPC and entries < _BATCH_LIMIT:
            entries *= 2  # one bucket holds more than was asked for
            continue
        if result < 0 and result != -errno.ENOENT:
            raise BpfCallError(_Command.MAP_LOOKUP_BATCH.name, "", -result)
        started, done = True, result < 0
        (count,) = struct.unpack_from("<I", attr.raw, 32)
        all_keys, all_values = keys.raw, values.raw
        for at in range(count):
            yield (
                all_keys[at * info.key_bytes : (at + 1) * info.key_bytes],
                all_values[at * info.value_bytes : (at + 1) * info.value_bytes],
            )


def map_keys(fd: int, info: MapInfo) -> list[bytes]:
    """All keys of a trie, one by one: batches are for hash maps.

    A key that is deleted meanwhile begins the walk anew, so a key may come twice; it ends in any case.
    """
    found: list[bytes] = []
    following = ctypes.create_string_buffer(info.key_bytes)
    at = 0
    while len(found) <= info.max_entries:
        attr = _attr("<IIQQ", fd, 0, at, _address(following))
        result = _try(_Command.MAP_GET_NEXT_KEY, attr)
        if result == -errno.ENOENT:
            break
        if result < 0:
            raise BpfCallError(_Command.MAP_GET_NEXT_KEY.name, "", -result)
        current = ctypes.create_string_buffer(following.raw, info.key_bytes)
        found.append(current.raw)
        at = _address(current)
    return found


def map_get_fd_by_id(map_id: int) -> int:
    """Open a map by its id, which is what an array of maps answers with; needs CAP_SYS_ADMIN."""
    return _call(_Command.MAP_GET_FD_BY_ID, _attr("<III", map_id, 0, 0))


def obj_pin(fd: int, path: str) -> None:
    """Give a map, program or link a name on bpffs, so that it outlives this process."""
    name = _copy(path.encode() + b"\0")
    _call(_Command.OBJ_PIN, _attr("<QII", _address(name), fd, 0), path)


def obj_get(path: str) -> int:
    """Open what is pinned at a path."""
    name = _copy(path.encode() + b"\0")
    return _call(_Command.OBJ_GET, _attr("<QII", _address(name), 0, 0), path)


def link_create(program_fd: int, target_fd: int, attach_type: int, subject: str = "") -> int:
    """Attach a program to a cgroup (beside others), or make an iterator's link (target_fd 0)."""
    return _call(_Command.LINK_CREATE, _attr("<IIII", program_fd, target_fd, attach_type, 0), subject)


def link_create_first(program_fd: int, ifindex: int, attach_type: int, subject: str = "") -> int:
    """Attach a program to an interface of this thread's network namespace (TCX), in front of others."""
    attr = _attr("<IIIIII", program_fd, ifindex, attach_type, _BEFORE, 0, 0)
    return _call(_Command.LINK_CREATE, attr, subject)


def link_update(link_fd: int, program_fd: int, subject: str = "") -> None:
    """Swap a link's program in one step: no packet meets neither."""
    _call(_Command.LINK_UPDATE, _attr("<IIII", link_fd, program_fd, 0, 0), subject)


def link_detach(link_fd: int, subject: str = "") -> None:
    """Detach a cgroup or TCX link at once, whoever else holds it."""
    _call(_Command.LINK_DETACH, _attr("<I", link_fd), subject)


def raw_tracepoint_open(program_fd: int, tracepoint: str | None) -> int:
    """Attach to a raw tracepoint; None for tp_btf programs, which name theirs at load."""
    name = None if tracepoint is None else _copy(tracepoint.encode() + b"\0")
    attr = _attr("<QI4xQ", _address(name), program_fd, 0)
    return _call(_Command.RAW_TRACEPOINT_OPEN, attr, tracepoint or "tp_btf")


def iter_create(link_fd: int) -> int:
    """A descriptor that runs the iterator once when read to the end."""
    return _call(_Command.ITER_CREATE, _attr("<II", link_fd, 0))


def map_info(fd: int) -> MapInfo:
    """Type, sizes and flags of a map."""
    return MapInfo(*struct.unpack_from("<IIIIII", _info(fd)))


def link_info(fd: int) -> LinkInfo:
    """Type and ids of a link."""
    raw = _info(fd)
    link_type, link_id, program_id = struct.unpack_from("<III", raw)
    (cgroup_id,) = struct.unpack_from("<Q", raw, 16) if link_type == _CGROUP_LINK else (0,)
    (ifindex,) = struct.unpack_from("<I", raw, 16) if link_type == _TCX_LINK else (0,)
    return LinkInfo(link_type, link_id, program_id, cgroup_id, ifindex)


def program_id(fd: int) -> int:
    """The id of a loaded program."""
    return int(struct.unpack_from("<II", _info(fd))[1])


def _info(fd: int) -> bytes:
    info = ctypes.create_string_buffer(_INFO_BYTES)
    _call(_Command.OBJ_GET_INFO_BY_FD, _attr("<IIQ", fd, _INFO_BYTES, _address(info)))
    return info.raw


def possible_cpus() -> int:
    """How many values a per-CPU map entry has, which is not how many CPUs are online.

    Raises:
        KernelError: The kernel's list cannot be understood.
    """
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:  # noqa: PTH123 - no pathlib needed
        text = file.read().strip()
    try:
        return 1 + int(text.replace(",", "-").rsplit("-", 1)[-1])
    except ValueError as error:
        raise KernelError(f"list of possible CPUs not understood: {text!r}") from error
