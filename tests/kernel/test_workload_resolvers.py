# SPDX-License-Identifier: Apache-2.0
"""The resolvers a workload was started with, from real mounts; and whose loopback is believed."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from sensor.enforce.clock import SystemClock
from sensor.kernel.policy_state import LearnedKey, ResolverKey
from sensor.policy.learned import KEEP_NS, SWEEP_NS, LearnedSweep
from sensor.policy.resolvers import workload_resolvers
from sensor.policy.started_with import StartedWith
from sensor.workload.table import Workload
from tests.support.dns_messages import message
from tests.support.kernel_watch import boot_ns
from tests.support.name_lab import NAME, RESOLVER, a_record, name_lab
from tests.support.profile_lab import network, traffic
from tests.support.ring_records import mapped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.kernel_lab import Cgroup
    from tests.support.kernel_watch import Watch

PID = 4711
LISTED = "nameserver 10.96.0.10\nnameserver 127.0.0.1\nnameserver ::1\n"
SOON_S = 0.02  # the clock of files ticks every few milliseconds


class Root:
    """A workload's root directory, and its runtime."""

    def __init__(self, path: Path) -> None:
        self.proc = path / "proc"
        self.path = path / "root"
        self.file = self.path / "etc" / "resolv.conf"
        self.theirs = path / "resolv.conf"
        self.theirs.write_text(LISTED)
        self.file.parent.mkdir(parents=True)
        self.file.write_text("")
        (self.proc / str(PID)).mkdir(parents=True)
        (self.proc / str(PID) / "root").symlink_to(self.path)
        self._is_mounted = False  # Path.is_mount() says no of a file on the file system it lies on

    def mount(self) -> None:
        subprocess.run(["mount", "--bind", self.theirs, self.file], check=True)
        self._is_mounted = True

    def unmount(self) -> None:
        if self._is_mounted:
            subprocess.run(["umount", self.file], check=True)

    def began(self) -> int:
        """The workload begins now."""
        time.sleep(SOON_S)
        return time.time_ns()

    def resolvers(self, began_ns: int) -> tuple[str, ...]:
        return workload_resolvers(PID, began_ns, self.proc)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    made = Root(tmp_path)
    yield made
    made.unmount()


def test_the_runtimes_file_is_believed_but_for_the_loopback(root: Root) -> None:
    root.mount()
    assert root.resolvers(root.began()) == ("10.96.0.10",)


def test_a_file_changed_since_the_workload_began_is_not(root: Root) -> None:
    root.mount()
    began = root.began()
    with root.file.open("a") as file:
        file.write("nameserver 203.0.113.66\n")
    os.utime(root.file, (0, 0))  # what can be set says nothing
    assert root.resolvers(began) == ()


def test_a_file_of_the_image_is_not(root: Root) -> None:
    root.file.write_text(LISTED)
    assert root.resolvers(root.began()) == ()


@pytest.mark.parametrize("kind", ["link out", "link to a descriptor", "pipe", "directory"])
def test_what_is_no_file_of_the_root_names_nobody(root: Root, kind: str) -> None:
    root.file.unlink()
    if kind == "link out":
        root.file.symlink_to(root.theirs)
    elif kind == "link to a descriptor":
        root.file.symlink_to("/proc/self/fd/0")
    elif kind == "pipe":
        os.mkfifo(root.file)
    else:
        root.file.mkdir()
    assert root.resolvers(root.began()) == ()


def test_a_process_that_is_gone_names_nobody(root: Root) -> None:
    assert workload_resolvers(PID + 1, time.time_ns(), root.proc) == ()


def test_each_workload_is_asked_once_when_it_has_a_process(cgroup: Cgroup) -> None:
    pod = Workload("pod", "POD", cgroup.id, f"/{cgroup.path.name}", cgroup.id)
    service = Workload("host/x", "HOST_SERVICE", 1, "/", 1)
    found = StartedWith(cgroup.path.parent, SystemClock())
    assert (found.resolvers([pod, service]), found.waiting) == ({}, True)
    with cgroup.python("input()"):
        deadline = time.monotonic() + 5
        while not found.resolvers([pod, service]) and time.monotonic() < deadline:
            time.sleep(SOON_S)
        # This machine's own file is no mount: it was there before, and could be anybody's.
        assert (found.resolvers([pod, service]), found.waiting) == ({cgroup.id: ()}, False)
        cgroup.remove()
    assert found.resolvers([]) == {}


def test_the_nodes_stub_is_nobodys_resolver_in_another_network(watch: Watch) -> None:
    with name_lab(watch) as lab:
        lab.profiles.govern(lab.slot, network(traffic(names=[NAME])))
        lab.policy.drop_resolver(ResolverKey(lab.pod.id, mapped(RESOLVER)))
        lab.policy.set_resolver(ResolverKey(0, mapped(RESOLVER)))
        try:
            assert lab.ask() == "EPERM"
        finally:
            lab.policy.drop_resolver(ResolverKey(0, mapped(RESOLVER)))


def test_expired_addresses_are_taken_out_and_make_room(watch: Watch) -> None:
    with name_lab(watch) as lab:
        lab.profiles.govern(lab.slot, network(traffic(names=[NAME])))
        lab.resolve(message(NAME, (a_record("192.0.2.7", ttl_s=1), a_record("192.0.2.8", ttl_s=3600))))
        assert dict(lab.policy.learned_in_use())[lab.pod.id] == 2
        sweep = LearnedSweep(lab.policy)
        later = boot_ns() + 10**10 + KEEP_NS
        sweep.tick(later, {lab.pod.id})
        assert lab.learned() == {"192.0.2.8"}
        assert dict(lab.policy.learned_in_use())[lab.pod.id] == 1
        ((key, value),) = [each for each in lab.policy.learned() if each[0].workload_cgroup_id == lab.pod.id]
        assert not lab.policy.drop_learned_unless(key, value.expires_ns - 1)
        assert lab.learned() == {"192.0.2.8"}
        assert isinstance(key, LearnedKey)
        sweep.tick(later + SWEEP_NS, set())
        assert lab.learned() == set()
        assert lab.pod.id not in dict(lab.policy.learned_in_use())
