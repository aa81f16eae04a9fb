# SPDX-License-Identifier: Apache-2.0
"""The one event that wakes the sensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sensor.kernel import Kernel
    from tests.support.kernel_lab import Cgroup


def test_an_exec_wakes_a_reader_also_while_events_wait_for_the_broker(kernel: Kernel, cgroup: Cgroup) -> None:
    kernel.run_inventory()
    while kernel.ring.read(1 << 20) is not None:
        pass
    assert kernel.ring.held_bytes > 0
    for _ in range(3):
        while kernel.ring.wait(0):
            pass
        cgroup.run("true")
        assert kernel.ring.wait(5.0)
