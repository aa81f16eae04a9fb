# SPDX-License-Identifier: Apache-2.0
"""Tests this sensor every few minutes: starts the probe, and tells how it went.

Input: ticks of the drain loop, and how far that has read. Output: a ``SELF_TEST`` notice for each test, with
what the probe did and what it found, put into the event stream once everything that the probe caused has
been read: so all of a test's events lie between ``ring_start`` of its notice and the notice, and whoever
reads the stream knows what is missing. ``counters`` and ``gauges`` are read by the metrics.

Nothing here waits: a tick looks at the probe and returns. Failure: a test that cannot be run, or is late and
killed, is told (``NOT_RUN``) and counted; the next one is tried in its time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from schemas.self_test import NONCE_DIGITS, PARTS, PASSING_PORT, REFUSED_PORT, name_of
from sensor.kernel.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sensor.selftest.place import ProbePlace

# It takes a tenth of a second; on a machine that is swapping, seconds. Beyond this it hangs.
LATE_S: Final = 10.0
# The block must outlive the probe, and not by much: only its expiry ends it when the sensor is killed.
_BLOCK_S: Final = LATE_S + 5.0
# What it writes is below a kilobyte; a Python traceback may be more.
_OUTPUT_BYTES: Final = 16 * 1024
_WORDS: Final = 200
# Run by path: what only the probe imports is no memory of the sensor's.
_PROBE: Final = Path(__file__).with_name("probe.py")
_KEPT_VARIABLES: Final = ("LD_LIBRARY_PATH",)

_log = structlog.get_logger(__name__)


class Stream(Protocol):
    """How far the event stream is (sensor/publish/pipeline.py)."""

    @property
    def read_position(self) -> int:
        """Up to here events are in batches."""

    @property
    def produced_position(self) -> int:
        """Up to here the kernel has written."""


class Tell(Protocol):
    """Puts a notice into the event stream (sensor/publish/notices.py)."""

    def __call__(
        self, kind: str, subject: str, detail: str, *, self_test: dict[str, Any] | None = None
    ) -> None:
        """Tell something."""


@dataclass(slots=True)
class _Round:
    """One test.

    Attributes:
        nonce: Names it.
        ring_start: Where the event stream was before it.
        began_ns: CLOCK_BOOTTIME.
        child: The probe, while it runs.
        late_at: When it is killed.
        ended_ns: CLOCK_BOOTTIME; 0 while it runs.
        read_until: Everything it caused lies before this position.
        done: Parts that went as they should: an event of each is to be expected.
        problems: Parts that did not, and why.
        outcome: PASSED, WRONG or NOT_RUN.
    """

    nonce: str
    ring_start: int
    began_ns: int
    late_at: float
    child: subprocess.Popen[bytes] | None = None
    ended_ns: int = 0
    read_until: int = 0
    done: list[str] = field(default_factory=list)
    problems: list[dict[str, Any]] = field(default_factory=list)
    outcome: str = "PASSED"

    def cannot(self, words: str) -> None:
        """It could not be done: nothing is to be expected of it."""
        self.outcome = "NOT_RUN"
        self.done.clear()
        self.problems[:] = [{"part": "probe", "passed": False, "says": words[:_WORDS]}]


class SelfTester:
    """Starts one probe at a time. One thread calls it.

    Args:
        interval_s: Between the starts of two tests; 0 tests nothing.
        place: Where the probe runs.
        stream: The event stream.
        tell: Where notices go.
        healthy: Whether the sensor is up: the first test waits for it.

    Attributes:
        counters: Tests begun, by how they ended; ``refusals_missed`` those in which a connection that
            must be refused passed.
    """

    def __init__(
        self, interval_s: float, place: ProbePlace, stream: Stream, tell: Tell, healthy: Callable[[], bool]
    ) -> None:
        self._interval_s = interval_s
        self._place = place
        self._stream = stream
        self._tell = tell
        self._healthy = healthy
        self._round: _Round | None = None
        self._due_at = 0.0
        self._sequence = 0
        self._last_s = 0.0
        self.counters = {"runs": 0, "passed": 0, "wrong": 0, "not_run": 0, "refusals_missed": 0}

    def gauges(self) -> dict[str, float]:
        """How long the last test took."""
        return {"selftest_last_seconds": self._last_s}

    def start(self) -> None:
        """Make the cgroup, before the tree of cgroups is read: what a killed sensor left is taken over."""
        if not self._interval_s:
            return
        try:
            self._place.make()
        except (OSError, KernelError) as error:
            _log.warning("selftest_not_prepared", error=str(error))

    def tick(self, now: float) -> None:
        """Look after the test that is under way, or begin one that is due."""
        if not self._interval_s:
            return
        if self._round is None:
            if now >= self._due_at and self._healthy():
                self._begin(now)
            return
        if self._round.child is not None:
            self._look_after(self._round, self._round.child, now)
        if self._round.child is None and self._stream.read_position >= self._round.read_until:
            self._conclude(self._round)

    def stop(self) -> None:
        """End what runs, untold, and remove the cgroup."""
        if self._round is not None and self._round.child is not None:
            self._round.child.kill()
            self._reap(self._round.child)
        self._round = None
        if not self._interval_s:
            return
        try:
            self._place.remove()
        except (OSError, KernelError) as error:
            _log.warning("selftest_not_removed", error=str(error))

    def _begin(self, now: float) -> None:
        self._due_at = now + self._interval_s
        self._sequence += 1
        self.counters["runs"] += 1
        nonce = os.urandom(NONCE_DIGITS // 2).hex()
        self._round = new = _Round(nonce, self._stream.produced_position, _boot_ns(), now + LATE_S)
        try:
            self._place.refuse(self._sequence, _BLOCK_S)
            new.child = _start(self._place.procs, nonce)
        except (OSError, KernelError) as error:
            new.cannot(str(error))
            self._end(new)

    def _look_after(self, test: _Round, child: subprocess.Popen[bytes], now: float) -> None:
        late = child.poll() is None
        if late and now < test.late_at:
            return
        if late:
            child.kill()
        output = self._reap(child)
        test.child = None
        _read(test, output)
        if late:
            test.cannot(f"the probe was not done within {LATE_S:.0f} s")
        elif test.outcome == "PASSED" and tuple(test.done) != PARTS:
            words = " ".join(output.decode(errors="replace").split())
            test.cannot(f"the probe ended with status {child.returncode}: {words[-_WORDS // 2 :]}")
        self._end(test)

    def _end(self, test: _Round) -> None:
        test.ended_ns = _boot_ns()
        test.read_until = self._stream.produced_position
        self._last_s = (test.ended_ns - test.began_ns) / 1e9
        try:
            self._place.allow()
        except (OSError, KernelError) as error:
            _log.warning("selftest_block_not_ended", error=str(error))  # it expires

    @staticmethod
    def _reap(child: subprocess.Popen[bytes]) -> bytes:
        child.wait()
        if child.stdout is None:
            return b""
        with child.stdout as output:
            return output.read(_OUTPUT_BYTES)

    def _conclude(self, test: _Round) -> None:
        self._round = None
        self.counters[test.outcome.lower()] += 1
        if test.outcome != "PASSED":
            _log.error("selftest", outcome=test.outcome, problems=test.problems)
        if any(each["passed"] for each in test.problems):
            self.counters["refusals_missed"] += 1
        words = "; ".join(f"{each['part']}: {each['says']}" for each in test.problems)
        self._tell("SELF_TEST", "", words or "passed", self_test=self._record(test))

    def _record(self, test: _Round) -> dict[str, Any]:
        return {
            "nonce": test.nonce,
            "sequence": self._sequence,
            "interval_ms": round(self._interval_s * 1000),
            "outcome": test.outcome,
            "ring_start": test.ring_start,
            "began_boot_ns": test.began_ns,
            "ended_boot_ns": test.ended_ns,
            "expected": test.done,
            "problems": test.problems,
        }


def _start(procs: str, nonce: str) -> subprocess.Popen[bytes]:
    """The child gets no descriptor but its pipe, and nothing of the environment, where secrets may be."""
    command = [sys.executable, "-I", "-S", str(_PROBE), "join", procs, str(os.getpid())]
    command += [nonce, name_of(nonce), str(PASSING_PORT), str(REFUSED_PORT)]
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=kept, cwd="/"
    )


def _read(test: _Round, output: bytes) -> None:
    for line in output.decode(errors="replace").splitlines():
        part, _, rest = line.partition("\t")
        outcome, _, words = rest.partition("\t")
        if part == "cannot":
            test.cannot(words)
            return
        if part in PARTS and outcome == "ok":
            test.done.append(part)
        elif part in PARTS:
            test.outcome = "WRONG"
            test.problems.append({"part": part, "passed": outcome == "passed", "says": words[:_WORDS]})


def _boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
