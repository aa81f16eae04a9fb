# SPDX-License-Identifier: Apache-2.0
"""What no profile cuts, on real sockets: the sensor, and the ways in and out kept for emergencies.

Profiles that would cut them are refused (tests/unit/sensor/policy/test_safety.py). Here they are in force all
the same, by a sensor that was not told what to protect: the kernel does not rely on the refusal.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from schemas.addresses import to_mapped
from sensor.kernel import Kernel
from sensor.policy.safety import Broker, Protected, parse_break_glass
from tests.support.dns_messages import QUERY, A, message, name, record
from tests.support.host_lab import LISTED, Service, host_profile
from tests.support.kernel_lab import Cgroup
from tests.support.kernel_watch import Actor, Watch
from tests.support.profile_lab import network
from tests.support.profile_node import Node, Pod

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sensor.kernel import KernelOptions

HERE, THERE, FAR, ELSEWHERE = "127.0.0.1", "127.0.0.2", "127.9.0.1", "192.0.2.1"
RESOLVER = "127.0.0.77"
STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
NOTHING: dict[str, Any] = {"default": network(), "mode": "ENFORCE"}


pytestmark = pytest.mark.usefixtures("slices")


@pytest.fixture
def service(watch: Watch) -> Service:
    return Service(watch, "some.service")


@pytest.fixture
def actor(service: Service) -> Iterator[Actor]:
    with Actor(service.cgroup) as started:
        yield started


@pytest.fixture
def other(service: Service) -> Iterator[Actor]:
    """In the same service, and nobody's sensor."""
    with Actor(service.cgroup) as started:
        yield started


def glass(*entries: str) -> Protected:
    return Protected(break_glass=parse_break_glass(entries))


def denied(watch: Watch, protected: Protected | None = None) -> Node:
    """A sensor that knows these exits, with a profile that lets the service do nothing."""
    node = Node(watch, protected=protected)
    status = node.profile(5, **host_profile(unit="some.service") | NOTHING)
    assert (status["outcome"], status["reason"]) == ("APPLIED", "")
    return node


def exempt(watch: Watch, actor: Actor) -> None:
    key = watch.key(actor.tgid)
    watch.kernel.policy.set_exempt(key.tgid, key.start_ns)


def meet(server: Actor, client: Actor, port: int, answer: Any = None) -> None:
    """One connection, a word each way."""
    assert client.connect("c", HERE, port) == answer
    if answer is None:
        assert server.tell("accept", "server", "s") is None
        assert client.tell("send", "c", "in") == 2
        assert server.tell("recv", "s") == "in"
        assert server.tell("send", "s", "out") == 3
        assert client.tell("recv", "c") == "out"
        server.tell("close", "s")
    client.tell("close", "c")


def test_the_sensor_reaches_its_broker_wherever_it_moves_and_nobody_beside_it_does(
    watch: Watch, actor: Actor, other: Actor, peer: Actor
) -> None:
    port, moved = peer.listen("server"), peer.listen("moved", THERE)
    denied(watch)
    meet(peer, actor, port, "EPERM")
    exempt(watch, actor)
    meet(peer, actor, port)
    assert actor.connect("d", THERE, moved) is None
    meet(peer, other, port, "EPERM")


def test_the_sensor_resolves_its_broker_s_name_from_any_server(
    watch: Watch, actor: Actor, other: Actor, peer: Actor
) -> None:
    broker = "kafka.example.com"
    question = message(broker, flags=QUERY)
    answer = message(broker, (record(name(broker), A, socket.inet_aton(ELSEWHERE)),))
    peer.tell("socket", "dns", socket.AF_INET, DATAGRAM)
    assert peer.tell("bind", "dns", RESOLVER, 53) is None
    denied(watch)
    exempt(watch, actor)
    for who, sent in ((actor, len(question)), (other, "EPERM")):
        who.tell("socket", "q", socket.AF_INET, DATAGRAM)
        assert who.tell("sendbytesto", "q", question.hex(), RESOLVER, 53) == sent
    _, *client = peer.tell("recvbytes", "dns")
    assert peer.tell("sendbytesto", "dns", answer.hex(), *client) == len(answer)
    assert actor.tell("recvbytes", "q")[0] == answer.hex()


