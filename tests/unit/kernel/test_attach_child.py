# SPDX-License-Identifier: Apache-2.0
"""The attaching child as a process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

WAIT_S = 20.0
# Starts the child as the sensor does, with a standard input that stays open, and lives until it is killed.
PARENT = """
import subprocess, sys, time
from sensor.kernel.interfaces import attach_command
child = subprocess.Popen(attach_command())
print(child.pid, flush=True)
time.sleep(600)
"""


def runs(pid: int) -> bool:
    """Whether a process has not ended; one that nobody has waited for has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def has_imported(pid: int) -> bool:
    """Whether it is past its imports and waits for its request on the pipe."""
    return "pipe" in Path(f"/proc/{pid}/wchan").read_text(encoding="ascii")


def test_the_child_is_killed_with_the_sensor() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=pipe, stdout=pipe, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        until = time.monotonic() + WAIT_S
        while not has_imported(child):
            assert time.monotonic() < until, "the child does not wait for its request"
            time.sleep(0.02)
        parent.kill()
        parent.wait()
        while runs(child):
            assert time.monotonic() < until, "the child outlived the sensor"
            time.sleep(0.02)
