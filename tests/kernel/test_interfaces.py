# SPDX-License-Identifier: Apache-2.0
"""Programs on interfaces: attached to what comes, forgotten with what goes, taken off on request."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.interface_pins import HookPin
from sensor.kernel.interface_state import INTERFACE_PEER
from sensor.kernel.interfaces import Interfaces, detach_all
from sensor.kernel.pins import Pins
from tests.support.wire_lab import Wire, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sensor.kernel import Kernel
    from tests.support.kernel_lab import Cgroup

pytestmark = pytest.mark.kernel
both_ways = pytest.mark.parametrize("wire", [True, False], ids=["tcx", "clsact"], indirect=True)


@pytest.fixture
def wire(shared_kernel: tuple[Kernel, Cgroup, Path], request: pytest.FixtureRequest) -> Iterator[Wire]:
    """Two hosts, attached to."""
    with Wire(*shared_kernel, tcx=getattr(request, "param", True)) as made:
        made.add("target", 10)
        made.add("sender", 20)
        made.attach()
        yield made


def test_what_is_gone_is_forgotten_and_what_comes_back_is_attached(wire: Wire) -> None:
    sender = wire.hosts["sender"]
    key = wire.interface_of(sender)
    pins = Pins(wire.pin_directory)
    before = pins.names("interfaces")
    assert HookPin(key.netns, key.ifindex, "egress").name in before
    sender.ip("link", "del", "eth0")
    wire.attach()
    assert key not in {each for each, _ in wire.maps.interfaces()}
    assert not {name for name in pins.names("interfaces") if name.startswith(f"{key.netns}_{key.ifindex}_")}
    sender.ip("link", "add", "eth0", "index", str(key.ifindex), "type", "veth")
    wire.attach()
    assert HookPin(key.netns, key.ifindex, "egress").name in pins.names("interfaces")


@both_ways
def test_attaching_again_changes_nothing_and_detaching_leaves_nothing(wire: Wire) -> None:
    sender = wire.hosts["sender"]
    pins = Pins(wire.pin_directory)
    before = pins.names("interfaces")
    again = wire.attach()
    assert pins.names("interfaces") == before
    assert again.attached == len(before)
    shown = run("tc", "-n", sender.namespace, "filter", "show", "dev", "eth0", "egress")
    assert ("link_egress" in shown) is not wire.tcx
    detach_all(wire.pin_directory)
    if not wire.tcx:
        assert "clsact" not in run("tc", "-n", sender.namespace, "qdisc", "show", "dev", "eth0")
        assert not pins.names("interfaces")


def test_the_hosts_end_of_a_veth_is_judged_for_the_workload_behind_it(wire: Wire) -> None:
    sender = wire.hosts["sender"]
    ends = [value for _, value in wire.maps.interfaces() if value.flags & INTERFACE_PEER]
    assert {end.subject for end in ends} == {wire.interface_of(host) for host in wire.hosts.values()}
    assert sender.cgroup.id in {end.workload_cgroup_id for end in ends}


def test_a_new_sensors_programs_take_the_place_of_the_old_ones_without_a_gap(wire: Wire) -> None:
    pins = Pins(wire.pin_directory)
    key = wire.interface_of(wire.hosts["sender"])
    name = HookPin(key.netns, key.ifindex, "egress").name
    before = bpf.link_info(bpf.obj_get(str(pins.path("interfaces", name))))
    old = bpf.obj_get(str(pins.path("programs", "link_egress")))
    pins.replace(bpf.obj_get(str(pins.path("programs", "link_peer"))), "programs", "link_egress")
    try:
        wire.attach()
        after = bpf.link_info(bpf.obj_get(str(pins.path("interfaces", name))))
    finally:
        pins.replace(old, "programs", "link_egress")
    assert after.link_id == before.link_id
    assert after.program_id != before.program_id


def test_workloads_that_come_are_attached_to_between_the_steps_of_the_loop(wire: Wire) -> None:
    found = [(host.cgroup.path, host.cgroup.id) for host in wire.hosts.values()]
    host = Path(f"/run/netns/{wire.fabric}")
    followed = Interfaces(wire.pin_directory, lambda: found, host=host)
    followed.start()
    try:
        tick_until(followed, changes=1, runs=1)
        assert followed.gauges()["interfaces_judged"] == len(list(wire.maps.interfaces()))
        newcomer = wire.add("newcomer", 30)
        found.append((newcomer.cgroup.path, newcomer.cgroup.id))
        tick_until(followed, changes=2, runs=2)
        assert wire.interface_of(newcomer) in {key for key, _ in wire.maps.interfaces()}
        assert followed.totals()["failures"] == 0
    finally:
        followed.stop()


def tick_until(followed: Interfaces, *, changes: int, runs: int) -> None:
    deadline = time.monotonic() + 30
    while followed.totals()["runs"] < runs or followed.is_busy:
        assert time.monotonic() < deadline, "the child was not started, or did not end"
        followed.tick(time.monotonic(), changes)
        time.sleep(0.01)
