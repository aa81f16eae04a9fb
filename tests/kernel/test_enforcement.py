# SPDX-License-Identifier: Apache-2.0
"""Quarantines and blocks on real sockets: refused with EPERM, silent both ways, and nobody else harmed."""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from sensor.kernel import (
    WORKLOAD_HAS_BLOCKS,
    WORKLOAD_HAS_QUARANTINE,
    DestinationKey,
    EnforcementValue,
    Kernel,
)
from sensor.publish.layout import BIND, CONNECT, EXIT, PACKET_REFUSED, SENDMSG, SOCKET_INVENTORY
from tests.support.kernel_watch import FOREVER_NS, Actor, Watch, boot_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sensor.kernel import KernelOptions
    from tests.support.kernel_lab import Cgroup

REFUSED = 1
BY_PROCESS, BY_WORKLOAD, BY_BLOCK = 1, 2, 3
HOOK_EGRESS, HOOK_INGRESS = CONNECT, 8
LOOPBACK = bytes(10) + b"\xff\xff" + socket.inet_aton("127.0.0.1")


@pytest.fixture
def suspect(watch: Watch) -> Iterator[Actor]:
    with Actor(watch.cgroup) as started:
        yield started


def open_flow(suspect: Actor, peer: Actor) -> int:
    """A connection that works both ways; returns the peer's port."""
    port = peer.listen("server")
    assert suspect.connect("flow", "127.0.0.1", port) is None
    assert peer.tell("accept", "server", "flow") is None
    assert suspect.tell("send", "flow", "hello") == 5
    assert peer.tell("recv", "flow") == "hello"
    return port


def test_new_calls_of_the_quarantined_get_eperm(watch: Watch, suspect: Actor, peer: Actor) -> None:
    port = peer.listen("server")
    suspect.tell("socket", "udp", socket.AF_INET, socket.SOCK_DGRAM)
    suspect.tell("socket", "udp6", socket.AF_INET6, socket.SOCK_DGRAM)
    suspect.tell("socket", "tcp", socket.AF_INET, socket.SOCK_STREAM)
    suspect.tell("socket", "tcp6", socket.AF_INET6, socket.SOCK_STREAM)
    root = watch.quarantine(suspect.tgid, generation=42)
    before = boot_ns()
    assert suspect.connect("new", "127.0.0.1", port) == "EPERM"
    assert suspect.connect("new6", "::1", port) == "EPERM"
    assert suspect.connect("mapped", "::ffff:127.0.0.1", port, family=socket.AF_INET6) == "EPERM"
    assert suspect.connect("udp-new", "127.0.0.1", 9, kind=socket.SOCK_DGRAM) == "EPERM"
    assert suspect.tell("sendto", "udp", "x", "127.0.0.1", 9) == "EPERM"
    assert suspect.tell("sendto", "udp6", "x", "::1", 9) == "EPERM"
    assert suspect.tell("bind", "tcp", "127.0.0.1", 0) == "EPERM"
    assert suspect.tell("bind", "tcp6", "::1", 0) == "EPERM"
    counted = watch.refusals(root)
    assert counted.refused_calls == 8
    assert before < counted.first_refused_ns < boot_ns()
    for kind, number in ((CONNECT, 4), (SENDMSG, 2), (BIND, 2)):
        refused = [seen for seen in watch.events(kind, tgid=suspect.tgid) if seen["verdict"] == REFUSED]
        assert len(refused) == number
        assert {(seen["reason"], seen["generation"]) for seen in refused} == {(BY_PROCESS, 42)}


def test_a_loop_over_one_refused_destination_is_one_event_and_all_are_counted(
    watch: Watch, suspect: Actor
) -> None:
    suspect.tell("socket", "udp", socket.AF_INET, socket.SOCK_DGRAM)
    root = watch.quarantine(suspect.tgid)
    for _ in range(20):
        assert suspect.tell("sendto", "udp", "x", "127.0.0.1", 9) == "EPERM"
    assert watch.refusals(root).refused_calls == 20
    assert len(watch.events(SENDMSG, tgid=suspect.tgid)) == 1


