# SPDX-License-Identifier: Apache-2.0
"""Questions that pass or are refused by name, on real sockets."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import pytest

from sensor.policy import layout
from sensor.publish.layout import DNS_QUESTION
from tests.support import dns_messages as dns
from tests.support.dns_messages import message
from tests.support.name_lab import (
    NAME,
    RESOLVER,
    STRANGER,
    NameLab,
    a_record,
    framed,
    name_lab,
)
from tests.support.profile_lab import UDP, network, traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.kernel_watch import Watch

ALLOWED, REFUSED, ALERTED = 0, 1, 2
ADDRESS = "192.0.2.7"
HTTPS = 65


@pytest.fixture
def lab(watch: Watch) -> Iterator[NameLab]:
    with name_lab(watch) as started:
        started.profiles.govern(started.slot, network(traffic(names=["example.com", "*.example.com"])))
        yield started


def only_dns(*names: str, protocols: list[str] | None = None) -> dict[str, object]:
    return {"protocols": protocols, "dns": list(names), "http": [], "sni": [], "opaque": True}


@pytest.mark.parametrize(
    ("asked", "verdict"),
    [
        (NAME, ALLOWED),
        ("example.com", ALLOWED),
        ("a.b.c.d.e.f.g.example.com", ALLOWED),
        ("WwW.eXaMpLe.CoM", ALLOWED),
        ("example.org", REFUSED),
        ("xample.com", REFUSED),
        ("wwwexample.com", REFUSED),
        ("www.example.com.org", REFUSED),
        ("com", REFUSED),
        ("", REFUSED),
        (".".join(["a" * 63] * 3 + ["b" * 45, "example.com"]), ALLOWED),  # 250 bytes without the root
        (".".join(["a" * 63] * 3 + ["b" * 49, "example.com"]), REFUSED),  # 254: longer than rules can be
    ],
)
@pytest.mark.parametrize("kind", [dns.A, dns.TXT, HTTPS])
def test_questions_pass_by_name_whatever_their_type(
    lab: NameLab, asked: str, verdict: int, kind: int
) -> None:
    assert lab.ask(asked, kind=kind) == (None if verdict == ALLOWED else "EPERM")
    told = lab.watch.events(DNS_QUESTION, tgid=lab.client.tgid)[-1]
    assert told["verdict"] == verdict
    assert told["reason"] == (layout.REASON_DNS_NAME if verdict else 0)
    assert told["generation"] == (1 if verdict else 0)


def test_refused_questions_are_counted_for_their_slot(lab: NameLab) -> None:
    before = lab.policy.policy_counters(lab.slot)
    for _ in range(3):
        assert lab.ask("evil.example.org") == "EPERM"
    counted = lab.policy.policy_counters(lab.slot)
    assert counted.by_reason[layout.REASON_DNS_NAME] - before.by_reason[layout.REASON_DNS_NAME] == 3
    assert counted.refused_packets - before.refused_packets == 3


def test_alert_mode_lets_the_question_pass_and_says_so(lab: NameLab) -> None:
    lab.profiles.govern(lab.slot, network(traffic(names=["example.com"])), mode=layout.MODE_ALERT)
    assert lab.ask("example.org") is None
    assert lab.watch.events(DNS_QUESTION, tgid=lab.client.tgid)[-1]["verdict"] == ALERTED
    lab.answer(message("example.org", (a_record(ADDRESS),)))
    assert lab.learned() == set()


def test_a_label_that_imitates_the_end_of_a_suffix_is_refused(lab: NameLab) -> None:
    imitation = b"\x0bfoo\x07example\x03com\0"
    question = struct.pack(">6H", 7, dns.QUERY, 1, 0, 0, 0) + imitation + struct.pack(">HH", dns.A, 1)
    assert lab.send(question) == "EPERM"


@pytest.mark.parametrize(
    "garbage",
    [
        b"x",
        b"GET / HTTP/1.1\r\n\r\n",
        message(NAME, flags=dns.RESPONSE),
        message(NAME, flags=dns.QUERY)[:20],
        message(NAME, flags=dns.QUERY)[:4] + b"\0\2" + message(NAME, flags=dns.QUERY)[6:],
    ],
    ids=["short", "http", "an answer", "cut", "two questions"],
)
def test_what_is_no_question_does_not_leave_for_a_resolver(lab: NameLab, garbage: bytes) -> None:
    assert lab.send(garbage) == "EPERM"
    assert lab.counted()["dns_malformed"] == 1


def test_many_datagrams_in_one_packet_do_not_pass_by_the_first(lab: NameLab) -> None:
    good, bad = message(NAME, flags=dns.QUERY), message("evil.example.com.evil", flags=dns.QUERY)
    size = max(len(good), len(bad))
    lab.new_socket("asks")
    lab.client.tell("option", "asks", socket.IPPROTO_UDP, 103, size)  # UDP_SEGMENT
    both = good.ljust(size, b"\0") + bad.ljust(size, b"\0")
    assert lab.client.tell("sendbytesto", "asks", both.hex(), RESOLVER, 53) == "EPERM"


def test_questions_of_a_profile_that_allows_any_name_pass(lab: NameLab) -> None:
    lab.profiles.govern(lab.slot, network(traffic("10.0.0.0/8", l7=only_dns(protocols=["DNS"]))))
    assert lab.ask("anything.at.all") is None
    assert lab.send(b"no question at all") == "EPERM"


def test_a_name_that_may_be_asked_only_is_not_learned(lab: NameLab) -> None:
    lab.profiles.govern(lab.slot, network(traffic("10.0.0.0/8", l7=only_dns(NAME))))
    lab.resolve(message(NAME, (a_record(ADDRESS),)))
    assert lab.learned() == set()
    assert lab.counted() == {}


def test_another_server_is_an_ordinary_flow(lab: NameLab) -> None:
    assert lab.ask(via=STRANGER) == "EPERM"  # no address rule
    rules = traffic(f"{STRANGER}/32", names=[NAME], ports=[(UDP, 53, 53)])
    lab.profiles.govern(lab.slot, network(rules))
    assert lab.ask("whatever.example.org", via=STRANGER) is None
    rules = traffic(f"{STRANGER}/32", ports=[(UDP, 53, 53)], l7=only_dns(NAME))
    lab.profiles.govern(lab.slot, network(rules))
    assert lab.ask(NAME, via=STRANGER) is None
    assert lab.ask("whatever.example.org", via=STRANGER) == "EPERM"


def test_question_over_tcp_in_two_writes_is_put_together_and_judged(lab: NameLab) -> None:
    for asked, arrives in ((NAME, True), ("evil.example.org", False)):
        lab.client.tell("socket", "stream", socket.AF_INET, socket.SOCK_STREAM)
        assert lab.client.tell("connect", "stream", RESOLVER, 53) is None
        lab.server.tell("accept", f"tcp {RESOLVER}", "accepted")
        lab.client.tell("option", "stream", socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        whole = framed(message(asked, flags=dns.QUERY))
        lab.client.tell("sendbytes", "stream", whole[:2].hex())
        lab.client.tell("sendbytes", "stream", whole[2:].hex())
        received = lab.server.tell("recvbytes", "accepted")
        assert received == ([whole.hex(), "", 0] if arrives else "ETIMEDOUT")
