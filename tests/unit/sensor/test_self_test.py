# SPDX-License-Identifier: Apache-2.0
"""The sensor's side of the self-test: what is told, and when."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from schemas.self_test import PARTS
from sensor.kernel.errors import KernelError
from sensor.selftest import tester
from sensor.selftest.tester import SelfTester

if TYPE_CHECKING:
    from collections.abc import Callable

WHOLE = "".join(f"{part}\tok\t\n" for part in PARTS)


def printing(refusal: str = "ok\t") -> str:
    """Code that prints what the probe does, with another outcome of the refusal."""
    text = WHOLE.replace("refusal\tok\t", f"refusal\t{refusal}")
    return f"print({text!r}, end='')"


class Place:
    """A place without a kernel."""

    procs = "/nowhere"

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[str] = []

    def make(self) -> None:
        self._do("make")

    def refuse(self, generation: int, for_s: float) -> None:
        assert generation > 0 < for_s
        self._do("refuse")

    def allow(self) -> None:
        self.calls.append("allow")

    def remove(self) -> None:
        self._do("remove")

    def _do(self, call: str) -> None:
        self.calls.append(call)
        if self.error:
            raise self.error


class Stream:
    """An event stream that has read all there is, until told otherwise."""

    read_position = 100
    produced_position = 100


class Bench:
    """A tester with all it talks to."""

    def __init__(self, interval_s: float = 300.0, error: Exception | None = None) -> None:
        self.place = Place(error)
        self.stream = Stream()
        self.told: list[dict[str, Any]] = []
        self.healthy = True
        self.tester = SelfTester(interval_s, self.place, self.stream, self._tell, lambda: self.healthy)  # type: ignore[arg-type]  # it has the methods

    def _tell(self, kind: str, subject: str, detail: str, *, self_test: dict[str, Any] | None = None) -> None:
        assert (kind, subject) == ("SELF_TEST", "")
        assert self_test is not None
        self.told.append({**self_test, "detail": detail})

    def run(self, now: float = 0.0) -> dict[str, Any]:
        """Tick until something is told."""
        until = time.monotonic() + 20
        while not self.told and time.monotonic() < until:
            self.tester.tick(now)
            time.sleep(0.005)
        return self.told.pop()


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Says what the probe is instead: Python code."""

    def use(code: str) -> None:
        def start(*_: str) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )

        monkeypatch.setattr(tester, "_start", start)

    return use


def test_a_test_that_went_well_is_told_with_all_that_is_to_be_expected(probe: Callable[[str], None]) -> None:
    probe(printing())
    bench = Bench()
    told = bench.run()
    assert (told["outcome"], told["sequence"], told["interval_ms"]) == ("PASSED", 1, 300_000)
    assert (told["expected"], told["problems"], told["detail"]) == (list(PARTS), [], "passed")
    assert len(told["nonce"]) == 32
    assert told["ring_start"] == 100
    assert 0 < told["began_boot_ns"] < told["ended_boot_ns"]
    assert bench.place.calls == ["refuse", "allow"]
    assert bench.tester.counters == {
        "runs": 1, "passed": 1, "wrong": 0, "not_run": 0, "refusals_missed": 0,
    }  # fmt: skip


def test_a_refusal_that_did_not_happen_is_told_and_expected_by_nobody(probe: Callable[[str], None]) -> None:
    probe(printing("passed\tit went through"))
    bench = Bench()
    told = bench.run()
    assert told["outcome"] == "WRONG"
    assert told["problems"] == [{"part": "refusal", "passed": True, "says": "it went through"}]
    assert told["expected"] == [each for each in PARTS if each != "refusal"]
    assert told["detail"] == "refusal: it went through"
    assert (bench.tester.counters["wrong"], bench.tester.counters["refusals_missed"]) == (1, 1)


