# SPDX-License-Identifier: Apache-2.0
"""Loading: what is there afterwards, what is not there after a failure, and what is refused with a cure."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from sensor.kernel import (
    Kernel,
    KernelOptions,
    LoaderFailed,
    PinsIncompatible,
    PinsInUse,
    ProgramRefused,
    pins,
)
from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.programs import Kind, of_kind
from sensor.kernel.source import source_directory
from tests.support.kernel_lab import Cgroup, events_of, make_cgroup, start_python

if TYPE_CHECKING:
    from pathlib import Path

EXEC = 1
ATTACHED = of_kind(Kind.RAW_TRACEPOINT, Kind.TP_BTF, Kind.CGROUP)
# Runs the loader's work in this process, with one step made to fail at its third time.
FAILING_LOAD = """
import json, sys
from sensor.kernel import bpf_syscall as bpf, errors, loader, pins
from sensor.kernel.launch import LoadRequest
step, calls, real = sys.argv[2], 0, getattr(bpf, sys.argv[2])
def fails(*arguments, **named):
    global calls
    calls += 1
    if calls == 3:
        raise errors.BpfCallError(step, "made to fail", 12)
    return real(*arguments, **named)
setattr(bpf, step, fails)
try:
    loader.load(LoadRequest(**json.loads(sys.argv[1])))
except errors.BpfCallError as error:
    print(error.errno, flush=True)