def test_an_open_flow_goes_silent_both_ways(watch: Watch, suspect: Actor, peer: Actor) -> None:
    open_flow(suspect, peer)
    root = watch.quarantine(suspect.tgid, generation=7)
    assert suspect.tell("send", "flow", "out") == 3
    assert peer.tell("recv", "flow") == "ETIMEDOUT"
    assert peer.tell("send", "flow", "in") == 2
    assert suspect.tell("recv", "flow") == "ETIMEDOUT"
    counted = watch.refusals(root)
    assert counted.refused_packets >= 2
    assert counted.refused_bytes >= 2 * 40 + 5
    hooks = {seen["hook"]: seen for seen in watch.events(PACKET_REFUSED, tgid=suspect.tgid)}
    assert hooks.keys() == {HOOK_EGRESS, HOOK_INGRESS}
    assert {(seen["verdict"], seen["reason"], seen["generation"]) for seen in hooks.values()} == {
        (REFUSED, BY_PROCESS, 7)
    }


def test_a_connected_datagram_socket_is_refused_at_the_packet(watch: Watch, suspect: Actor) -> None:
    suspect.connect("udp", "127.0.0.1", 9, kind=socket.SOCK_DGRAM)
    watch.quarantine(suspect.tgid)
    assert suspect.tell("send", "udp", "x") == "EPERM"


def test_a_child_forked_before_is_cut_and_so_is_one_forked_after(
    watch: Watch, suspect: Actor, peer: Actor
) -> None:
    port = peer.listen("server")
    before = suspect.tell("helper", "before")
    root = watch.quarantine(suspect.tgid)
    after = suspect.tell("helper", "after")
    suspect.tell("ask", "after", "helper", "grandchild")
    for asked in (("ask", "before"), ("ask", "after"), ("ask", "after", "ask", "grandchild")):
        suspect.tell(*asked, "socket", "new", socket.AF_INET, socket.SOCK_STREAM)
        assert suspect.tell(*asked, "connect", "new", "127.0.0.1", port) == "EPERM"
    assert watch.refusals(root).refused_calls == 3
    for child in (before, after):
        process = watch.kernel.state.process(child)
        assert process is not None
        assert process.quarantine_root == root


def test_a_quarantine_ends_by_itself(watch: Watch, suspect: Actor, peer: Actor) -> None:
    port = open_flow(suspect, peer)
    watch.quarantine(suspect.tgid, seconds=1.0)
    assert suspect.connect("early", "127.0.0.1", port) == "EPERM"
    time.sleep(1.1)
    assert suspect.connect("late", "127.0.0.1", port) is None
    assert suspect.tell("send", "flow", "again") == 5
    assert peer.tell("recv", "flow") == "again"


def test_a_released_process_works_again_on_its_old_socket(watch: Watch, suspect: Actor, peer: Actor) -> None:
    open_flow(suspect, peer)
    root = watch.quarantine(suspect.tgid)
    assert suspect.tell("send", "flow", "x") == 1
    assert peer.tell("recv", "flow") == "ETIMEDOUT"
    watch.kernel.state.drop_quarantine(root)
    watch.kernel.state.mark_process(suspect.tgid, root.start_ns, None)
    assert peer.tell("send", "flow", "back") == 4
    assert suspect.tell("recv", "flow") == "back"


def test_the_service_keeps_serving_while_its_child_with_the_same_listener_is_cut(
    watch: Watch, suspect: Actor, peer: Actor
) -> None:
    service, port = suspect, suspect.listen("server")
    service.tell("helper", "child")
    assert peer.connect("old", "127.0.0.1", port) is None
    assert service.tell("accept", "server", "old") is None
    child = service.tell("helper", "shell")
    watch.quarantine(child)
    assert peer.tell("send", "old", "more") == 4
    assert service.tell("recv", "old") == "more"
    assert peer.connect("new", "127.0.0.1", port) is None
    assert service.tell("accept", "server", "new") is None
    assert service.tell("send", "new", "page") == 4
    assert peer.tell("recv", "new") == "page"
    service.tell("ask", "shell", "socket", "out", socket.AF_INET, socket.SOCK_STREAM)
    assert service.tell("ask", "shell", "connect", "out", "127.0.0.1", port) == "EPERM"