def test_a_way_in_is_open_from_its_addresses_also_to_who_is_started_then(
    watch: Watch, actor: Actor, peer: Actor
) -> None:
    port = actor.listen("server", "0.0.0.0")
    actor.tell("close", "server")
    denied(watch, glass(f"tcp:127.0.0.0/16:{port} in"))
    actor.tell("socket", "server", socket.AF_INET, STREAM)
    assert actor.tell("bind", "server", "0.0.0.0", port + 1) == "EPERM"
    assert actor.tell("bind", "server", "0.0.0.0", port) is None
    assert actor.tell("listen", "server") is None
    meet(actor, peer, port)
    peer.tell("socket", "far", socket.AF_INET, STREAM)
    assert peer.tell("bind", "far", FAR, 0) is None
    assert peer.tell("connect", "far", HERE, port) == "ETIMEDOUT"
    assert actor.connect("a", HERE, port) == "EPERM", "in is not out"


def test_a_way_in_of_datagrams_is_answered(watch: Watch, actor: Actor, peer: Actor) -> None:
    actor.tell("socket", "server", socket.AF_INET, DATAGRAM)
    assert actor.tell("bind", "server", "0.0.0.0", 0) is None
    port = actor.tell("port", "server")
    denied(watch, glass(f"udp:127.0.0.0/16:{port} in"))
    peer.tell("socket", "near", socket.AF_INET, DATAGRAM)
    assert peer.tell("bind", "near", HERE, 0) is None
    for _ in range(2):  # the second time the server has sent, too
        assert peer.tell("sendto", "near", "ask", HERE, port) == 3
        assert actor.tell("recv", "server") == "ask"
        assert actor.tell("sendto", "server", "answer", HERE, peer.tell("port", "near")) == 6
        assert peer.tell("recv", "near") == "answer"
    peer.tell("socket", "far", socket.AF_INET, DATAGRAM)
    assert peer.tell("bind", "far", FAR, 0) is None
    peer.tell("sendto", "far", "ask", HERE, port)
    assert actor.tell("recv", "server") == "ETIMEDOUT"
    assert actor.tell("sendto", "server", "answer", FAR, peer.tell("port", "far")) == "EPERM"


def test_a_way_out_is_open_to_its_addresses(watch: Watch, actor: Actor, peer: Actor) -> None:
    port = peer.listen("server")
    peer.tell("socket", "clock", socket.AF_INET, DATAGRAM)
    assert peer.tell("bind", "clock", THERE, 0) is None
    time_port = peer.tell("port", "clock")
    denied(watch, glass(f"tcp:127.0.0.1/32:{port} out", f"udp:127.0.0.2/32:{time_port} out"))
    meet(peer, actor, port)
    actor.tell("socket", "u", socket.AF_INET, DATAGRAM)
    assert actor.tell("sendto", "u", "ask", THERE, time_port) == 3
    assert peer.tell("recv", "clock") == "ask"
    assert peer.tell("sendto", "clock", "now", HERE, actor.tell("port", "u")) == 3
    assert actor.tell("recv", "u") == "now"
    assert actor.tell("sendto", "u", "ask", HERE, time_port) == "EPERM"


def test_an_exit_is_closed_by_a_sensor_that_is_not_told_of_it_any_more(
    watch: Watch, actor: Actor, peer: Actor
) -> None:
    port, kept = peer.listen("server"), peer.listen("kept")
    denied(watch, glass(f"tcp:127.0.0.1/32:{port} out", f"tcp:127.0.0.1/32:{kept} out"))
    assert actor.connect("a", HERE, port) is None
    denied(watch, glass(f"tcp:127.0.0.1/32:{kept} out"))
    assert actor.connect("b", HERE, port) == "EPERM"
    assert actor.connect("c", HERE, kept) is None


