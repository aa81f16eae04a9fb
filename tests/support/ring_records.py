# SPDX-License-Identifier: Apache-2.0
"""Ring records as the kernel programs would write them, for tests without a kernel."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensor.kernel.ring import RingChunk
from sensor.kernel.state import ProcessValue, SensorState
from sensor.publish import layout
from sensor.publish.procfs import ProcessFiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sensor.publish.layout import Layout

LAYOUT_OF = {
    layout.EXEC: layout.EXEC_EVENT,
    layout.PROCESS_INVENTORY: layout.EXEC_EVENT,
    layout.FORK: layout.FORK_EVENT,
    layout.EXIT: layout.EXIT_EVENT,
    layout.CLOSE: layout.CLOSE_EVENT,
    layout.DNS_QUESTION: layout.DNS_EVENT,
    layout.DNS_ANSWER: layout.DNS_EVENT,
    layout.ARP: layout.ARP_EVENT,
    layout.HTTP_REQUEST: layout.HTTP_EVENT,
    layout.TLS_HELLO: layout.TLS_EVENT,
    layout.CGROUP_MKDIR: layout.CGROUP_EVENT,
    layout.CGROUP_RMDIR: layout.CGROUP_EVENT,
    layout.CGROUP_ATTACH: layout.CGROUP_EVENT,
}


def mapped(text: str) -> bytes:
    """An address as the kernel writes it."""
    if ":" in text:
        return socket.inet_pton(socket.AF_INET6, text)
    return bytes(10) + b"\xff\xff" + socket.inet_pton(socket.AF_INET, text)


def pack(of: Layout, tail: bytes = b"", **values: Any) -> bytes:
    """The bytes of a struct; fields not given are zero."""
    given = {"size": of.size_bytes + len(tail), **values}
    unknown = given.keys() - of.offsets.keys()
    if unknown and unknown != {"size"}:
        raise KeyError(f"{of.c_name} has no {sorted(unknown)}")
    code = "<" + "".join(code for _, code in of.fields)
    return struct.pack(code, *(given.get(name, b"" if "s" in code else 0) for name, code in of.fields)) + tail


def record(kind: int, tail: bytes = b"", /, *, ring_flags: int = 0, **values: Any) -> bytes:
    """One ring record; addresses may be text."""
    for name in ("local_address", "remote_address", "stdio_address", "sender_address", "target_address"):
        if isinstance(values.get(name), str):
            values[name] = mapped(values[name])
    body = pack(LAYOUT_OF.get(kind, layout.FLOW_EVENT), tail, type=kind, **values)
    return struct.pack("<II", len(body) | ring_flags, 0) + body + bytes(-len(body) % 8)


def exec_record(path: str, argv: list[str], *, kind: int = layout.EXEC, **values: Any) -> bytes:
    """An EXEC or PROCESS_INVENTORY record."""
    components = b"".join(part.encode() + b"\0" for part in reversed(path.split("/")) if part)
    arguments = b"".join(each.encode() + b"\0" for each in argv)
    return record(
        kind,
        components + arguments,
        **{
            "path_bytes": len(components),
            "argv_bytes": len(arguments),
            "argv_total_bytes": len(arguments),
            "inode": sum(path.encode()) or 1,
            "dev": 1,
            "nlink": 1,
            **values,
        },
    )


def dns_message(
    name: bytes, kind: int = 1, answers: bytes = b"", count: int = 0, flags: int = 0x8180
) -> bytes:
    """A DNS message with one question; ``name`` in wire form."""
    return struct.pack(">6H", 7, flags, 1, count, 0, 0) + name + struct.pack(">2H", kind, 1) + answers


def wire_name(text: str) -> bytes:
    """A name in wire form, without compression."""
    return b"".join(bytes([len(part)]) + part.encode() for part in text.split(".") if part) + b"\0"


def numbered(*records: bytes, cpu: int = 0, first: int = 0) -> bytes:
    """Records with running sequence numbers of one CPU."""
    out = bytearray()
    at_seq = layout.RING_HEADER_BYTES + layout.HEADER.offsets["seq"]
    at_cpu = layout.RING_HEADER_BYTES + layout.HEADER.offsets["cpu"]
    for number, each in enumerate(records, start=first):
        data = bytearray(each)
        struct.pack_into("<Q", data, at_seq, number)
        struct.pack_into("<H", data, at_cpu, cpu)
        out += data
    return bytes(out)


class FakeRing:
    """A ring in memory with the same rules: reading and releasing are apart."""

    def __init__(self, size_bytes: int = 1 << 20) -> None:
        self.size_bytes = size_bytes
        self.data = b""
        self.first = 0  # ring position of data[0]
        self.position = 0
        self.released = 0

    def write(self, data: bytes) -> None:
        """Add committed records."""
        self.data += data

    @property
    def unread_bytes(self) -> int:
        return self.first + len(self.data) - self.position

    @property
    def held_bytes(self) -> int:
        return self.position - self.released

    def read(self, limit_bytes: int) -> RingChunk | None:
        start = self.position
        end = start
        while end - self.first < len(self.data):
            length = struct.unpack_from("<I", self.data, end - self.first)[0] & ~layout.RING_DISCARDED
            following = end + 8 + (length + 7 & ~7)
            if following - start > limit_bytes and end > start:
                break
            end = following
        if end == start:
            return None
        self.position = end
        return RingChunk(self.data[start - self.first : end - self.first], start, end)

    def wait(self, timeout_s: float) -> bool:
        return timeout_s < 0

    def release(self, position: int) -> None:
        assert position <= self.position
        self.released = max(self.released, position)

    def reopened(self) -> FakeRing:
        """What the next sensor finds."""
        ring = FakeRing(self.size_bytes)
        ring.data, ring.first = self.data, self.first
        ring.position = ring.released = self.released
        return ring


@dataclass
class FakeState:
    """The pinned maps."""

    state: SensorState = field(default_factory=lambda: SensorState(0, 0))
    known: dict[int, ProcessValue] = field(default_factory=dict)
    noted: list[tuple[int, int]] = field(default_factory=list)

    def sensor_state(self) -> SensorState:
        return self.state

    def set_sensor_state(self, batch_sequence: int, ring_position: int) -> None:
        self.state = SensorState(batch_sequence, ring_position)
        self.noted.append((batch_sequence, ring_position))

    def processes(self) -> Iterator[tuple[int, ProcessValue]]:
        return iter(self.known.items())


class FakeKernel:
    """The kernel side as publishing sees it."""

    def __init__(self, ring: FakeRing | None = None, state: FakeState | None = None) -> None:
        self.ring = ring or FakeRing()
        self.state = state or FakeState()
        self.inventory_parts: list[bytes] = []
        self.lost: dict[str, int] = {}

    def inventory(self) -> Iterator[None]:
        for part in self.inventory_parts:
            self.ring.write(part)
            yield

    def counters(self) -> Mapping[str, int]:
        return self.lost

    def sequences(self) -> list[int]:
        return [0, 0]


class FakeWorkloadMap:
    """The kernel's workloads map."""

    def __init__(self) -> None:
        self.entries: dict[int, int] = {}
        self.slots: dict[int, int] = {}

    def set_workload(self, cgroup_id: int, workload_cgroup_id: int, policy_slot: int | None = None) -> None:
        self.entries[cgroup_id] = workload_cgroup_id
        if policy_slot is not None:
            self.slots[cgroup_id] = policy_slot

    def policy_slot_of(self, cgroup_id: int) -> int:
        return self.slots.get(cgroup_id, 0)

    def drop_workload(self, cgroup_id: int) -> bool:
        return self.entries.pop(cgroup_id, None) is not None


class NoFiles(ProcessFiles):
    """A /proc where nobody is any more."""

    def __init__(self) -> None:
        super().__init__(Path("/nonexistent"))
