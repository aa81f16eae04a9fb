# SPDX-License-Identifier: Apache-2.0
"""The start-up inventory is larger than the ring: it comes in parts, and nothing of it is lost."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from sensor.kernel import Kernel, KernelOptions
from tests.support.kernel_lab import events_of
from tests.support.sensor_process import Reader, SensorProcess, embedded_broker, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.kernel_lab import Cgroup

PROCESSES, SOCKETS = 2000, 1000
RING_BYTES = 256 * 1024  # a third of what the crowd alone makes
PROCESS_INVENTORY, SOCKET_INVENTORY = 16, 17

# Sockets after the children, which would inherit them.
CROWD = f"""
import os, resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({SOCKETS + 100}, {SOCKETS + 100}))
pids = [os.posix_spawn("/bin/sleep", ["sleep", "1000"], dict(os.environ)) for _ in range({PROCESSES})]
sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range({SOCKETS})]
for each in sockets:
    each.bind(("127.0.0.1", 0))
print(*pids, flush=True)
print(*(each.getsockname()[1] for each in sockets), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def crowd(cgroup: Cgroup) -> Iterator[tuple[int, set[int], set[int]]]:
    """The owner's pid, its children's, and the ports of its sockets; the cgroup's removal ends them."""
    owner = cgroup.python(CROWD)
    assert owner.stdout is not None
    pids, ports = ({int(word) for word in owner.stdout.readline().split()} for _ in range(2))
    assert (len(pids), len(ports)) == (PROCESSES, SOCKETS)
    yield owner.pid, pids, ports
    (cgroup.path / "cgroup.kill").write_text("1")
    owner.communicate()


def test_a_part_leaves_room_in_a_ring_that_the_whole_would_overflow(
    crowd: tuple[int, set[int], set[int]], cgroup: Cgroup, pin_directory: Path
) -> None:
    options = KernelOptions(pin_directory=pin_directory, cgroup_root=cgroup.path, ring_bytes=RING_BYTES)
    owner, pids, ports = crowd
    seen = []
    with Kernel.start(options) as kernel:
        for _ in kernel.inventory():
            assert kernel.ring.unread_bytes <= RING_BYTES // 2  # a quarter, and what else happens
            while (chunk := kernel.ring.read(RING_BYTES)) is not None:
                seen += [event for event in events_of(chunk) if event.flags & 1]
            kernel.ring.release(kernel.ring.position)
        assert kernel.counters()["ring_full"] == 0
    told = [event.tgid for event in seen if event.type == PROCESS_INVENTORY]
    assert pids < set(told)
    assert len(told) == len(set(told))
    assert sum(event.tgid == owner for event in seen if event.type == SOCKET_INVENTORY) == len(ports)


def test_a_sensor_with_a_small_ring_tells_of_everything_that_was_there(
    crowd: tuple[int, set[int], set[int]], cgroup: Cgroup, pin_directory: Path, tmp_path: Path
) -> None:
    owner, pids, ports = crowd
    told, bound = set(), set()
    with embedded_broker(tmp_path) as (brokers, _), Reader(brokers) as reader:
        log = tmp_path / "sensor.log"
        sensor = SensorProcess(brokers, cgroup.path, pin_directory, log, ring_bytes=RING_BYTES)
        try:
            sensor.started()
            wait_until(lambda: sensor.health()[1]["enforcement_ready"], "sensor that reads its orders")
            assert sensor.end(signal.SIGTERM) == 0
        finally:
            sensor.process.kill()
            sensor.process.wait()
        reader.poll()
        for name, event, batch in reader.events:
            process = batch["processes"][event["process"]]
            if name == "nsp.ProcessInventory":
                told.add(process["tgid"])
            elif name == "nsp.SocketInventory" and process["tgid"] == owner:
                bound.add(event["local_port"])
        assert told > pids
        assert bound == ports
        # What else happens on the machine may be too much for so small a ring, and is counted.
        assert reader.unaccounted() == {}
        assert "inventory_overflowed" not in log.read_text()
