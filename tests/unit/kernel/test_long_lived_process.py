# SPDX-License-Identifier: Apache-2.0
"""What the long-lived sensor must not carry, and what its errors must say."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from sensor.kernel.errors import BpfCallError, PinsIncompatible
from sensor.kernel.launch import LoadRequest
from sensor.kernel.runtime import KernelOptions

ROOT = Path(__file__).resolve().parents[3]


def test_importing_the_kernel_part_brings_in_neither_the_compiler_nor_the_loader() -> None:
    code = "import sys, sensor.kernel; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    loaded = set(result.stdout.split())
    assert "sensor.kernel.runtime" in loaded
    assert not loaded & {
        "bcc",
        "numpy",
        "sensor.kernel.loader",
        "sensor.kernel.btf",
        "sensor.kernel.compiled",
    }


def test_a_refused_command_says_what_was_refused_and_what_to_do() -> None:
    error = BpfCallError("OBJ_GET", "/sys/fs/bpf/nsp/v1/maps/events", errno.EPERM)
    assert str(error).startswith(
        "bpf OBJ_GET /sys/fs/bpf/nsp/v1/maps/events: Operation not permitted; needs root"
    )
    assert not error.retryable
    assert BpfCallError("PROG_LOAD", "", errno.EAGAIN).retryable


def test_pins_that_cannot_be_adopted_name_the_command_that_removes_them() -> None:
    assert "nsp sensor unload" in str(PinsIncompatible("pinned map x is of another size"))


def test_a_request_survives_its_way_to_the_loader() -> None:
    request = LoadRequest("/sys/fs/bpf/x", "/sys/fs/cgroup", None, "/cache", {"NSP_RING_PAGES": 2})
    assert LoadRequest.from_bytes(request.to_bytes()) == request


def test_options_are_checked_before_anything_is_started() -> None:
    with pytest.raises(ValueError, match="power of two"):
        KernelOptions(ring_bytes=5_000_000)
