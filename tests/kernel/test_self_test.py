# SPDX-License-Identifier: Apache-2.0
"""The self-test on the running kernel: whole, with its rule taken away, and across kills of the sensor."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from schemas.self_test import PARTS, PASSING_PORT
from sensor.kernel.state import WORKLOAD_HAS_BLOCKS, WORKLOAD_HAS_QUARANTINE, EnforcementValue
from sensor.policy.layout import SLOT_HOST
from sensor.selftest.place import ProbePlace
from sensor.selftest.tester import SelfTester
from sensor.workload.table import WorkloadTable
from tests.support.kernel_lab import Cgroup
from tests.support.profile_lab import ProfileLab, network
from tests.support.sensor_process import NODE, Reader, SensorProcess, embedded_broker, wait_until
from tests.support.stream import whole_pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sensor.kernel import Kernel
    from stream_apps.pipeline import Pipeline

FOR_EVER_NS = 1 << 62
RULE = "nsp.self-test"


class Everything:
    """A stream of which all is read at once."""

    read_position = 0
    produced_position = 0


class Lab:
    """A tester on a real kernel, without a Kafka."""

    def __init__(self, kernel: Kernel) -> None:
        self.directory = kernel.cgroup_root / "selftest"
        self.place = ProbePlace(self.directory, kernel.state, WorkloadTable("n", kernel.state))
        self.told: list[dict[str, Any]] = []
        self.tester = SelfTester(0.01, self.place, Everything(), self._tell, lambda: True)

    def _tell(self, kind: str, subject: str, detail: str, *, self_test: dict[str, Any] | None = None) -> None:
        assert (kind, subject) == ("SELF_TEST", "")
        assert self_test is not None
        assert detail
        self.told.append(self_test)

    def run(self) -> dict[str, Any]:
        """One test."""
        before = len(self.told)

        def concluded() -> bool:
            self.tester.tick(time.monotonic())
            return len(self.told) > before

        wait_until(concluded, "self-test")
        return self.told[-1]


@pytest.fixture
def lab(kernel: Kernel) -> Iterator[Lab]:
    made = Lab(kernel)
    made.tester.start()
    yield made
    made.tester.stop()
    assert not made.directory.exists()


def test_a_test_passes_and_leaves_nothing_in_force(lab: Lab, kernel: Kernel) -> None:
    told = lab.run()
    assert (told["problems"], told["outcome"], told["expected"]) == ([], "PASSED", list(PARTS))
    assert list(kernel.state.blocked_destinations()) == []
    assert kernel.state.workload_flags(lab.directory.stat().st_ino) == 0


def test_with_the_rule_taken_away_it_is_told(
    lab: Lab, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with the rule in force but not looked for, which is how a broken switch would show."""
    monkeypatch.setattr(kernel.state, "block_destination", lambda *_: None)
    told = lab.run()
    assert told["outcome"] == "WRONG"
    assert [(each["part"], each["passed"]) for each in told["problems"]] == [("refusal", True)]
    monkeypatch.undo()
    monkeypatch.setattr(kernel.state, "set_workload_flags", lambda *_: None)
    assert lab.run()["problems"][0]["passed"]
    monkeypatch.undo()
    assert lab.run()["outcome"] == "PASSED"


def test_orders_in_force_stay_so_and_only_the_probe_is_refused(
    lab: Lab, kernel: Kernel, cgroup: Cgroup
) -> None:
    other = cgroup.path / "other"
    other.mkdir()
    cut = Cgroup(other)
    kernel.state.set_workload(cut.id, cut.id, 0)
    kernel.state.set_workload_quarantine(cut.id, EnforcementValue(7, FOR_EVER_NS))
    kernel.state.set_workload_flags(cut.id, WORKLOAD_HAS_QUARANTINE)
    assert lab.run()["outcome"] == "PASSED"
    assert refused(cut, 7602)
    kernel.state.drop_workload_quarantine(cut.id)
    kernel.state.set_workload_flags(cut.id, WORKLOAD_HAS_BLOCKS)
    lab.place.refuse(1, 60)
    assert not refused(cut, 7602)


def test_no_profile_of_the_host_reaches_the_probe(lab: Lab, kernel: Kernel, cgroup: Cgroup) -> None:
    """What is refused to everybody on the host, on loopback too, is no finding of the test."""
    assert not refused(cgroup, PASSING_PORT)
    ProfileLab(kernel).govern(SLOT_HOST, network())
    assert refused(cgroup, PASSING_PORT)
    assert lab.run()["outcome"] == "PASSED"


CONNECT = """
import socket, sys
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])))
except PermissionError:
    print("refused")
except OSError:
    print("passed")
"""


def refused(cgroup: Cgroup, port: int) -> bool:
    """Whether a connect from a cgroup is."""
    with cgroup.python(CONNECT, str(port)) as process:
        out, _ = process.communicate()
    return out.strip() == "refused"


def judge(reader: Reader, through: Pipeline, tests: int) -> list[dict[str, Any]]:
    """Read until so many tests have been judged; the alerts of this rule."""
    seen = 0
    alerts: list[dict[str, Any]] = []

    def enough() -> bool:
        nonlocal seen
        reader.poll()
        for batch in reader.batches[seen:]:
            alerts.extend(through.process(batch, time.time_ns()).alerts)
        seen = len(reader.batches)
        return through.metrics()["detect", "self_test_tests"] >= tests

    wait_until(enough, f"{tests} tests")
    return [each for each in alerts if each["rule_id"] == RULE]


def test_all_of_it_arrives_also_across_a_kill(cgroup: Cgroup, pin_directory: Path, tmp_path: Path) -> None:
    place = cgroup.path / f"{pin_directory.name}-selftest"
    with embedded_broker(tmp_path) as (brokers, _), Reader(brokers) as reader:
        through = whole_pipeline()
        arguments = (brokers, cgroup.path, pin_directory, tmp_path / "sensor.log")
        fast = ("--selftest-interval", "0.05")
        first = SensorProcess(*arguments, options=fast).started()
        wait_until((place / "cgroup.procs").read_text, "probe at work")
        first.end(signal.SIGKILL)
        wait_until(lambda: not (place / "cgroup.procs").read_text(), "end of the probe")
        second = SensorProcess(*arguments, options=fast).started()
        alerts = judge(reader, through, 20)
        assert second.end(signal.SIGTERM) == 0
    assert not place.exists()
    assert alerts == []
    figures = {
        name: through.metrics()["detect", f"self_test_{name}"] for name in ("parts_missing", "tests_wrong")
    }
    assert figures == {"parts_missing": 0, "tests_wrong": 0}
    nodes = {batch["node"] for batch in reader.batches}
    assert nodes == {NODE}
