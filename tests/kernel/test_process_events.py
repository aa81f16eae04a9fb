# SPDX-License-Identifier: Apache-2.0
"""Fork, exec and exit: who a program really is, whatever it was called by."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sensor.kernel import Kernel
from sensor.publish.images import executable_path
from sensor.publish.layout import (
    EXEC,
    EXIT,
    FORK,
    PATH_DETACHED,
    PATH_TRUNCATED,
    PROCESS_INVENTORY,
    STDIO_KINDS,
)
from tests.support.kernel_watch import Actor, Seen, Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from sensor.kernel import KernelOptions
    from tests.support.kernel_lab import Cgroup

TRUE = Path(shutil.which("true") or "/bin/true").resolve()
ARGV_MAX_BYTES = 1024
# clone(CLONE_PARENT | SIGCHLD) has no wrapper; the child only leaves.
SIBLING = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None)
tgid = libc.syscall(ctypes.c_long(56 if os.uname().machine == "x86_64" else 220),
                    ctypes.c_ulong(0x8000 | signal.SIGCHLD), None, None, None, None)
if tgid == 0:
    os._exit(0)
"""
EXEC_FROM_THREAD = """
import os, sys, threading, time
threading.Thread(target=os.execv, args=(sys.argv[1], [sys.argv[1], "from-thread"])).start()
time.sleep(60)
"""
MANY_THREADS = """
import threading
for _ in range(8):
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
"""


def run(watch: Watch, *argv: str | Path, pass_fds: tuple[int, ...] = (), user: int | None = None) -> Seen:
    """Run it to its end; returns its exec event."""
    process = subprocess.Popen([str(part) for part in argv], pass_fds=pass_fds, user=user)
    assert process.wait() == 0
    return watch.wait_for(EXEC, tgid=process.pid)


def is_file(seen: Seen, path: Path) -> bool:
    """Whether the event's device and inode are the file's."""
    status = path.stat()
    return (seen["inode"], seen["dev"]) == (
        status.st_ino,
        os.major(status.st_dev) << 20 | os.minor(status.st_dev),
    )


@pytest.mark.parametrize("call", ["plain", "symlink", "dotted"])
def test_a_program_is_the_file_it_resolves_to(watch: Watch, tmp_path: Path, call: str) -> None:
    link = tmp_path / "innocent"
    link.symlink_to(TRUE)
    called = {
        "plain": TRUE,
        "symlink": link,
        "dotted": Path(f"{TRUE.parent}/../{TRUE.parent.name}/{TRUE.name}"),
    }
    seen = run(watch, called[call])
    assert seen.path == str(TRUE)
    assert is_file(seen, TRUE)
    assert seen.argv == [str(called[call]).encode()]
    assert (seen["nlink"], seen["path_flags"]) == (TRUE.stat().st_nlink, 0)
    assert seen["mode"] & 0o777 == 0o755


def test_a_hard_link_has_its_own_path_and_the_same_inode(watch: Watch, tmp_path: Path) -> None:
    program, link = tmp_path / "program", tmp_path / "link"
    shutil.copy(TRUE, program)
    link.hardlink_to(program)
    seen = run(watch, link)
    assert seen.path == str(link.resolve())
    assert is_file(seen, program)
    assert seen["nlink"] == 2


def test_a_script_is_its_interpreter_with_the_script_in_argv(watch: Watch, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o755)
    seen = run(watch, script, "argument")
    assert seen.path == str(Path("/bin/sh").resolve())
    assert seen.argv == [b"/bin/sh", str(script).encode(), b"argument"]
    assert seen.strings["comm"].rstrip(b"\0") == b"job.sh"


def test_a_deleted_program_has_its_former_path_and_no_links(watch: Watch, tmp_path: Path) -> None:
    program = tmp_path / "gone"
    shutil.copy(TRUE, program)
    with program.open("rb") as opened:
        inode = program.stat().st_ino
        program.unlink()
        seen = run(watch, f"/proc/self/fd/{opened.fileno()}", pass_fds=(opened.fileno(),))
    assert (seen["inode"], seen["nlink"]) == (inode, 0)
    assert seen.path == str(program.resolve())


