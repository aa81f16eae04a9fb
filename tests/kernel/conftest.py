# SPDX-License-Identifier: Apache-2.0
"""What kernel tests start from: a cgroup, a pin directory, a started kernel part; all removed afterwards."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from sensor.kernel import Kernel, KernelOptions
from tests.support.host_lab import host_cgroups
from tests.support.kernel_lab import Cgroup, make_cgroup, make_pin_directory, remove_leftovers, remove_pins
from tests.support.kernel_watch import Actor, Watch, watching

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL_RING_BYTES = 1 << 20
# Nobody reads it between tests, and every process of the machine writes to it.
SHARED_RING_BYTES = 16 << 20


@pytest.fixture(scope="session", autouse=True)
def clean_start() -> None:
    """A run that was killed, by its time limit for one, could not clean up after itself."""
    remove_leftovers()


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    """A cgroup of the test's own; what still runs in it afterwards is killed."""
    made = make_cgroup()
    yield made
    made.remove()


@pytest.fixture
def pin_directory() -> Iterator[Path]:
    """A pin directory of the test's own, not made yet; unloaded afterwards."""
    directory = make_pin_directory()
    yield directory
    remove_pins(directory)


@pytest.fixture
def options(cgroup: Cgroup, pin_directory: Path) -> KernelOptions:
    """Options for a kernel part that sees only the test's cgroup."""
    return KernelOptions(
        pin_directory=pin_directory,
        cgroup_root=cgroup.path,
        ring_bytes=SMALL_RING_BYTES,
        max_processes=8192,
    )


@pytest.fixture(scope="module")
def shared_kernel() -> Iterator[tuple[Kernel, Cgroup, Path]]:
    """A started kernel part for tests that leave nothing in it: loading takes most of such a test."""
    made, directory = make_cgroup(), make_pin_directory()
    try:
        options = KernelOptions(
            pin_directory=directory, cgroup_root=made.path, ring_bytes=SHARED_RING_BYTES, max_processes=8192
        )
        with contextlib.closing(Kernel.start(options)) as started:
            yield started, made, directory
    finally:
        remove_pins(directory)
        made.remove()


@pytest.fixture
def kernel(options: KernelOptions) -> Iterator[Kernel]:
    """A started kernel part."""
    with contextlib.closing(Kernel.start(options)) as started:
        yield started


@pytest.fixture(scope="module")
def watch() -> Iterator[Watch]:
    """A kernel part for a whole module: what its tests see is told apart by process."""
    with watching() as started:
        yield started


@pytest.fixture
def slices(watch: Watch) -> Iterator[None]:
    """Cgroups as a host with systemd has them."""
    with host_cgroups(watch):
        yield


@pytest.fixture
def peer(watch: Watch) -> Iterator[Actor]:
    """Somebody who is never quarantined, to listen and to be talked to."""
    with Actor(watch.cgroup) as started:
        yield started
