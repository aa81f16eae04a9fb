# SPDX-License-Identifier: Apache-2.0
"""DNS questions: the decision in Python against the kernel's.

Random profiles, several of them on one workload, and random questions on real sockets: to listed resolvers,
one of the loopback among them where the loopback is free, and to other servers.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.addresses import to_mapped
from sensor.policy import layout
from sensor.policy.decide import Flow, Payload
from tests.support import dns_messages as dns
from tests.support.decision_lab import DecisionLab
from tests.support.dns_messages import message
from tests.support.name_lab import RESOLVER, RESOLVER_6, STRANGER, NameLab, framed, name_lab
from tests.support.profiles import (
    NAME_RULES,
    NAMES,
    TCP,
    UDP,
    application,
    lists,
    network,
    profile,
    random_policies,
    rules,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sensor.policy.layers import Direction
    from tests.support.kernel_watch import Watch

pytestmark = pytest.mark.kernel

# Random policies, each with ASKED questions.
POLICIES: Final = 60
ASKED: Final = 15
WIDE: Final = ".".join(["w" * 63] * 3)
# As long as rules take, and one byte longer; labels whose length is a character of names too.
EDGES: Final = [f"{WIDE}.{'e' * length}.example.com" for length in (45, 46)]
QUESTIONS: Final = NAMES | NAMES.map(str.upper) | st.sampled_from(["", "xexample.com", "_x.b.com", *EDGES])
SOME_PORT: Final = 40_000
NO_QUESTION: Final = b"GET / HTTP/1.1\r\n\r\n"
MODES: Final = st.sampled_from(["ENFORCE", "ENFORCE", "ENFORCE", "ALERT", "IGNORE"])
# Protocol, server, name; None: what is no question.
Case = tuple[int, str, str | None]


def cases() -> st.SearchStrategy[Case]:
    """Questions, few of them over TCP."""
    protocol = st.sampled_from([UDP, UDP, UDP, TCP])
    server = st.sampled_from([RESOLVER, RESOLVER, RESOLVER_6, STRANGER])
    return st.tuples(protocol, server, st.none() | QUESTIONS | QUESTIONS | QUESTIONS)


@st.composite
def unions(draw: st.DrawFn) -> list[dict[str, Any]]:
    """One to three profiles, with the loopback free or not."""
    made = []
    for number in range(draw(st.integers(1, 3))):
        spoken = st.lists(st.sampled_from(["DNS", "HTTP", "HTTPS"]), unique=True)
        l7 = st.none() | st.builds(
            lambda protocols, dns_names, opaque: application(*protocols, dns=dns_names, opaque=opaque),
            spoken,
            lists(NAME_RULES),
            st.booleans(),
        )
        cidrs = draw(st.sampled_from([("127.0.0.0/8", "::/0"), (f"{STRANGER}/32",), ()]))
        ports = draw(st.sampled_from([None, None, ((UDP, 53, 53),), ((TCP, 53, 53), (UDP, 1, 52))]))
        out = rules(*cidrs, names=tuple(draw(lists(NAME_RULES))), ports=ports, l7_given=draw(l7))
        into = draw(st.none() | st.just(rules("0.0.0.0/0", "::/0", l7_given=draw(l7.map(without_names)))))
        scope = draw(st.sampled_from(["NODE", "NODE", "NODE", "POD"]))
        both = network(draw(st.just(out) | st.just(out) | st.none()), into)
        made.append(profile(f"p{number}", scope=scope, mode=draw(MODES), default=both))
    return made


def without_names(l7: dict[str, Any] | None) -> dict[str, Any] | None:
    """As rules of ingress are."""
    return l7 and l7 | {"dns": []}


def flow_of(case: Case) -> Flow:
    protocol, server, name = case
    said = Payload(layout.L7_OPAQUE) if name is None else Payload(layout.L7_DNS, name)
    listed = server != STRANGER
    # Some port is taken before the kernel asks, and where anybody may come to it, this may be an answer.
    way: Direction = "either" if protocol == UDP else "out"
    return Flow(way, protocol, to_mapped(server), 53, SOME_PORT, frozenset(), listed, said)


def passes(lab: NameLab, case: Case) -> bool:
    """Ask, and see whether it left."""
    protocol, server, name = case
    data = NO_QUESTION if name is None else message(name, flags=dns.QUERY)
    if protocol == UDP:
        return lab.send(data, server) is None
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    lab.client.tell("socket", "stream", family, socket.SOCK_STREAM)
    if lab.client.tell("connect", "stream", server, 53) == "EPERM":
        return False
    lab.server.tell("accept", f"tcp {server}", "accepted")
    before = lab.policy.policy_counters(lab.slot).refused_packets
    lab.client.tell("sendbytes", "stream", framed(data).hex() if name is not None else data.hex())
    passed = lab.policy.policy_counters(lab.slot).refused_packets == before
    # Or it would be sent again, and refused again, while another question is asked.
    lab.client.tell("abort", "stream")
    return passed


@pytest.fixture(scope="module")
def lab(watch: Watch) -> Iterator[tuple[NameLab, DecisionLab]]:
    with name_lab(watch) as started:
        yield started, DecisionLab(watch, started.pod, started.slot)


@random_policies(POLICIES)
@given(unions(), st.lists(cases(), min_size=ASKED, max_size=ASKED, unique=True))
def test_the_kernel_judges_questions_as_explain_does(
    lab: tuple[NameLab, DecisionLab], several: list[dict[str, Any]], asked: list[Case]
) -> None:
    names, decisions = lab
    decisions.govern(several)
    expected = {case: decisions.said(flow_of(case)).outcome != "refused" for case in asked}
    assert {case: passes(names, case) for case in asked} == expected


SERVED: Final = "127.7.9.53"
ANSWER: Final = message("a.example", flags=dns.RESPONSE)


@pytest.mark.parametrize("protocols", [["DNS"], ["HTTP"], []])
@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.parametrize("name", ["a.example", None])
def test_questions_that_come_in_are_dns_and_other_datagrams_opaque(
    lab: tuple[NameLab, DecisionLab], protocols: list[str], opaque: bool, name: str | None
) -> None:
    names, decisions = lab
    l7 = application(*protocols, opaque=opaque)
    into = rules("127.0.0.0/8", ports=((UDP, 53, 53),), l7_given=l7)
    decisions.govern([profile(scope="NODE", default=network(None, into))])
    said = Payload(layout.L7_OPAQUE) if name is None else Payload(layout.L7_DNS, name)
    flow = Flow("in", UDP, to_mapped(STRANGER), 53, 53, payload=said)
    expected = decisions.said(flow).outcome == "allowed"
    data = NO_QUESTION if name is None else message(name, flags=dns.QUERY)
    names.client.tell("socket", "serves", socket.AF_INET, socket.SOCK_DGRAM)
    assert names.client.tell("bind", "serves", SERVED, 53) is None
    names.server.tell("socket", "asks", socket.AF_INET, socket.SOCK_DGRAM)
    assert names.server.tell("bind", "asks", STRANGER, 0) is None
    # Also from port 53, as a name server's answer would come.
    for peer in ("asks", STRANGER):
        names.server.tell("sendbytesto", peer, data.hex(), SERVED, 53)
        arrived = names.client.tell("recvbytes", "serves")
        assert (arrived[0] == data.hex()) == expected
        if expected:
            assert names.client.tell("sendbytesto", "serves", ANSWER.hex(), *arrived[1:]) == len(ANSWER)
            assert names.server.tell("recvbytes", peer)[0] == ANSWER.hex()
    names.server.tell("close", "asks")
    names.client.tell("close", "serves")
