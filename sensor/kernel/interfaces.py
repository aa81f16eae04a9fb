# SPDX-License-Identifier: Apache-2.0
"""Programs on network interfaces, kept in step with what interfaces there are.

Input: the workloads' cgroups, and the kernel's word (rtnetlink) that a link or an address of the host
changed. Output: the attaching child (attach.py), run when something changed and once a minute for what nobody
tells: addresses inside of workloads. The child is started and looked after between the steps of the drain
loop and never waited for. Failure: counted and logged; programs that are attached go on.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import structlog

from sensor.kernel.attach_request import AttachReply, AttachRequest, Namespace
from sensor.kernel.errors import KernelError
from sensor.kernel.interface_pins import FOLDER, HookPin
from sensor.kernel.namespaces import host_namespace, namespaces_of
from sensor.kernel.pins import Pins
from sensor.kernel.support import kernel_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# A seventh of a second and a millisecond an interface; a minute on a busy emulated CPU. Beyond this it
# hangs.
ATTACH_TIMEOUT_S: Final = 300.0
# Between two runs: pods come in bursts, and one run serves them all.
PAUSE_S: Final = 1.0
# Without a word from anybody: an address changed within a workload, or a process made a namespace.
REFRESH_S: Final = 60.0
# TCX links; before, classifiers on clsact.
TCX_KERNEL: Final = (6, 6)
_ROOT: Final = Path(__file__).resolve().parents[2]
# RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_GROUPS: Final = 0x1 | 0x10 | 0x100
_READ_BYTES: Final = 65536
# Messages taken in one look; the rest is looked at next time. That there are some is all that counts.
_READS: Final = 64

_log = structlog.get_logger(__name__)


def kernel_has_tcx() -> bool:
    """Whether the running kernel is one that has TCX links."""
    return kernel_version(os.uname().release) >= TCX_KERNEL


def attach_command() -> list[str]:
    """How to start the child."""
    return [sys.executable, "-P", "-m", "sensor.kernel.attach"]


def attach_now(request: AttachRequest) -> AttachReply:
    """Run the child to its end.

    Raises:
        KernelError: It did not answer.
    """
    try:
        done = subprocess.run(
            attach_command(), input=request.to_bytes(), capture_output=True, cwd=_ROOT,
            timeout=ATTACH_TIMEOUT_S, check=False, env=_environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise KernelError(f"attaching to interfaces took longer than {ATTACH_TIMEOUT_S:g} s") from error
    if not done.stdout:
        raise KernelError(f"attaching to interfaces: {done.stderr.decode(errors='replace')[-2000:]}")
    return AttachReply.from_bytes(done.stdout)


def detach_all(pin_directory: Path) -> None:
    """Take classifiers off every interface; links go with their pins.

    Raises:
        KernelError: Some could not be removed.
    """
    names = Pins(pin_directory).names(FOLDER)
    parsed = (HookPin.parse(name) for name in names)
    if not any(pin is not None and pin.is_filter for pin in parsed):
        return
    reply = attach_now(AttachRequest(str(pin_directory), ()))
    if reply.failed:
        raise KernelError(f"programs are left on interfaces: {'; '.join(reply.failed)}")


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    messages: IO[bytes]
    deadline: float


@dataclass(slots=True)
class Interfaces:
    """Attached programs, followed.

    Args:
        pin_directory: Where the loader pinned.
        cgroups: Every workload's cgroups now: directory and workload cgroup id.
        host: The host's network namespace.
        tcx: Try TCX links.
    """

    pin_directory: Path
    cgroups: Callable[[], Iterable[tuple[Path, int]]]
    host: Path = field(default_factory=host_namespace)
    tcx: bool = field(default_factory=kernel_has_tcx)
    counters: dict[str, int] = field(default_factory=lambda: {"runs": 0, "failures": 0})
    _interfaces: int = 0
    _attached: int = 0
    _watch: socket.socket | None = None
    _child: _Child | None = None
    _namespaces: tuple[Namespace, ...] = ()
    _changes: int = -1
    _due: bool = True
    _ran_at: float = float("-inf")

    def start(self) -> None:
        """Begin to listen for changes of the host's links."""
        self._watch = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        self._watch.bind((0, _GROUPS))

    def tick(self, now: float, changes: int) -> None:
        """Look whether something changed, and after the child; takes no time when nothing did.

        Args:
            now: Monotonic seconds.
            changes: A number that grows when workloads come or go.
        """
        if self._child is not None:
            self._look_after(self._child, now)
            return
        self._due = self._heard() or changes != self._changes or self._due
        if now - self._ran_at < (PAUSE_S if self._due else REFRESH_S):
            return
        self._changes = changes
        self._due = False
        self._ran_at = now
        try:
            self._start_child(now)
        except OSError as error:
            self.counters["failures"] += 1
            _log.error("interfaces_not_attached", failed=[str(error)], count=1)

    def stop(self) -> None:
        """End listening, and the child; what is attached stays."""
        if self._watch is not None:
            self._watch.close()
        if self._child is not None:
            self._child.process.kill()
            self._child.process.wait()
            self._end_child(self._child)

    @property
    def is_busy(self) -> bool:
        """Whether the child is at work."""
        return self._child is not None

    def totals(self) -> dict[str, int]:
        """Runs of the child, and those in which something failed."""
        return dict(self.counters)

    def gauges(self) -> dict[str, float]:
        """Interfaces that are judged, and programs on them."""
        return {"interfaces_judged": self._interfaces, "interfaces_programs": self._attached}

    def _heard(self) -> bool:
        heard = False
        for _ in range(_READS):
            try:
                if self._watch is None or not self._watch.recv(_READ_BYTES):
                    break
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: more than fits was said, which is a change too
                pass
            heard = True
        return heard

    def _start_child(self, now: float) -> None:
        self._namespaces = namespaces_of(self.cgroups(), self.host)
        request = AttachRequest(str(self.pin_directory), self._namespaces, self.tcx)
        output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        messages = tempfile.TemporaryFile()  # noqa: SIM115 - as above
        with tempfile.TemporaryFile() as question:
            question.write(request.to_bytes())
            question.seek(0)
            process = subprocess.Popen(
                attach_command(), stdin=question, stdout=output, stderr=messages, env=_environment()
            )
        self._child = _Child(process, output, messages, now + ATTACH_TIMEOUT_S)
        self.counters["runs"] += 1

    def _look_after(self, child: _Child, now: float) -> None:
        if child.process.poll() is None:
            if now > child.deadline:
                child.process.kill()
            return
        child.output.seek(0)
        answer = child.output.read()
        child.messages.seek(0)
        words = child.messages.read().decode(errors="replace")[-2000:]
        reply = AttachReply.from_bytes(answer) if answer else AttachReply(failed=[f"no answer: {words}"])
        self._interfaces = reply.interfaces
        self._attached = reply.attached
        if reply.failed:
            self.counters["failures"] += 1
            _log.error("interfaces_not_attached", failed=reply.failed[:10], count=len(reply.failed))
        self._end_child(child)

    def _end_child(self, child: _Child) -> None:
        child.output.close()
        child.messages.close()
        self._child = None


def _environment() -> dict[str, str]:
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
