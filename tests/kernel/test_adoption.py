# SPDX-License-Identifier: Apache-2.0
"""A sensor dies, another takes over: enforcement goes on, nothing slips through, numbers go on."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import signal
import socket
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from sensor.kernel import EnforcementValue, Kernel, KernelOptions, ProcessKey, pins
from tests.support.kernel_lab import Cgroup, events_of, start_python

if TYPE_CHECKING:
    from collections.abc import Iterator

HOUR_NS = 3600 * 10**9
# Connects to the port in a loop until its input ends, itself and through a child it forks now and then.
HAMMER = """
import collections, json, os, select, socket, sys
def attempt():
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", int(sys.argv[1])))
print("up", flush=True)
sys.stdin.readline()
own, children, turn = collections.Counter(), collections.Counter(), 0
while not select.select([sys.stdin], [], [], 0)[0]:
    own[attempt()] += 1
    turn += 1
    if turn % 10 == 0:
        child = os.fork()
        if child == 0:
            os._exit(attempt())
        children[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])] += 1
print(json.dumps([own, children]))
"""
# A sensor that starts, cuts the workload, and waits to be killed.
SENSOR = """
import sys, time
from pathlib import Path
from sensor.kernel import *
pins, root, workload = sys.argv[1:]
kernel = Kernel.start(KernelOptions(Path(pins), Path(root), 1 << 20, max_processes=8192))
kernel.state.set_workload(int(workload), int(workload))
value = EnforcementValue(7, time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 3600 * 10**9)
kernel.state.set_workload_quarantine(int(workload), value)
kernel.state.set_workload_flags(int(workload), WORKLOAD_HAS_QUARANTINE)
kernel.state.set_sensor_state(41, 0)
print("ready", flush=True)
sys.stdin.read()
"""
# An adoption whose process dies at its third link.
DYING_ADOPTION = """
import json, os, sys
from sensor.kernel import bpf_syscall as bpf, loader
from sensor.kernel.launch import LoadRequest
calls, real = 0, bpf.link_update
def dies(*arguments):
    global calls
    calls += 1
    if calls == 3:
        os._exit(9)
    real(*arguments)
bpf.link_update = dies
loader.load(LoadRequest(**json.loads(sys.argv[1])))
"""
CONNECT = "import socket, sys; s = socket.socket(); sys.exit(s.connect_ex(('127.0.0.1', int(sys.argv[1]))))"


@pytest.fixture
def server() -> Iterator[int]:
    """The port of a listener that is outside every test cgroup."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def killed_sensor(options: KernelOptions, cgroup: Cgroup) -> None:
    """A sensor quarantined the test's cgroup and was killed."""
    process = start_python(SENSOR, str(options.pin_directory), str(cgroup.path), str(cgroup.id))
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()


def connect_inside(cgroup: Cgroup, port: int) -> int:
    """The errno a process in the cgroup gets from connect."""
    command = cgroup.command("/usr/bin/python3", "-c", CONNECT, str(port))
    return subprocess.run(command, check=False).returncode


