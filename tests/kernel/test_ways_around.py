# SPDX-License-Identifier: Apache-2.0
"""Each way around a profile that docs/ways-around.md lists, tried on the running kernel.

The profile: one program, a copy of Python, may connect to one address; nothing else in the workload may
connect anywhere. Each test takes one way to pass for that program, or past the hooks.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.kernel_lab import Cgroup
from tests.support.kernel_watch import Actor, Watch
from tests.support.profile_lab import ProfileLab, network, traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

PYTHON = str(Path(sys.executable).resolve())
HERE, THERE = "127.0.0.1", "127.0.0.2"
CONNECT = """
import socket, sys
s = socket.socket(); s.settimeout(2)
try:
    s.connect((sys.argv[1], int(sys.argv[2]))); print("connected")
except PermissionError:
    print("EPERM")
"""


@pytest.fixture(scope="module")
def lab(watch: Watch) -> ProfileLab:
    return ProfileLab(watch.kernel)


@pytest.fixture
def pod(watch: Watch) -> Iterator[Cgroup]:
    path = watch.cgroup.path / "ways"
    path.mkdir()
    yield Cgroup(path)
    Cgroup(path).remove()


@pytest.fixture
def trusted(lab: ProfileLab, pod: Cgroup, tmp_path: Path) -> Path:
    """The program that may connect; the profile is in force."""
    path = tmp_path / "trusted"
    shutil.copy(PYTHON, path)
    rules = lab.ruleset(network(traffic(f"{HERE}/32")))
    policy = lab.policy([], programs={(lab.program(str(path)), 0): [rules]})
    lab.switch(lab.slot_for(pod.id), policy)
    return path


@pytest.fixture
def port(peer: Actor) -> str:
    return str(peer.listen("server"))


def outcome(pod: Cgroup, *command: str) -> str:
    run = subprocess.run(pod.command(*command), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def connects(pod: Cgroup, port: str, *program: str) -> str:
    return outcome(pod, *program, "-c", CONNECT, HERE, port)


def test_the_program_itself_and_its_links(pod: Cgroup, trusted: Path, port: str) -> None:
    link = trusted.with_name("link")
    link.symlink_to(trusted)
    assert connects(pod, port, str(trusted)) == "connected"
    assert connects(pod, port, str(link)) == "connected"


def test_another_name_of_the_file_is_another_program(pod: Cgroup, trusted: Path, port: str) -> None:
    os.link(trusted, trusted.with_name("hard"))
    shutil.copy(trusted, trusted.with_name("copy"))
    assert connects(pod, port, str(trusted.with_name("hard"))) == "EPERM"
    assert connects(pod, port, str(trusted.with_name("copy"))) == "EPERM"


def test_names_a_process_gives_itself_do_not_count(pod: Cgroup, trusted: Path, port: str) -> None:
    assert connects(pod, port, "bash", "-c", f'exec -a {trusted} {PYTHON} "$@"', "x") == "EPERM"
    renamed = f"open('/proc/self/comm','w').write('trusted')\n{CONNECT}"
    assert outcome(pod, PYTHON, "-c", renamed, HERE, port) == "EPERM"


def test_a_program_in_memory_or_deleted_has_no_path(pod: Cgroup, trusted: Path, port: str) -> None:
    from_memory = (
        "import os, sys\n"
        "fd = os.memfd_create('trusted', 0)\n"
        f"os.write(fd, open('{trusted}', 'rb').read())\n"
        "os.execv(f'/proc/self/fd/{fd}', ['trusted', '-c', *sys.argv[1:]])\n"
    )
    assert outcome(pod, PYTHON, "-c", from_memory, CONNECT, HERE, port) == "EPERM"
    deleted = (
        "import os, sys\n"
        f"fd = os.open('{trusted}', os.O_RDONLY); os.unlink('{trusted}')\n"
        "os.execv(f'/proc/self/fd/{fd}', ['trusted', '-c', *sys.argv[1:]])\n"
    )
    assert outcome(pod, PYTHON, "-c", deleted, CONNECT, HERE, port) == "EPERM"


def test_a_program_opened_by_descriptor_is_the_one_it_is(pod: Cgroup, trusted: Path, port: str) -> None:
    by_descriptor = (
        "import os, sys\n"
        f"fd = os.open('{trusted}', os.O_RDONLY)\n"
        "os.execv(f'/proc/self/fd/{fd}', ['x', '-c', *sys.argv[1:]])\n"
    )
    assert outcome(pod, PYTHON, "-c", by_descriptor, CONNECT, HERE, port) == "connected"


def loader() -> str:
    found = subprocess.run(["readelf", "-l", PYTHON], capture_output=True, text=True, check=True).stdout
    return found.split("interpreter: ")[1].split("]")[0]


def test_a_program_started_through_the_dynamic_loader_is_the_loader(
    pod: Cgroup, trusted: Path, port: str
) -> None:
    assert connects(pod, port, loader(), str(trusted)) == "EPERM"


def test_a_mount_that_any_user_can_make_does_not_lend_its_path(pod: Cgroup, trusted: Path, port: str) -> None:
    mounted = f'mount --bind {PYTHON} {trusted} && exec {trusted} "$@"'
    assert connects(pod, port, "unshare", "-rm", "sh", "-c", mounted, "x") == "EPERM"


def test_a_mount_by_the_administrator_of_the_workload_lends_its_path(
    pod: Cgroup, trusted: Path, port: str
) -> None:
    # Not stopped: who may mount in the workload's own mount namespace may also replace the file.
    mounted = f'mount --bind {PYTHON} {trusted} && exec {trusted} "$@"'
    assert connects(pod, port, "unshare", "-m", "sh", "-c", mounted, "x") == "connected"


def test_a_changed_root_does_not_shorten_the_path(pod: Cgroup, trusted: Path, port: str) -> None:
    jail = trusted.with_name("jail")
    inner = jail / trusted.relative_to("/")
    inner.parent.mkdir(parents=True)
    shutil.copy(PYTHON, inner)
    for name in ("usr", "lib", "lib64", "etc", "proc"):
        if Path("/", name).is_dir():
            (jail / name).mkdir(exist_ok=True)
    binds = " && ".join(f"mount --rbind /{name.name} {name}" for name in jail.iterdir() if name.name != "tmp")
    command = f'{binds} && exec chroot {jail} {trusted} "$@"'
    assert connects(pod, port, "unshare", "-m", "sh", "-c", command, "x") == "EPERM"


def test_children_are_the_program_until_they_become_another(pod: Cgroup, trusted: Path, port: str) -> None:
    forked = f"import os\nif os.fork(): os.wait(); os._exit(0)\n{CONNECT}"
    assert outcome(pod, str(trusted), "-c", forked, HERE, port) == "connected"
    other = f"import os, sys\nos.execv('{PYTHON}', ['{trusted}', '-c', *sys.argv[1:]])"
    assert outcome(pod, str(trusted), "-c", other, CONNECT, HERE, port) == "EPERM"


def test_a_replaced_file_keeps_the_path(pod: Cgroup, trusted: Path, port: str) -> None:
    # Not stopped: the path is the identity, so who may write it is trusted with it.
    new = trusted.with_name("new")
    shutil.copy(PYTHON, new)
    new.rename(trusted)
    assert connects(pod, port, str(trusted)) == "connected"


def test_a_socket_handed_over_stays_what_it_was_decided_to_be(pod: Cgroup, trusted: Path, port: str) -> None:
    # Not stopped for the flow that was allowed; a new connect by the receiver is.
    receiver = (
        "import socket, sys\n"
        "pipe = socket.socket(fileno=0)\n"
        "_, fds, _, _ = socket.recv_fds(pipe, 1, 1)\n"
        "s = socket.socket(fileno=fds[0]); s.send(b'x')\n"
        "try: s.connect(('127.0.0.1', int(sys.argv[1])))\n"
        "except OSError as e: pass\n"
        "t = socket.socket()\n"
        "try: t.connect(('127.0.0.1', int(sys.argv[1]))); print('connected')\n"
        "except PermissionError: print('EPERM')\n"
    )
    sender = (
        "import socket, subprocess, sys\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "here, there = socket.socketpair()\n"
        f"child = subprocess.Popen(['{PYTHON}', '-c', sys.argv[3], sys.argv[2]], stdin=there)\n"
        "socket.send_fds(here, [b'x'], [s.fileno()])\n"
        "sys.exit(child.wait())\n"
    )
    assert outcome(pod, str(trusted), "-c", sender, HERE, port, receiver) == "EPERM"


TRICKS = {
    "v4-mapped": "s=socket.socket(socket.AF_INET6); s.connect(('::ffff:127.0.0.2', port))",
    "fast open": "s=socket.socket(); s.sendto(b'x', 0x20000000, ('127.0.0.2', port))",
    "udp connect": "s=socket.socket(type=socket.SOCK_DGRAM); s.connect(('127.0.0.2', port))",
    "udp sendto": "s=socket.socket(type=socket.SOCK_DGRAM); s.sendto(b'x', ('127.0.0.2', port))",
    "udp sendmsg": "s=socket.socket(type=socket.SOCK_DGRAM); s.sendmsg([b'x'], [], 0, ('127.0.0.2', port))",
    "non-blocking": "s=socket.socket(); s.setblocking(False); s.connect(('127.0.0.2', port))",
    "mptcp": "s=socket.socket(proto=262); s.connect(('127.0.0.2', port))",
    "bound first": "s=socket.socket(); s.bind(('127.0.0.1', 0)); s.connect(('127.0.0.2', port))",
    "allowed peer first": (
        "s=socket.socket(type=socket.SOCK_DGRAM); s.connect(('127.0.0.1', port)); s.send(b'x')\n"
        "s.connect(('127.0.0.2', port))"
    ),
    "allowed peer, other address": (
        "s=socket.socket(type=socket.SOCK_DGRAM); s.connect(('127.0.0.1', port))\n"
        "s.sendto(b'x', ('127.0.0.2', port))"
    ),
    "raw": "socket.socket(type=socket.SOCK_RAW, proto=1)",
    "raw tcp": "socket.socket(type=socket.SOCK_RAW, proto=6)",
    "raw v6": "socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58)",
    "header included": "socket.socket(type=socket.SOCK_RAW, proto=255)",
    "another network namespace": (
        "import ctypes; ctypes.CDLL(None).unshare(0x40000000)\n"
        "s=socket.socket(); s.connect(('127.0.0.2', port))"
    ),
    "another thread": (
        "import threading; out=[]\n"
        "def go():\n"
        "    try: socket.socket().connect(('127.0.0.2', port))\n"
        "    except OSError as e: out.append(e)\n"
        "t=threading.Thread(target=go); t.start(); t.join()\n"
        "if out: raise out[0]"
    ),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_call_that_goes_another_way_is_refused_too(
    pod: Cgroup, trusted: Path, peer: Actor, trick: str
) -> None:
    port = peer.listen("server", THERE)
    code = f"import socket\nport={port}\ntry:\n" + "".join(
        f"    {line}\n" for line in TRICKS[trick].splitlines()
    )
    code += (
        "    print('passed')\nexcept PermissionError: print('EPERM')\nexcept OSError as e: print(e.errno)\n"
    )
    assert outcome(pod, str(trusted), "-c", code) == "EPERM"


def test_io_uring_is_refused_too(pod: Cgroup, trusted: Path, peer: Actor, tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler to build the io_uring client with")
    source = Path(__file__).parents[1] / "support" / "uring_connect.c"
    program = tmp_path / "uring"
    subprocess.run(["cc", "-O1", "-o", program, source], check=True)
    port = peer.listen("server", THERE)
    assert outcome(pod, str(program), THERE, str(port)) == "EPERM"


def test_a_listener_of_another_program_does_not_lend_its_flows(
    lab: ProfileLab, watch: Watch, peer: Actor
) -> None:
    """A socket opened before the profile is decided by the program that holds it when it comes."""
    path = watch.cgroup.path / "late"
    path.mkdir()
    try:
        slot = lab.slot_for(path.stat().st_ino)
        with Actor(Cgroup(path)) as actor:
            port = peer.listen("server")
            assert actor.connect("old", HERE, port) is None
            assert peer.tell("accept", "server", "old") is None
            lab.govern(slot, network(traffic(f"{THERE}/32")))
            actor.tell("send", "old", "leak")
            assert peer.tell("recv", "old") == "ETIMEDOUT"
            assert actor.connect("new", HERE, port, kind=socket.SOCK_DGRAM) == "EPERM"
    finally:
        Cgroup(path).remove()