def test_a_program_in_memory_has_its_name_and_no_links(watch: Watch) -> None:
    descriptor = os.memfd_create("innocent")
    try:
        os.write(descriptor, TRUE.read_bytes())
        seen = run(watch, f"/proc/self/fd/{descriptor}", pass_fds=(descriptor,))
        assert seen["inode"] == os.fstat(descriptor).st_ino
    finally:
        os.close(descriptor)
    assert seen["nlink"] == 0
    assert seen["path_flags"] & PATH_DETACHED
    assert executable_path(seen.tail[: seen["path_bytes"]], seen["path_flags"]) == "memfd:innocent"


def test_a_path_too_long_keeps_its_end_and_says_so(watch: Watch, tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*(f"{number:02}-" + "d" * 97 for number in range(12)))
    deep.mkdir(parents=True)
    program = deep / "program"
    shutil.copy(TRUE, program)
    seen = run(watch, program)
    assert seen["path_flags"] & PATH_TRUNCATED
    assert str(program).endswith(seen.path)
    assert seen.path.count("/") >= 8


def test_argv_is_what_the_process_got_up_to_the_limit(watch: Watch) -> None:
    odd = [b"", b"\xff\xfe", b"a b\nc"]
    process = subprocess.Popen([str(TRUE), *odd, b"x" * 3000])
    process.wait()
    seen = watch.wait_for(EXEC, tgid=process.pid)
    whole = b"\0".join([str(TRUE).encode(), *odd, b"x" * 3000]) + b"\0"
    assert seen["argv_total_bytes"] == len(whole)
    assert seen["argv_bytes"] == ARGV_MAX_BYTES
    assert seen.tail[seen["path_bytes"] :] == whole[:ARGV_MAX_BYTES]


def test_user_and_parent_are_the_process_s_own(watch: Watch) -> None:
    seen = run(watch, TRUE, user=65534)
    assert seen["uid"] == 65534
    assert (seen["parent_tgid"], seen["parent_start_ns"]) == (os.getpid(), watch.key(os.getpid()).start_ns)


def test_namespaces_are_those_the_process_is_in(watch: Watch) -> None:
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "sleep", "60"]
    with subprocess.Popen(command) as outer:
        try:
            seen = watch.wait_for(
                EXEC, where=lambda seen: seen["parent_tgid"] == outer.pid and seen.argv[0] == b"sleep"
            )
            for kind, field in (("mnt", "mnt_ns"), ("net", "net_ns"), ("pid", "pid_ns")):
                own = Path(f"/proc/{seen.tgid}/ns/{kind}").stat().st_ino
                assert seen[field] == own != Path(f"/proc/self/ns/{kind}").stat().st_ino
        finally:
            os.kill(seen.tgid, signal.SIGKILL)


