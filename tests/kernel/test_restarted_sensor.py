# SPDX-License-Identifier: Apache-2.0
"""A sensor that is started anew while policies are in force that would refuse it everything.

Whoever restarts it gives it a new pid, which the kernel does not spare yet: it must spare itself before it
speaks to anybody, or it has no metrics, no name of its broker and no connection.
"""

from __future__ import annotations

import signal
import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from sensor.kernel import Kernel
from sensor.policy.layout import SLOT_UNKNOWN
from tests.support.kernel_lab import Cgroup
from tests.support.kernel_watch import Actor
from tests.support.profile_lab import ProfileLab, network
from tests.support.sensor_process import SensorProcess, embedded_broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sensor.kernel import KernelOptions

SLOT = 2


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[str]:
    with embedded_broker(tmp_path) as (address, _):
        yield address


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_of_a_new_sensor_is_refused_under_a_profile_that_lets_its_service_do_nothing(
    brokers: str, cgroup: Cgroup, options: KernelOptions, tmp_path: Path, ending: signal.Signals
) -> None:
    unit = Cgroup(cgroup.path / "system.slice" / "nsp-sensor.service")
    unit.path.mkdir(parents=True)
    arguments = brokers, cgroup.path, options.pin_directory, tmp_path / "log"
    first = SensorProcess(*arguments, within=unit).started()
    first.end(ending)
    with closing(Kernel.start(options)) as kernel:
        kernel.state.set_workload(unit.id, unit.id, SLOT)
        ProfileLab(kernel).govern(SLOT, network())
    second = SensorProcess(*arguments, within=unit)
    try:
        second.started()
        with Actor(unit) as stranger:
            assert stranger.connect("a", "127.0.0.1", second.port) == "EPERM"
            assert stranger.connect("b", "127.0.0.1", 9, kind=socket.SOCK_DGRAM) == "EPERM"
    finally:
        second.end(signal.SIGTERM)
    with closing(Kernel.start(options)) as kernel:
        assert kernel.state.policy_slot_of(unit.id) == SLOT
        counted = kernel.policy.policy_counters(SLOT)
    assert (counted.refused_calls, counted.refused_packets) == (2, 0), "those of the stranger"


def test_a_sensor_in_a_pod_of_its_own_starts_again_under_unknown_denied(
    brokers: str, cgroup: Cgroup, options: KernelOptions, tmp_path: Path
) -> None:
    pod = Cgroup(cgroup.path / "kubepods" / "pod0a0a0a0a-0b0b-0c0c-0d0d-0e0e0e0e0e0e")
    pod.path.parent.mkdir()
    arguments = brokers, cgroup.path, options.pin_directory, tmp_path / "log"
    options_given = "--unknown-workload", "deny"
    pod.path.mkdir()
    SensorProcess(*arguments, within=pod, options=options_given).started().end(signal.SIGTERM)
    with closing(Kernel.start(options)) as kernel:  # nobody has spoken of it yet
        kernel.state.set_workload(pod.id, pod.id, SLOT_UNKNOWN)
    again = SensorProcess(*arguments, within=pod, options=options_given)
    try:
        again.started()
        with Actor(pod) as stranger:
            assert stranger.connect("a", "192.0.2.1", 9, kind=socket.SOCK_DGRAM) == "EPERM"
    finally:
        again.end(signal.SIGTERM)
    with closing(Kernel.start(options)) as kernel:
        assert kernel.policy.policy_totals().refused_calls == 1, "that of the stranger"