def expiry_ns() -> int:
    """An hour from now on the kernel's clock."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + HOUR_NS


def test_enforcement_outlives_a_killed_sensor_and_the_next_one_knows_it(
    options: KernelOptions, cgroup: Cgroup, server: int, killed_sensor: None
) -> None:
    assert connect_inside(cgroup, server) == errno.EPERM
    with contextlib.closing(Kernel.start(options)) as kernel:
        assert kernel.adopted
        assert kernel.state.sensor_state().batch_sequence == 41
        found = dict(kernel.state.workload_quarantines())
        assert found[cgroup.id].generation == 7
        assert found[cgroup.id].refused_calls == 1
        assert connect_inside(cgroup, server) == errno.EPERM
        assert kernel.state.drop_workload_quarantine(cgroup.id)
        assert connect_inside(cgroup, server) == 0


def test_a_new_sensor_reads_on_where_the_last_one_was_acknowledged_and_numbers_go_on(
    options: KernelOptions, cgroup: Cgroup
) -> None:
    with contextlib.closing(Kernel.start(options)) as first:
        cgroup.run("sh", "-c", "for i in 1 2 3 4 5 6 7 8; do /bin/true; done")
        acknowledged, unacknowledged = first.ring.read(3000), first.ring.read(3000)
        assert acknowledged is not None
        assert unacknowledged is not None
        first.ring.release(acknowledged.end)
        before = first.sequences()
    cgroup.run("/bin/true")  # between the two: nobody reads, nothing is lost
    with contextlib.closing(Kernel.start(options)) as second:
        assert second.adopted
        assert second.ring.position == acknowledged.end
        rest = second.ring.read(options.ring_bytes)
        assert rest is not None
        assert rest.data.startswith(unacknowledged.data)
        assert all(now >= then for now, then in zip(second.sequences(), before, strict=True))
        assert sum(second.sequences()) > sum(before)
        assert second.counters()["ring_full"] == 0
    numbers: dict[int, list[int]] = {}
    for event in (*events_of(acknowledged), *events_of(rest)):
        numbers.setdefault(event.cpu, []).append(event.seq)
    assert all(sorted(found) == list(range(len(found))) for found in numbers.values())


def test_no_forbidden_connect_slips_through_while_programs_are_swapped(
    options: KernelOptions, cgroup: Cgroup, server: int
) -> None:
    with contextlib.closing(Kernel.start(options)) as kernel:
        hammer = cgroup.python(HAMMER, str(server))
        assert hammer.stdin is not None
        assert hammer.stdout is not None
        hammer.stdout.readline()
        known = kernel.state.process(hammer.pid)
        assert known is not None
        root = ProcessKey(hammer.pid, known.start_ns)
        kernel.state.set_quarantine(root, EnforcementValue(1, expiry_ns()))
        assert kernel.state.mark_process(hammer.pid, known.start_ns, root)
        hammer.stdin.write("go\n")
        hammer.stdin.flush()
    for _ in range(2):
        with contextlib.closing(Kernel.start(options)) as kernel:
            assert kernel.adopted
            counted = kernel.state.quarantine(root)
    own, children = json.loads(hammer.communicate("stop\n")[0])
    assert set(own) == set(children) == {str(errno.EPERM)}, Counter(own) + Counter(children)
    assert sum(own.values()) > 1000
    assert sum(children.values()) > 100, "each child was forked, and inherited, at some moment of a swap"
    assert counted is not None
    assert counted.refused_calls > 1000


def test_a_loader_that_dies_in_the_middle_leaves_enforcement_and_the_next_one_finishes(
    options: KernelOptions, cgroup: Cgroup, server: int, killed_sensor: None
) -> None:
    request = json.dumps(dataclasses.asdict(options.request()))
    with start_python(DYING_ADOPTION, request) as dying:
        pass
    assert dying.returncode == 9
    assert connect_inside(cgroup, server) == errno.EPERM
    with contextlib.closing(Kernel.start(options)) as kernel:
        assert kernel.adopted
        assert connect_inside(cgroup, server) == errno.EPERM
    left = pins.Pins(options.pin_directory).names("maps")
    assert not [name for name in left if "-next-" in name]


def test_maps_and_links_are_the_same_objects_after_an_adoption(options: KernelOptions) -> None:
    from sensor.kernel import bpf_syscall as bpf  # noqa: PLC0415 - used here only

    def identities() -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
        ours, maps, links = pins.Pins(options.pin_directory), {}, {}
        for name in ("processes", "quarantines", "events", "sockets"):
            fd = ours.get("maps", name)
            assert fd is not None
            maps[name] = bpf.map_info(fd).map_id
            os.close(fd)
        for name in ("connect4", "packet_egress", "on_fork"):
            fd = ours.get("links", name)
            assert fd is not None
            links[name] = (bpf.link_info(fd).link_id, bpf.link_info(fd).program_id)
            os.close(fd)
        return maps, links

    Kernel.start(options).close()
    maps, links = identities()
    Kernel.start(options).close()
    maps_after, links_after = identities()
    assert maps_after == maps
    assert {name: ids[0] for name, ids in links_after.items()} == {
        name: ids[0] for name, ids in links.items()
    }
    assert links_after["connect4"][1] != links["connect4"][1], "the program was swapped"
    assert links_after["on_fork"][1] == links["on_fork"][1], "its dispatcher stays, what it calls was swapped"
