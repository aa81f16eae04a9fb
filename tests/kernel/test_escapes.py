# SPDX-License-Identifier: Apache-2.0
"""Ways out of a quarantine, and ways to turn it against the service, that were found by trying them."""

from __future__ import annotations

import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from sensor.enforce.process_cut import ProcessCuts
from sensor.kernel import EnforcementValue
from sensor.kernel.state import ANCESTORS
from tests.support.kernel_watch import FOREVER_NS, Actor, Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sensor.kernel import ProcessKey


@pytest.fixture
def service(watch: Watch) -> Iterator[Actor]:
    with Actor(watch.cgroup) as started:
        yield started


def cut(watch: Watch, tgid: int) -> ProcessKey:
    """Cut a tree as the sensor does."""
    root = watch.key(tgid)
    ProcessCuts(watch.kernel.state).cut(root, 1, FOREVER_NS)
    return root


def ask_shell(service: Actor, *command: Any) -> Any:
    return service.tell("ask", "shell", *command)


def ended(watch: Watch, keys: tuple[ProcessKey, ...]) -> bool:
    for key in keys:
        process = watch.kernel.state.process(key.tgid)
        if process is not None and process.start_ns == key.start_ns:
            return False
    return True


def test_a_chain_of_forks_longer_than_what_a_process_remembers_does_not_lead_out(
    watch: Watch, service: Actor, peer: Actor
) -> None:
    port = peer.listen("c2")
    shell = service.tell("helper", "shell")
    far = ask_shell(service, "helper", "far", "", "", 0, ANCESTORS + 4)
    process = watch.kernel.state.process(far)
    assert process is not None
    assert watch.key(shell) not in process.ancestors
    deadline = time.monotonic() + 5
    while not ended(watch, process.ancestors):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    cut(watch, shell)
    ask_shell(service, "ask", "far", "socket", "out", socket.AF_INET, socket.SOCK_STREAM)
    assert ask_shell(service, "ask", "far", "connect", "out", "127.0.0.1", port) == "EPERM"


def test_who_is_born_after_the_entry_is_cut_although_no_mark_was_set_yet(
    watch: Watch, service: Actor
) -> None:
    shell = service.tell("helper", "shell")
    ask_shell(service, "helper", "tool")
    root = watch.key(shell)
    watch.kernel.state.set_quarantine(root, EnforcementValue(1, FOREVER_NS))
    born = ask_shell(service, "ask", "tool", "helper", "born")
    process = watch.kernel.state.process(born)
    assert process is not None
    assert process.quarantine_root == root
    above = watch.kernel.state.process(service.tgid)
    assert above is not None
    assert above.quarantine_root is None


def test_a_socket_without_option_memory_left_is_cut_like_any_other(
    watch: Watch, service: Actor, peer: Actor
) -> None:
    peer.tell("socket", "sink", socket.AF_INET6, socket.SOCK_DGRAM)
    peer.tell("bind", "sink", "::1", 0)
    port = peer.tell("port", "sink")
    shell = service.tell("helper", "shell")
    ask_shell(service, "socket", "flow", socket.AF_INET6, socket.SOCK_DGRAM)
    assert ask_shell(service, "spend", "flow") > 0
    assert ask_shell(service, "connect", "flow", "::1", port) is None
    cut(watch, shell)
    assert ask_shell(service, "send", "flow", "out") == "EPERM"
    assert peer.tell("recv", "sink") == "ETIMEDOUT"


def deny_option_memory(tgid: int) -> None:
    """To a whole network namespace, as whoever owns it may."""
    deny = "test -e /proc/sys/net/core/optmem_max && echo 0 > /proc/sys/net/core/optmem_max"
    if subprocess.run(["nsenter", f"--net=/proc/{tgid}/ns/net", "sh", "-c", deny], check=False).returncode:
        pytest.skip("before Linux 6.8 the limit is the machine's, which no workload may change")


@pytest.mark.parametrize(
    ("kind", "protocol"),
    [(socket.SOCK_STREAM, 0), (socket.SOCK_DGRAM, 0), (socket.SOCK_RAW, socket.IPPROTO_ICMP)],
)
def test_a_network_without_option_memory_gives_a_workload_no_sockets_and_others_theirs(
    watch: Watch, service: Actor, kind: int, protocol: int
) -> None:
    service.tell("own_network")
    service.tell("socket", "before", socket.AF_INET, socket.SOCK_DGRAM)
    deny_option_memory(service.tgid)
    before = watch.kernel.counters()["socket_storage"]
    assert service.tell("socket", "of the host", socket.AF_INET, kind, protocol) is None
    watch.kernel.state.set_workload(watch.cgroup.id, watch.cgroup.id)
    try:
        assert service.tell("socket", "refused", socket.AF_INET, kind, protocol) == "EPERM"
        if kind != socket.SOCK_RAW:  # which pass no hook but that of their creation
            assert service.tell("connect", "of the host", "127.0.0.1", 9) == "EPERM"
        assert service.tell("connect", "before", "127.0.0.1", 9) is None
    finally:
        watch.kernel.state.drop_workload(watch.cgroup.id)
    assert watch.kernel.counters()["socket_storage"] > before


def test_a_flow_accepted_from_the_services_listener_after_the_cut_is_found_and_the_listener_lives(
    watch: Watch, service: Actor, peer: Actor
) -> None:
    port = service.listen("server")
    cut(watch, service.tell("helper", "shell"))
    assert peer.connect("stolen", "127.0.0.1", port) is None
    assert ask_shell(service, "accept", "server", "stolen") is None
    assert watch.kernel.state.mark_sockets() == 1
    assert ask_shell(service, "send", "stolen", "x") == 1
    assert peer.tell("recv", "stolen") == "ETIMEDOUT"
    assert peer.connect("client", "127.0.0.1", port) is None
    assert service.tell("accept", "server", "client") is None
    assert watch.kernel.state.mark_sockets() == 0
    assert service.tell("send", "client", "page") == 4
    assert peer.tell("recv", "client") == "page"


def test_a_bind_that_fails_does_not_take_the_services_listener_into_the_cut(
    watch: Watch, service: Actor, peer: Actor
) -> None:
    port = service.listen("server")
    shell = service.tell("helper", "shell")
    assert ask_shell(service, "bind", "server", "127.0.0.1", 0) == "EINVAL"
    cut(watch, shell)
    assert peer.connect("client", "127.0.0.1", port) is None
    assert service.tell("accept", "server", "client") is None


def test_a_datagram_sent_by_a_child_does_not_take_the_services_socket_into_the_cut(
    watch: Watch, service: Actor, peer: Actor
) -> None:
    service.tell("socket", "server", socket.AF_INET, socket.SOCK_DGRAM)
    service.tell("bind", "server", "127.0.0.1", 0)
    port = service.tell("port", "server")
    shell = service.tell("helper", "shell")
    assert ask_shell(service, "sendto", "server", "x", "127.0.0.1", 9) == 1
    cut(watch, shell)
    peer.tell("socket", "client", socket.AF_INET, socket.SOCK_DGRAM)
    assert peer.tell("sendto", "client", "question", "127.0.0.1", port) == 8
    assert service.tell("recv", "server") == "question"
    assert ask_shell(service, "sendto", "server", "x", "127.0.0.1", 9) == "EPERM"
