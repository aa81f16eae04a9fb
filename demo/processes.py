# SPDX-License-Identifier: Apache-2.0
"""Starting the demonstration's processes: in a namespace and cgroup, or beside us, and ending them.

A workload enters its cgroup before it runs anything of its own, gets a mount namespace in which
``/etc/resolv.conf`` names the demonstration's name server, and dies with us (PR_SET_PDEATHSIG), so
that an interrupted run leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from demo.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from demo.network import Host

PR_SET_PDEATHSIG = 1
STOP_TIMEOUT_S = 10.0
LAUNCH = """
echo $$ > "$1"
shift
exec nsenter --net="$1" -- unshare --mount --propagation private -- sh -c '
mount --bind "$1" /etc/resolv.conf; shift; exec "$@"' sh "${@:2}"
"""
WORKLOADS = Path(__file__).parent / "workloads"
PYTHON = "/usr/bin/python3"  # as in an image: standard library only, no environment of ours
# The shells of an image find no start-up files of the machine they happen to run on.
WORKLOAD_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start_workload(
    host: Host,
    cgroup: Path,
    resolver: Path,
    arguments: Sequence[str],
    log: IO[str],
) -> subprocess.Popen[str]:
    """Start one of ``demo/workloads`` on a host; stdin and stdout are pipes of text.

    Args:
        host: network namespace to run in.
        cgroup: cgroup directory to be in from the start.
        resolver: file to use as /etc/resolv.conf.
        arguments: program file name and its arguments.
        log: where its stderr goes.
    """
    command = launch_command(host, cgroup, resolver, [PYTHON, "-u", *arguments])
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        cwd=WORKLOADS, env=WORKLOAD_ENVIRONMENT, start_new_session=True, preexec_fn=_die_with_parent,  # noqa: PLW1509 - no threads touch it before exec
    )  # fmt: skip


def launch_command(host: Host, cgroup: Path, resolver: Path, program: Sequence[str]) -> list[str]:
    """What starts a program on a host, in a cgroup from its first instruction, with that /etc/resolv.conf."""
    place = [str(cgroup / "cgroup.procs"), f"/run/netns/{host.namespace}", str(resolver)]
    return ["bash", "-c", LAUNCH, "launch", *place, *program]


def start_service(
    command: Sequence[str], environment: Mapping[str, str], log: IO[str]
) -> subprocess.Popen[str]:
    """Start a part of the pipeline beside us; its output goes to ``log``."""
    return subprocess.Popen(
        command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True,
        start_new_session=True, preexec_fn=_die_with_parent,  # noqa: PLW1509 - as above
    )  # fmt: skip


def stop(process: subprocess.Popen[str], name: str) -> int:
    """End a process with SIGTERM and return its exit code; SIGKILL and DemoError if it will not."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        process.kill()
        process.wait()
        message = f"{name} did not end within {STOP_TIMEOUT_S:.0f} s of SIGTERM"
        raise DemoError(message) from error


def wait_until(
    what: str, condition: Callable[[], bool], timeout_s: float, watched: Mapping[str, subprocess.Popen[str]]
) -> None:
    """Poll ``condition()`` until true; fail at once when a watched process has died.

    Raises:
        DemoError: it took longer than ``timeout_s``, or a process it depends on ended.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        for name, process in watched.items():
            if process.poll() is not None:
                message = f"{name} ended with exit code {process.returncode} while waiting for {what}"
                raise DemoError(message)
        if time.monotonic() > deadline:
            message = f"{what} did not happen within {timeout_s:.0f} s"
            raise DemoError(message)
        time.sleep(0.02)