def test_a_listener_whose_opener_is_gone_keeps_serving(watch: Watch, suspect: Actor, peer: Actor) -> None:
    suspect.tell("socket", "server", socket.AF_INET, socket.SOCK_STREAM)
    suspect.tell("bind", "server", "127.0.0.1", 0)
    port = suspect.tell("port", "server")
    opener = suspect.tell("helper", "opener")
    assert suspect.tell("ask", "opener", "listen", "server") is None
    os.kill(opener, signal.SIGKILL)
    watch.wait_for(EXIT, tgid=opener)
    watch.quarantine(suspect.tell("helper", "shell"))
    assert peer.connect("client", "127.0.0.1", port) is None
    assert suspect.tell("accept", "server", "client") is None
    assert suspect.tell("send", "client", "page") == 4
    assert peer.tell("recv", "client") == "page"


def test_an_accepted_flow_handed_to_a_child_is_cut_with_the_child(
    watch: Watch, suspect: Actor, peer: Actor
) -> None:
    port = suspect.listen("server")
    peer.connect("flow", "127.0.0.1", port)
    suspect.tell("accept", "server", "flow")
    child = suspect.tell("helper", "child")
    suspect.tell("close", "flow")
    watch.quarantine(child)
    assert suspect.tell("ask", "child", "send", "flow", "x") == 1
    assert peer.tell("recv", "flow") == "ETIMEDOUT"
    assert peer.connect("next", "127.0.0.1", port) is None


def test_a_quarantined_listener_answers_nobody(watch: Watch, suspect: Actor, peer: Actor) -> None:
    port = suspect.listen("server")
    watch.quarantine(suspect.tgid)
    assert peer.connect("client", "127.0.0.1", port) == "ETIMEDOUT"


def test_a_flow_whose_owner_is_gone_is_cut_with_the_child_that_holds_it(
    watch: Watch, suspect: Actor, peer: Actor
) -> None:
    port = peer.listen("server")
    orphan = suspect.tell("helper", "orphan", "flow", "127.0.0.1", port)
    peer.tell("accept", "server", "flow")
    assert suspect.tell("ask", "orphan", "send", "flow", "hello") == 5
    assert peer.tell("recv", "flow") == "hello"
    watch.quarantine(orphan)
    assert suspect.tell("ask", "orphan", "send", "flow", "x") == 1
    assert peer.tell("recv", "flow") == "ETIMEDOUT"


def test_the_end_of_a_killed_process_is_not_told_to_its_peer(
    watch: Watch, suspect: Actor, peer: Actor
) -> None:
    port = peer.listen("server")
    child = suspect.tell("helper", "child")
    suspect.tell("ask", "child", "socket", "flow", socket.AF_INET, socket.SOCK_STREAM)
    suspect.tell("ask", "child", "connect", "flow", "127.0.0.1", port)
    peer.tell("accept", "server", "flow")
    watch.quarantine(suspect.tgid)
    os.kill(child, signal.SIGKILL)
    watch.wait_for(EXIT, tgid=child)
    assert peer.tell("recv", "flow") == "ETIMEDOUT"  # not the empty string of a FIN