def test_what_failed_is_not_what_passed(probe: Callable[[str], None]) -> None:
    probe(printing("failed\tno route"))
    bench = Bench()
    assert bench.run()["problems"] == [{"part": "refusal", "passed": False, "says": "no route"}]
    assert bench.tester.counters["refusals_missed"] == 0


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("print('cannot\\tfailed\\tOperation not permitted: unshare')", "Operation not permitted: unshare"),
        (
            "print('exec\\tok\\t', flush=True); raise SystemExit('out of memory')",
            "ended with status 1: exec ok out of memory",
        ),
        ("", "ended with status 0"),
        ("import os; os.kill(os.getpid(), 9)", "ended with status -9"),
    ],
)
def test_what_could_not_be_done_is_told_and_nothing_is_expected(
    probe: Callable[[str], None], code: str, says: str
) -> None:
    probe(code)
    bench = Bench()
    told = bench.run()
    assert (told["outcome"], told["expected"], bench.tester.counters["not_run"]) == ("NOT_RUN", [], 1)
    assert says in told["problems"][0]["says"]


def test_a_late_probe_is_killed_and_told(probe: Callable[[str], None]) -> None:
    probe("import time; time.sleep(60)")
    bench = Bench()
    bench.tester.tick(0.0)
    bench.tester.tick(tester.LATE_S - 0.1)
    assert bench.told == []
    told = bench.run(tester.LATE_S)
    assert told["problems"][0]["says"] == "the probe was not done within 10 s"
    assert bench.place.calls == ["refuse", "allow"]


@pytest.mark.parametrize("error", [OSError(30, "Read-only file system"), KernelError("map is full")])
def test_a_place_that_cannot_be_made_is_told_and_no_reason_to_end(error: Exception) -> None:
    bench = Bench(error=error)
    bench.tester.start()
    assert bench.run()["outcome"] == "NOT_RUN"
    bench.tester.stop()


def test_it_is_told_only_once_everything_it_caused_has_been_read(probe: Callable[[str], None]) -> None:
    probe(printing())
    bench = Bench()
    bench.stream.produced_position = 900
    bench.tester.tick(0.0)
    time.sleep(0.3)
    bench.stream.read_position = 899
    for _ in range(3):
        bench.tester.tick(1.0)
        assert bench.told == []
    bench.stream.produced_position = 5000  # others go on
    bench.stream.read_position = 900
    assert bench.run(2.0)["ring_start"] == 900


def test_the_first_waits_until_all_is_well_and_the_next_for_its_time(probe: Callable[[str], None]) -> None:
    probe(printing())
    bench = Bench()
    bench.healthy = False
    bench.tester.tick(0.0)
    assert bench.tester.counters["runs"] == 0
    bench.healthy = True
    assert bench.run(10.0)["sequence"] == 1
    bench.tester.tick(309.9)
    assert bench.tester.counters["runs"] == 1
    assert bench.run(310.0)["sequence"] == 2


def test_without_an_interval_nothing_is_made_or_begun() -> None:
    bench = Bench(0.0)
    bench.tester.start()
    bench.tester.tick(0.0)
    bench.tester.stop()
    assert (bench.place.calls, bench.tester.counters["runs"]) == ([], 0)


def test_a_stop_ends_the_probe(probe: Callable[[str], None]) -> None:
    probe("import time; time.sleep(60)")
    bench = Bench()
    bench.tester.tick(0.0)
    began = time.monotonic()
    bench.tester.stop()
    assert time.monotonic() - began < 30
    assert bench.place.calls[-1] == "remove"


def test_the_probe_gets_none_of_the_sensor_s_descriptors_and_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NSP_KAFKA_OPTION", "sasl.password=secret")
    gate = tmp_path / "procs"
    os.mkfifo(gate)
    with tempfile.TemporaryFile() as secret:
        os.set_inheritable(secret.fileno(), True)
        child = tester._start(str(gate), "0" * 32)  # which waits there to be let into its cgroup
        try:
            proc = Path("/proc", str(child.pid))
            held = {each.readlink() for each in (proc / "fd").iterdir() if each.is_symlink()}
            assert Path(f"/proc/self/fd/{secret.fileno()}").readlink() not in held
            assert "secret" not in (proc / "environ").read_text()
        finally:
            child.kill()
            child.communicate()


def test_a_probe_whose_sensor_is_gone_does_nothing(tmp_path: Path) -> None:
    gate = tmp_path / "procs"
    command = [sys.executable, "-I", "-S", str(tester._PROBE), "join", str(gate), "1", "n", "name", "1", "2"]
    done = subprocess.run(command, check=True, capture_output=True)
    assert done.stdout == b""
    assert not gate.exists()
