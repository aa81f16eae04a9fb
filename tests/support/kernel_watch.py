# SPDX-License-Identifier: Apache-2.0
"""A started kernel part, its events by name, and processes that do as told: the words of kernel tests."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from sensor.kernel import EnforcementValue, Kernel, KernelOptions, ProcessKey
from sensor.publish import layout
from tests.support.kernel_lab import Cgroup, events_of, make_cgroup, make_pin_directory, remove_pins
from tests.support.ring_records import LAYOUT_OF

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ARRIVAL_S: Final = 5.0  # an event is on the ring before the call returns; a loaded machine may be slow
FOREVER_NS: Final = 1 << 62
ACTOR: Final = Path(__file__).with_name("actor.py").read_text()
_RING_BYTES: Final = 4 << 20
_READ_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Seen:
    """One event: its struct's numbers and byte strings by name, and the tail."""

    kind: int
    tgid: int
    numbers: Mapping[str, int]
    strings: Mapping[str, bytes]
    tail: bytes

    def __getitem__(self, name: str) -> int:
        return self.numbers[name]

    def address(self, name: str) -> str:
        """An address as text, IPv4 unmapped."""
        raw = self.strings[name]
        if raw[:12] == bytes(10) + b"\xff\xff":
            return socket.inet_ntop(socket.AF_INET, raw[12:])
        return socket.inet_ntop(socket.AF_INET6, raw)

    @property
    def remote(self) -> tuple[str, int]:
        """Remote address and port."""
        return self.address("remote_address"), self["remote_port"]

    @property
    def local(self) -> tuple[str, int]:
        """Local address and port."""
        return self.address("local_address"), self["local_port"]

    @property
    def path(self) -> str:
        """The executable's path, of an exec."""
        components = self.tail[: self["path_bytes"]].split(b"\0")[:-1]
        return "/" + "/".join(part.decode() for part in reversed(components))

    @property
    def argv(self) -> list[bytes]:
        """Arguments, of an exec."""
        return self.tail[self["path_bytes"] :].removesuffix(b"\0").split(b"\0")


def _seen(kind: int, tgid: int, data: bytes) -> Seen:
    shape = LAYOUT_OF.get(kind, layout.FLOW_EVENT)
    names = [name for name, _ in shape.fields]
    values = layout.reader(shape, *names).unpack_from(bytes(layout.RING_HEADER_BYTES) + data)
    fields = dict(zip(names, values, strict=True))
    return Seen(
        kind,
        tgid,
        {name: value for name, value in fields.items() if isinstance(value, int)},
        {name: value for name, value in fields.items() if isinstance(value, bytes)},
        data[shape.size_bytes :],
    )


class Watch:
    """The events since the start, and waiting for one."""

    def __init__(self, kernel: Kernel, cgroup: Cgroup) -> None:
        self.kernel = kernel
        self.cgroup = cgroup
        self._events: list[Seen] = []
        # Before the inventory, a fork by a process not known yet is counted: as it should be.
        self._counted_before = kernel.counters()

    def events(self, *kinds: int, tgid: int | None = None) -> list[Seen]:
        """What was seen so far of these kinds, of one process if asked."""
        while chunk := self.kernel.ring.read(_READ_BYTES):
            self._events += [_seen(raw.type, raw.tgid, raw.data) for raw in events_of(chunk)]
            self.kernel.ring.release(chunk.end)
        return [seen for seen in self._events if seen.kind in kinds and tgid in (None, seen.tgid)]

    def wait_for(
        self, *kinds: int, tgid: int | None = None, where: Callable[[Seen], bool] | None = None
    ) -> Seen:
        """The first such event; fails when none comes."""
        deadline = time.monotonic() + ARRIVAL_S
        while True:
            found = self.events(*kinds, tgid=tgid)
            for seen in found:
                if where is None or where(seen):
                    return seen
            assert time.monotonic() < deadline, f"no such event of kind {kinds}; near: {found[-5:]}"
            time.sleep(0.01)

    def counted(self) -> dict[str, int]:
        """The kernel's loss and limit counters that moved since this watch began."""
        before = self._counted_before
        return {
            name: now - before[name] for name, now in self.kernel.counters().items() if now > before[name]
        }

    def key(self, tgid: int) -> ProcessKey:
        """The identity the kernel maps have for a live process."""
        process = self.kernel.state.process(tgid)
        assert process is not None
        return ProcessKey(tgid, process.start_ns)

    def quarantine(self, tgid: int, *, seconds: float | None = None, generation: int = 1) -> ProcessKey:
        """Cut a process and all that descends from it, as the sensor does."""
        state = self.kernel.state
        root = self.key(tgid)
        expires = FOREVER_NS if seconds is None else boot_ns() + int(seconds * 1e9)
        state.set_quarantine(root, EnforcementValue(generation, expires))
        for member, process in list(state.processes()):
            if member == tgid or root in process.ancestors:
                state.mark_process(member, process.start_ns, root)
        state.mark_sockets()
        return root

    def refusals(self, root: ProcessKey) -> EnforcementValue:
        """A quarantine with the kernel's counters."""
        value = self.kernel.state.quarantine(root)
        assert value is not None
        return value


class Actor:
    """One actor process."""

    def __init__(self, cgroup: Cgroup) -> None:
        self._process = cgroup.python(ACTOR)
        self.tgid = self._process.pid
        assert self.tell("ready") == self.tgid  # it is in its cgroup from here on

    def tell(self, *command: Any) -> Any:
        """Do it; returns the value, or the errno's name when it failed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer.get("error", answer.get("ok"))

    def listen(self, name: str, address: str = "127.0.0.1") -> int:
        """A TCP listener; returns its port."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.tell("socket", name, family, socket.SOCK_STREAM)
        assert self.tell("bind", name, address, 0) is None
        assert self.tell("listen", name) is None
        return int(self.tell("port", name))

    def connect(
        self, name: str, address: str, port: int, *, kind: int = socket.SOCK_STREAM, family: int = 0
    ) -> Any:
        """A socket connected; returns the errno's name when that failed."""
        self.tell("socket", name, family or (socket.AF_INET6 if ":" in address else socket.AF_INET), kind)
        return self.tell("connect", name, address, port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()


def boot_ns() -> int:
    """Now, on the clock of events and expiries."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """A kernel part for a whole test module, with a cgroup of its own and the inventory taken."""
    cgroup, pins = make_cgroup(), make_pin_directory()
    options = KernelOptions(
        pin_directory=pins, cgroup_root=cgroup.path, ring_bytes=_RING_BYTES, max_processes=8192
    )
    try:
        with Kernel.start(options) as kernel:
            kernel.run_inventory()
            yield Watch(kernel, cgroup)
    finally:
        remove_pins(pins)
        cgroup.remove()
