# SPDX-License-Identifier: Apache-2.0
"""What the kernel tells of connects, datagrams, listeners and closed connections."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from sensor.publish.layout import ACCEPT, BIND, CLOSE, CONNECT, LISTEN, SENDMSG
from tests.support.kernel_watch import Actor, Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTION_OUT, DIRECTION_IN = 0, 1
TCP_SYN_SENT, TCP_LISTEN = 2, 10
TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP


@pytest.fixture
def actor(watch: Watch) -> Iterator[Actor]:
    with Actor(watch.cgroup) as started:
        yield started


@pytest.mark.parametrize(
    ("address", "family", "told", "told_family"),
    [
        ("127.0.0.1", socket.AF_INET, "127.0.0.1", 4),
        ("::1", socket.AF_INET6, "::1", 6),
        ("::ffff:127.0.0.1", socket.AF_INET6, "127.0.0.1", 4),
    ],
)
def test_connect_names_the_process_and_the_destination(
    watch: Watch, actor: Actor, address: str, family: int, told: str, told_family: int
) -> None:
    port = actor.listen("server", "::1" if told_family == 6 else "127.0.0.1")
    assert actor.connect("client", address, port, family=family) is None
    seen = watch.wait_for(CONNECT, tgid=actor.tgid)
    assert seen.remote == (told, port)
    assert (seen["family"], seen["protocol"], seen["verdict"], seen["reason"]) == (told_family, TCP, 0, 0)
    assert seen["direction"] == DIRECTION_OUT
    assert seen["cgroup_id"] == watch.cgroup.id
    assert seen["start_ns"] == watch.key(actor.tgid).start_ns
    assert seen["cookie"] != 0


def test_connected_datagram_socket_is_one_connect(watch: Watch, actor: Actor) -> None:
    assert actor.connect("client", "127.0.0.1", 9, kind=socket.SOCK_DGRAM) is None
    assert actor.tell("send", "client", "one") == 3
    seen = watch.wait_for(CONNECT, tgid=actor.tgid)
    assert (seen.remote, seen["protocol"]) == (("127.0.0.1", 9), UDP)
    assert watch.events(SENDMSG, tgid=actor.tgid) == []


@pytest.mark.parametrize(
    ("address", "family", "told"),
    [("127.0.0.1", socket.AF_INET, "127.0.0.1"), ("::1", socket.AF_INET6, "::1"),
     ("::ffff:127.0.0.1", socket.AF_INET6, "127.0.0.1")],
)  # fmt: skip
def test_sendmsg_is_told_once_per_destination(
    watch: Watch, actor: Actor, address: str, family: int, told: str
) -> None:
    actor.tell("socket", "client", family, socket.SOCK_DGRAM)
    for port in (7, 7, 9, 9):
        actor.tell("sendto", "client", "x", address, port)
    watch.wait_for(SENDMSG, tgid=actor.tgid, where=lambda seen: seen["remote_port"] == 9)
    assert [seen.remote for seen in watch.events(SENDMSG, tgid=actor.tgid)] == [(told, 7), (told, 9)]


def test_listen_names_the_port(watch: Watch, actor: Actor) -> None:
    port = actor.listen("server")
    seen = watch.wait_for(LISTEN, tgid=actor.tgid)
    assert seen.local == ("127.0.0.1", port)
    assert (seen["tcp_state"], seen["direction"]) == (TCP_LISTEN, DIRECTION_IN)


def test_an_allowed_bind_is_no_event(watch: Watch, actor: Actor) -> None:
    actor.listen("server")
    watch.wait_for(LISTEN, tgid=actor.tgid)
    assert watch.events(BIND, tgid=actor.tgid) == []


@pytest.mark.parametrize("listen_on", ["127.0.0.1", "::1"])
def test_accept_belongs_to_the_listening_process(watch: Watch, actor: Actor, listen_on: str) -> None:
    with Actor(watch.cgroup) as client:
        port = actor.listen("server", listen_on)
        assert client.connect("client", listen_on, port) is None
        seen = watch.wait_for(ACCEPT, tgid=actor.tgid)
        assert seen.local == (listen_on, port)
        assert seen.remote == (listen_on, client.tell("port", "client"))
        assert (seen["direction"], seen["cgroup_id"]) == (DIRECTION_IN, watch.cgroup.id)


def test_accept_of_mapped_ipv4_on_a_dual_stack_listener(watch: Watch, actor: Actor) -> None:
    port = actor.listen("server", "::")
    assert actor.connect("client", "127.0.0.1", port) is None
    seen = watch.wait_for(ACCEPT, tgid=actor.tgid)
    assert (seen.local, seen["family"]) == (("127.0.0.1", port), 4)


@pytest.mark.parametrize("first_to_close", ["client", "accepted"])
def test_close_counts_payload_bytes_only(watch: Watch, actor: Actor, first_to_close: str) -> None:
    port = actor.listen("server")
    actor.connect("client", "127.0.0.1", port)
    actor.tell("accept", "server", "accepted")
    for _ in range(3):
        actor.tell("send", "client", "x" * 1000)
        actor.tell("recv", "accepted")
    actor.tell("send", "accepted", "y" * 77)
    actor.tell("recv", "client")
    actor.tell("close", first_to_close)
    actor.tell("close", "accepted" if first_to_close == "client" else "client")
    out = watch.wait_for(CLOSE, tgid=actor.tgid, where=lambda seen: seen.remote == ("127.0.0.1", port))
    back = watch.wait_for(
        CLOSE,
        tgid=actor.tgid,
        where=lambda seen: seen.local == ("127.0.0.1", port) and seen["remote_port"] != 0,
    )
    assert (out["bytes_sent"], out["bytes_received"], out["direction"]) == (3000, 77, DIRECTION_OUT)
    assert (back["bytes_sent"], back["bytes_received"], back["direction"]) == (77, 3000, DIRECTION_IN)
    assert 0 < out["duration_ns"] < 60 * 10**9
    assert out["local_port"] == back["remote_port"] != 0


def test_connection_nobody_accepts_closes_from_syn_sent(watch: Watch, actor: Actor) -> None:
    port = actor.listen("server")
    actor.tell("close", "server")
    assert actor.connect("client", "127.0.0.1", port) == "ECONNREFUSED"
    seen = watch.wait_for(CLOSE, tgid=actor.tgid, where=lambda seen: seen["remote_port"] == port)
    assert (seen["tcp_state"], seen["bytes_sent"], seen["bytes_received"]) == (TCP_SYN_SENT, 0, 0)


def test_nothing_was_lost_on_the_way(watch: Watch) -> None:
    watch.events()
    lost = watch.counted()
    # Sockets of this machine that nobody owns, and its processes whose fork was not seen: read from the task.
    assert lost.keys() <= {"owner_unknown", "process_unknown"}, lost