sys.stdin.read()
"""


def test_a_fresh_load_pins_links_and_maps_and_sees_what_is_executed(
    kernel: Kernel, options: KernelOptions, cgroup: Cgroup
) -> None:
    cgroup.run("true")
    chunk = kernel.ring.read(options.ring_bytes)
    assert not kernel.adopted
    assert chunk is not None
    executed = [event for event in events_of(chunk) if event.type == EXEC and event.cgroup_id == cgroup.id]
    assert any(b"true\0" in event.data for event in executed)
    assert pins.Pins(options.pin_directory).names("links") == {program.name for program in ATTACHED}


def test_closing_leaves_the_programs_and_unloading_removes_everything(
    options: KernelOptions, cgroup: Cgroup
) -> None:
    Kernel.start(options).close()
    link = pins.Pins(options.pin_directory).get("links", "connect4")
    assert link is not None
    assert bpf.link_info(link).cgroup_id == cgroup.id

    Kernel.unload(options.pin_directory)
    assert not options.pin_directory.exists()
    assert bpf.link_info(link).cgroup_id == 0, "detached although this test still holds the link"
    os.close(link)
    Kernel.unload(options.pin_directory)  # a second time changes nothing


@pytest.mark.parametrize("step", ["link_create", "raw_tracepoint_open", "obj_pin", "prog_load", "map_create"])
def test_a_load_that_fails_in_the_middle_leaves_nothing(
    options: KernelOptions, cgroup: Cgroup, step: str
) -> None:
    options.pin_directory.mkdir()
    # Without what was compiled before: a cache that fails is none.
    request = json.dumps(dataclasses.asdict(dataclasses.replace(options, cache_directory=None).request()))
    with start_python(FAILING_LOAD, request, step) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{errno.ENOMEM}\n"
        # Still alive, so nothing is gone merely because its descriptors were closed.
        assert list(options.pin_directory.iterdir()) == []
        assert process.stdin is not None
        process.stdin.close()


def test_c_that_does_not_compile_is_reported_in_the_compilers_words(
    options: KernelOptions, tmp_path: Path
) -> None:
    tree = tmp_path / "bpf"
    shutil.copytree(source_directory(), tree)
    with (tree / "process.c").open("a") as file:
        file.write("int broken(void) { return not_declared; }\n")
    with pytest.raises(LoaderFailed, match=r"process\.c:\d+.*not_declared"):
        Kernel.start(dataclasses.replace(options, source_directory=tree))
    assert not options.pin_directory.exists()


def test_a_refused_program_is_reported_with_the_end_of_the_verifiers_log() -> None:
    # r0 = *(u64 *)(r1 + 4096); exit
    beyond = bytes.fromhex("79100010000000009500000000000000")
    with pytest.raises(ProgramRefused, match="program beyond refused") as caught:
        bpf.prog_load(beyond, bpf.ProgramSpec("beyond", 8))
    assert "invalid" in caught.value.log_tail
    assert len(caught.value.log_tail.splitlines()) <= 20


def test_a_second_sensor_on_the_same_pins_is_refused(kernel: Kernel, options: KernelOptions) -> None:
    with pytest.raises(PinsInUse, match="stop it first"):
        pins.lock(options.pin_directory, wait_s=0.1)


def test_pins_of_another_layout_are_refused_with_the_command_that_removes_them(
    options: KernelOptions,
) -> None:
    (options.pin_directory / "v999").mkdir(parents=True)
    with pytest.raises(PinsIncompatible, match=r"v999.*nsp sensor unload"):
        Kernel.start(options)
    assert [path.name for path in options.pin_directory.iterdir()] == ["v999"]


def test_a_pinned_map_of_another_size_is_refused_and_stays(options: KernelOptions) -> None:
    ours = pins.Pins(options.pin_directory)
    with contextlib.ExitStack() as undo:
        options.pin_directory.mkdir()
        ours.create(undo)
        fd = bpf.map_create("settings", 2, 4, 16, 8)
        ours.pin(fd, "maps", "settings", undo)
        os.close(fd)
        with pytest.raises(PinsIncompatible, match=r"map settings.*nsp sensor unload"):
            Kernel.start(options)
        assert ours.names("maps") == {"settings"}


def test_links_on_another_cgroup_are_refused(options: KernelOptions) -> None:
    Kernel.start(options).close()
    other = make_cgroup()
    try:
        with pytest.raises(PinsIncompatible, match=r"not on \d+.*nsp sensor unload"):
            Kernel.start(dataclasses.replace(options, cgroup_root=other.path))
    finally:
        other.remove()


def test_links_whose_cgroup_is_gone_are_made_anew(options: KernelOptions) -> None:
    gone = make_cgroup()
    Kernel.start(dataclasses.replace(options, cgroup_root=gone.path)).close()
    gone.remove()
    with contextlib.closing(Kernel.start(options)) as kernel:
        assert kernel.adopted
        link = pins.Pins(options.pin_directory).get("links", "packet_egress")
        assert link is not None
        assert options.cgroup_root is not None
        assert bpf.link_info(link).cgroup_id == options.cgroup_root.stat().st_ino
        os.close(link)


def test_counters_start_at_zero_and_sizes_are_those_asked_for(kernel: Kernel, options: KernelOptions) -> None:
    assert kernel.counters()["ring_full"] == 0
    assert kernel.ring.size_bytes == options.ring_bytes
    assert len(kernel.sequences()) == bpf.possible_cpus()


def test_the_inventory_reports_processes_and_sockets_that_were_there_before(
    options: KernelOptions, cgroup: Cgroup
) -> None:
    before = subprocess.Popen(["sleep", "60"])
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            contextlib.closing(Kernel.start(options)) as kernel,
        ):
            kernel.run_inventory()
            known = dict(kernel.state.processes())
            chunk = kernel.ring.read(options.ring_bytes)
            assert chunk is not None
            events = [event for event in events_of(chunk) if event.flags & 1]
            port = server.getsockname()[1].to_bytes(2, "little")
    finally:
        before.kill()
        before.wait()
    assert before.pid in known
    assert {event.tgid for event in events if event.type == 16} >= {before.pid, os.getpid()}
    assert any(event.tgid == os.getpid() and port in event.data for event in events if event.type == 17)


def test_marking_a_process_touches_its_quarantine_root_only(kernel: Kernel, cgroup: Cgroup) -> None:
    from sensor.kernel import ProcessKey  # noqa: PLC0415 - used here only

    with cgroup.python("import sys; print('up', flush=True); sys.stdin.read()") as process:
        assert process.stdout is not None
        process.stdout.readline()
        known = kernel.state.process(process.pid)
        assert known is not None
        root = ProcessKey(process.pid, known.start_ns)
        assert kernel.state.mark_process(process.pid, known.start_ns, root)
        assert kernel.state.process(process.pid) == dataclasses.replace(known, quarantine_root=root)
        assert not kernel.state.mark_process(process.pid, known.start_ns + 1, root)
        assert process.stdin is not None
        process.stdin.close()