def test_standard_streams_show_what_they_are(watch: Watch, tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([TRUE], stdin=subprocess.DEVNULL, stdout=write_end, stderr=log)
        process.wait()
    os.close(read_end)
    os.close(write_end)
    kinds = watch.wait_for(EXEC, tgid=process.pid).strings["stdio_kind"]
    assert [STDIO_KINDS[kind] for kind in kinds] == ["TERMINAL", "PIPE", "FILE"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_socket_as_standard_stream_shows_its_remote_end(watch: Watch, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        port = server.getsockname()[1]
        with socket.create_connection((address, port)) as flow, socket.socket(socket.AF_UNIX) as other:
            process = subprocess.Popen(
                [TRUE], stdin=flow.fileno(), stdout=flow.fileno(), stderr=other.fileno()
            )
            process.wait()
    seen = watch.wait_for(EXEC, tgid=process.pid)
    assert [STDIO_KINDS[kind] for kind in seen.strings["stdio_kind"]] == ["INET", "INET", "SOCKET"]
    assert (seen.address("stdio_address"), seen["stdio_port"]) == (address, port)


def test_fork_names_parent_and_child_and_the_map_knows_the_ancestors(watch: Watch) -> None:
    with Actor(watch.cgroup) as actor:
        child = actor.tell("helper", "child")
        grandchild = actor.tell("ask", "child", "helper", "grandchild")
        seen = watch.wait_for(FORK, tgid=child)
        assert (seen["parent_tgid"], seen["parent_start_ns"]) == (actor.tgid, watch.key(actor.tgid).start_ns)
        assert seen["cgroup_id"] == watch.cgroup.id
        assert seen["start_ns"] == watch.key(child).start_ns
        process = watch.kernel.state.process(grandchild)
        assert process is not None
        lineage = [ancestor.tgid for ancestor in process.ancestors]
        assert lineage[:3] == [child, actor.tgid, os.getpid()]
        assert process.inode == Path(f"/proc/{grandchild}/exe").stat().st_ino


def test_a_thread_is_no_process(watch: Watch) -> None:
    process = subprocess.Popen([sys.executable, "-c", MANY_THREADS])
    process.wait()
    watch.wait_for(EXIT, tgid=process.pid)
    assert [seen for seen in watch.events(FORK) if seen["parent_tgid"] == process.pid] == []
    assert len(watch.events(EXIT, tgid=process.pid)) == 1


def test_exec_from_a_thread_keeps_the_process_s_identity(watch: Watch) -> None:
    process = subprocess.Popen([sys.executable, "-c", EXEC_FROM_THREAD, str(TRUE)])
    process.wait()
    born = watch.wait_for(FORK, tgid=process.pid)
    seen = watch.wait_for(EXEC, tgid=process.pid, where=lambda seen: seen.argv[-1] == b"from-thread")
    ended = watch.wait_for(EXIT, tgid=process.pid)
    assert seen.path == str(TRUE)
    assert seen["start_ns"] == born["start_ns"] == ended["start_ns"]


def test_a_child_made_a_sibling_still_descends_from_who_made_it(watch: Watch) -> None:
    process = subprocess.Popen([sys.executable, "-c", SIBLING])
    process.wait()
    seen = watch.wait_for(FORK, where=lambda seen: seen["parent_tgid"] == process.pid)
    assert seen.tgid != process.pid


@pytest.mark.parametrize(
    ("end", "code"),
    [(lambda: os._exit(7), 7 << 8), (lambda: os.kill(os.getpid(), signal.SIGKILL), signal.SIGKILL)],
)
def test_exit_says_how_and_forgets_the_process(watch: Watch, end: Callable[[], None], code: int) -> None:
    tgid = os.fork()
    if tgid == 0:
        end()
    os.waitpid(tgid, 0)
    seen = watch.wait_for(EXIT, tgid=tgid)
    assert seen["exit_code"] == code
    assert watch.kernel.state.process(tgid) is None


def test_what_ran_before_the_sensor_is_known_with_its_ancestors(
    options: KernelOptions, cgroup: Cgroup
) -> None:
    with Actor(cgroup) as actor:
        child = actor.tell("helper", "child")
        with Kernel.start(options) as kernel:
            kernel.run_inventory()
            watch = Watch(kernel, cgroup)
            seen = watch.wait_for(PROCESS_INVENTORY, tgid=child)
            assert seen.path == str(Path(f"/proc/{child}/exe").readlink())
            assert (seen["parent_tgid"], seen["cgroup_id"]) == (actor.tgid, cgroup.id)
            process = kernel.state.process(child)
            assert process is not None
            assert [ancestor.tgid for ancestor in process.ancestors[:2]] == [actor.tgid, os.getpid()]
            born = actor.tell("ask", "child", "helper", "grandchild")
            fork = watch.wait_for(FORK, tgid=born)
            assert fork["parent_start_ns"] == seen["start_ns"]
            assert abs(seen["start_ns"] - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) < 600 * 10**9


def test_nothing_was_lost_on_the_way(watch: Watch) -> None:
    watch.events()
    lost = watch.counted()
    # Not lost: another process of the machine that is not known yet is filled from its task.
    assert lost.keys() <= {"owner_unknown", "path_truncated", "process_unknown"}, lost