def test_a_login_from_before_the_sensor_is_not_cut_by_a_profile_that_comes(
    cgroup: Cgroup, options: KernelOptions
) -> None:
    ssh = Cgroup(cgroup.path / "system.slice" / "ssh.service")
    ssh.path.mkdir(parents=True)
    with Actor(ssh) as server, Actor(cgroup) as client:
        port, other = server.listen("server"), server.listen("other")
        for listener, connection, at in (("server", "login", port), ("other", "cut", other)):
            assert client.connect(connection, HERE, at) is None
            assert server.tell("accept", listener, connection) is None
        with Kernel.start(options) as kernel:  # and nobody can say any more who opened them
            kernel.run_inventory()
            node = Node(Watch(kernel, cgroup), protected=glass(f"tcp:127.0.0.1/32:{port} in"))
            node.profile(5, **host_profile(unit="ssh.service") | NOTHING)
            for connection, heard in (("login", "in"), ("cut", "ETIMEDOUT")):
                assert client.tell("send", connection, "in") == 2
                assert server.tell("recv", connection) == heard
            assert server.tell("send", "login", "out") == 3
            assert client.tell("recv", "login") == "out"


def test_unknown_pods_denied_are_no_exception(watch: Watch) -> None:
    Node(watch, mode="deny", protected=glass(f"udp:{ELSEWHERE}/32:9 out"))
    pod = Pod(watch)
    pod.make()
    with Actor(pod.cgroup) as inside, Actor(pod.cgroup) as sensor:
        exempt(watch, sensor)
        assert inside.connect("a", ELSEWHERE, 9, kind=DATAGRAM) is None
        assert inside.connect("b", ELSEWHERE, 10, kind=DATAGRAM) == "EPERM"
        assert sensor.connect("c", ELSEWHERE, 10, kind=DATAGRAM) is None
        for who, answer in ((inside, "EPERM"), (sensor, None)):
            who.tell("socket", "metrics", socket.AF_INET, STREAM)
            assert who.tell("bind", "metrics", "0.0.0.0", 0) is None
            port = who.tell("port", "metrics")
            who.tell("close", "metrics")
            who.tell("socket", "metrics", socket.AF_INET, STREAM)
            assert who.tell("bind", "metrics", "0.0.0.0", port) == answer


def test_a_quarantine_by_mistake_spares_the_sensor_but_not_its_children_nor_an_exit(
    watch: Watch, actor: Actor, other: Actor, peer: Actor
) -> None:
    port = peer.listen("server")
    denied(watch, glass(f"tcp:127.0.0.1/32:{port} out"))
    exempt(watch, actor)
    actor.tell("helper", "child")
    assert actor.connect("open", HERE, port) is None
    assert peer.tell("accept", "server", "open") is None
    state = watch.kernel.state
    roots = [watch.quarantine(each.tgid) for each in (actor, other)]
    assert actor.tell("send", "open", "still") == 5
    assert peer.tell("recv", "open") == "still"
    assert peer.tell("send", "open", "here") == 4
    assert actor.tell("recv", "open") == "here"
    assert actor.connect("a", HERE, port) is None
    actor.tell("ask", "child", "socket", "b", socket.AF_INET, STREAM)
    assert actor.tell("ask", "child", "connect", "b", HERE, port) == "EPERM"
    # A person or a rule said so of this very process: an exit from profiles is none from that.
    assert other.connect("c", HERE, port) == "EPERM"
    for root in roots:
        state.drop_quarantine(root)


def test_a_profile_that_would_cut_the_sensor_is_refused_and_the_one_in_force_stays(watch: Watch) -> None:
    service = Service(watch, "nsp-sensor.service")
    protected = Protected(
        brokers=(Broker(to_mapped(LISTED), 9092),),
        sensor_unit="nsp-sensor.service",
        break_glass=parse_break_glass([f"tcp:{LISTED}/32:123 out nsp-sensor.service"]),
    )
    node = Node(watch, protected=protected)
    good = host_profile(unit="nsp-sensor.service")
    assert node.profile(5, **good)["outcome"] == "APPLIED"
    status = node.profile(6, **good | NOTHING)
    assert status["outcome"] == "REFUSED"
    for part in ("spec.services[0]", f"Kafka at {LISTED}:9092", "do not select it"):
        assert part in status["reason"]
    assert service.connects_to(LISTED) == "None"
    assert service.connects_to(ELSEWHERE) == "EPERM"


def test_a_new_cgroup_of_the_sensor_s_own_service_is_no_way_out(watch: Watch, actor: Actor) -> None:
    denied(watch)
    exempt(watch, actor)
    below = Cgroup(watch.cgroup.path / "system.slice" / "some.service" / "below")
    below.path.mkdir()
    with Actor(below) as stranger:
        assert stranger.connect("a", ELSEWHERE, 9, kind=DATAGRAM) == "EPERM"
