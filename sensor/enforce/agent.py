# SPDX-License-Identifier: Apache-2.0
"""Wires enforcement: one thread that reads orders, has them carried out, and keeps the time.

Input: the kernel's maps, the table of workloads, the settings. Output: maps, statuses, notices,
``counters`` and ``refused`` for the metrics. Failure: a wrong key file stops the start with its name;
after that nothing raises: what goes wrong is counted, and a defect in one message costs that message.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from schemas.signing import VerifyingKeys
from sensor.enforce.apply import Applier
from sensor.enforce.clock import Clock, SystemClock
from sensor.enforce.consumer import IDLE_POLL_SECONDS, MORE_POLL_SECONDS, POLL_SECONDS, Reader
from sensor.enforce.controller import Controller
from sensor.enforce.kill import Killer, Protection
from sensor.enforce.profiles import ProfileOrders
from sensor.enforce.signals import SystemSignals
from sensor.enforce.status import Reporter
from sensor.enforce.status_producer import StatusProducer
from sensor.enforce.verify import Verifier
from sensor.policy.safety import parse_break_glass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sensor.enforce.ports import HasState, Notices, Workloads
    from sensor.enforce.profiles import ProfileSink

# Well below what a person or a report would notice as late, far above what a tick costs.
TICK_NS: Final = 100_000_000

# Between two attempts to find the topic. Enforcement from an earlier start goes on meanwhile.
ASSIGN_RETRY_SECONDS: Final = 1.0

# The thread is between two polls at most; longer means that it hangs in a request at start.
JOIN_SECONDS: Final = 12.0

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Settings(Protocol):
    """What is read of :class:`sensor.settings.Settings`."""

    @property
    def node(self) -> str:
        """Node name."""

    @property
    def brokers(self) -> str:
        """Bootstrap servers."""

    @property
    def kafka_options(self) -> Mapping[str, str]:
        """Further librdkafka properties."""

    @property
    def enforcement_public_keys(self) -> Sequence[Path]:
        """PEM files of the keys that may sign orders."""

    @property
    def protected_executables(self) -> tuple[str, ...]:
        """Patterns of executables of the host that no order ends."""

    @property
    def break_glass(self) -> tuple[str, ...]:
        """Break-glass entries; what serves them is not ended either."""


def _services(break_glass: Sequence[str]) -> tuple[str, ...]:
    return tuple(each.service for each in parse_break_glass(break_glass) if each.service)


class EnforcementAgent:
    """Enforcement on this node.

    Args:
        kernel: What has the maps.
        workloads: Which cgroups a workload has.
        settings: The sensor's.
        notices: Where refusals are reported as events; called from this agent's thread.
        profiles: What enforces profiles; likewise.
        clock: Time; the machine's unless a test brings its own.

    Raises:
        KeyFileError: A verifying key cannot be used.
    """

    def __init__(
        self,
        kernel: HasState,
        workloads: Workloads,
        settings: Settings,
        notices: Notices,
        profiles: ProfileSink,
        clock: Clock | None = None,
    ) -> None:
        self._node = settings.node
        self._kafka: dict[str, Any] = {"bootstrap.servers": settings.brokers, **settings.kafka_options}
        self._keys = VerifyingKeys.from_files(settings.enforcement_public_keys)
        protection = Protection(settings.protected_executables, _services(settings.break_glass))
        killer = Killer(kernel.state, SystemSignals(), protection, os.getpid())
        self._applier = Applier(kernel.state, workloads, killer)
        self._notices = notices
        self._profiles = profiles
        self._clock: Clock = clock or SystemClock()
        self._boot_id = _BOOT_ID.read_text(encoding="ascii").strip()
        self._controller: Controller | None = None
        self._reports: StatusProducer | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._turn = threading.Lock()
        self._tick_at_ns = 0
        self._messages = 0
        self._log = structlog.get_logger("enforce")
        # The thread's own until there is a controller to count; shared with it from then on.
        self.counters: dict[str, int] = {}
        self.refused: dict[str, int] = {}

    @property
    def ready(self) -> bool:
        """All orders that were on the topic at start are carried out."""
        return self._controller is not None and self._controller.history_read

    @property
    def alive(self) -> bool:
        """The thread runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def in_force(self) -> int:
        """Orders the kernel enforces now."""
        return self._controller.in_force if self._controller else 0

    def start(self) -> None:
        """Begin to read orders; returns at once."""
        if not self._keys.key_ids:
            self._log.warning("no key may sign enforcement: every order will be refused")
        self._thread = threading.Thread(target=self._run, name="nsp-enforce", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread. What is in force stays in force."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(JOIN_SECONDS)

    def tick(self) -> None:
        """Do what the time asks for, unless it was done just now or is being done. Any thread."""
        if not self._turn.acquire(blocking=False):
            return
        try:
            self._tick()
        finally:
            self._turn.release()

    def _tick(self) -> None:
        now_ns = self._clock.boot_ns()
        if self._controller is None or now_ns < self._tick_at_ns:
            return
        self._tick_at_ns = now_ns + TICK_NS
        try:
            self._controller.tick()
        except Exception:  # noqa: BLE001 - top of the loop: a defect in one tick must not end the others
            self._count("defect")
            self._log.exception("a tick of enforcement failed")
        if self._reports is not None:
            self._reports.poll()

    def _run(self) -> None:
        reader = Reader(self._node, self._kafka, self._count)
        self._reports = StatusProducer(self._kafka, self._count)
        try:
            partitions = self._assign(reader)
            if partitions is not None:
                self._controller = self._controlled(partitions, self._reports)
                while not self._stopping.is_set():
                    self._once(reader, self._controller)
        finally:
            reader.close()
            self._reports.close()

    def _assign(self, reader: Reader) -> int | None:
        while not self._stopping.is_set():
            partitions = reader.assign()
            if partitions is not None:
                return partitions
            self._stopping.wait(ASSIGN_RETRY_SECONDS)
        return None

    def _controlled(self, partitions: int, reports: StatusProducer) -> Controller:
        verifier = Verifier(self._keys, self._node, self._boot_id, partitions)
        reporter = Reporter(self._node, self._boot_id)
        identity = {"node": self._node, "boot_id": self._boot_id}
        profiles = ProfileOrders(self._profiles, reports, identity, self._clock, self.counters)
        controller = Controller(
            verifier, self._applier, reporter, reports, self._notices, self._clock, profiles=profiles
        )
        controller.counters = self.counters
        controller.refused = self.refused
        return controller

    def _once(self, reader: Reader, controller: Controller) -> None:
        """One message or none, then the tick."""
        wait_s = IDLE_POLL_SECONDS if controller.idle else POLL_SECONDS
        if controller.profiles.dirty and controller.history_read:
            wait_s = MORE_POLL_SECONDS
        before = self._messages
        try:
            if reader.poll(lambda key, value: self._message(controller, key, value), wait_s):
                with self._turn:
                    controller.history_complete()
                self._log.info("enforcement is as the topic says", in_force=controller.in_force)
            elif wait_s == MORE_POLL_SECONDS and self._messages == before:
                with self._turn:
                    controller.profiles.carry_out()
        except Exception:  # noqa: BLE001 - top of the loop: a defect in one message must not end the others
            self._count("defect")
            self._log.exception("a message of enforcement could not be handled")
            self._stopping.wait(POLL_SECONDS)  # should it be the client that raises, and at once
        self.tick()

    def _message(self, controller: Controller, key: bytes | None, value: bytes | None) -> None:
        self._messages += 1
        with self._turn:
            controller.message(key, value)
        if self._reports is not None:
            self._reports.poll()

    def _count(self, what: str) -> None:
        self.counters[what] = self.counters.get(what, 0) + 1