def test_raw_sockets_are_refused_too(watch: Watch, suspect: Actor) -> None:
    suspect.tell("socket", "old", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    root = watch.quarantine(suspect.tgid)
    assert suspect.tell("socket", "new", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) == "EPERM"
    assert suspect.tell("sendto", "old", "\x08" + "\0" * 7, "127.0.0.1", 0) == "EPERM"
    counted = watch.refusals(root)
    assert (counted.refused_calls, counted.refused_packets) == (1, 1)


def test_a_workload_quarantine_cuts_calls_and_open_flows(watch: Watch, suspect: Actor, peer: Actor) -> None:
    state, workload = watch.kernel.state, watch.cgroup.path / "pod"
    workload.mkdir()
    pod = type(watch.cgroup)(workload)
    state.set_workload(pod.id, pod.id)
    with Actor(pod) as member:
        port = open_flow(member, peer)
        state.set_workload_quarantine(pod.id, EnforcementValue(9, FOREVER_NS))
        assert member.tell("send", "flow", "before the flag") == 15
        assert peer.tell("recv", "flow") == "before the flag"
        state.set_workload_flags(pod.id, WORKLOAD_HAS_QUARANTINE)
        assert member.connect("new", "127.0.0.1", port) == "EPERM"
        assert member.tell("send", "flow", "x") == 1
        assert peer.tell("recv", "flow") == "ETIMEDOUT"
        assert suspect.connect("outsider", "127.0.0.1", port) is None
        seen = watch.wait_for(CONNECT, tgid=member.tgid, where=lambda seen: seen["verdict"] == REFUSED)
        assert (seen["reason"], seen["generation"]) == (BY_WORKLOAD, 9)
        counted = state.workload_quarantine(pod.id)
        assert counted is not None
        assert counted.refused_calls == 1
        assert counted.refused_packets >= 1


@pytest.mark.parametrize("whole_address", [False, True])
def test_a_blocked_destination_is_cut_for_its_workload_only(
    watch: Watch, suspect: Actor, peer: Actor, *, whole_address: bool
) -> None:
    state, path = watch.kernel.state, watch.cgroup.path / f"blocked-{whole_address}"
    path.mkdir()
    pod = type(watch.cgroup)(path)
    state.set_workload(pod.id, pod.id)
    with Actor(pod) as member:
        port = open_flow(member, peer)
        other_port = suspect.listen("elsewhere")
        destination = DestinationKey(
            pod.id, LOOPBACK, 0 if whole_address else port, 0 if whole_address else socket.IPPROTO_TCP
        )
        state.block_destination(destination, EnforcementValue(3, FOREVER_NS))
        state.set_workload_flags(pod.id, WORKLOAD_HAS_BLOCKS)
        assert member.connect("new", "127.0.0.1", port) == "EPERM"
        assert member.connect("mapped", "::ffff:127.0.0.1", port, family=socket.AF_INET6) == "EPERM"
        assert member.tell("send", "flow", "x") == 1
        assert peer.tell("recv", "flow") == "ETIMEDOUT"
        assert member.connect("elsewhere", "127.0.0.1", other_port) == ("EPERM" if whole_address else None)
        assert member.connect("udp", "127.0.0.1", port, kind=socket.SOCK_DGRAM) == (
            "EPERM" if whole_address else None
        )
        assert suspect.connect("outsider", "127.0.0.1", port) is None
        seen = watch.wait_for(CONNECT, tgid=member.tgid, where=lambda seen: seen["verdict"] == REFUSED)
        assert (seen["reason"], seen["generation"]) == (BY_BLOCK, 3)


def test_what_was_open_before_the_sensor_is_known_and_can_be_cut(
    options: KernelOptions, cgroup: Cgroup
) -> None:
    with Actor(cgroup) as peer, Actor(cgroup) as suspect:
        port = open_flow(suspect, peer)
        with Kernel.start(options) as kernel:
            kernel.run_inventory()
            watch = Watch(kernel, cgroup)
            listening = watch.wait_for(
                SOCKET_INVENTORY, tgid=peer.tgid, where=lambda seen: not seen["remote_port"]
            )
            assert listening.local == ("127.0.0.1", port)
            flow = watch.wait_for(SOCKET_INVENTORY, tgid=suspect.tgid)
            assert (flow.remote, flow["cgroup_id"]) == (("127.0.0.1", port), cgroup.id)
            assert suspect.tell("send", "flow", "still") == 5
            assert peer.tell("recv", "flow") == "still"
            watch.quarantine(suspect.tgid)
            assert suspect.tell("send", "flow", "x") == 1
            assert peer.tell("recv", "flow") == "ETIMEDOUT"
            assert suspect.connect("new", "127.0.0.1", port) == "EPERM"
