# SPDX-License-Identifier: Apache-2.0
"""Addresses learned from answers, and what no answer teaches, on real sockets."""

from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import dns_messages as dns
from tests.support.dns_messages import TO_QUESTION, message, name, record
from tests.support.name_lab import (
    NAME,
    RESOLVER,
    RESOLVER_6,
    SECOND,
    STRANGER,
    NameLab,
    a_record,
    framed,
    name_lab,
)
from tests.support.profile_lab import network, traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.kernel_watch import Watch

ADDRESS, ADDRESS_6 = "192.0.2.7", "2001:db8::7"


@pytest.fixture
def lab(watch: Watch) -> Iterator[NameLab]:
    with name_lab(watch) as started:
        started.profiles.govern(started.slot, network(traffic(names=["example.com", "*.example.com"])))
        yield started


def chain(*, first: bytes, second: bytes, last: bytes, order: str = "123") -> bytes:
    """www.example.com -> cdn.example.com -> edge.example.net -> address."""
    records = {
        "1": record(first, dns.CNAME, name("cdn.example.com"), ttl_s=300),
        "2": record(second, dns.CNAME, name("edge.example.net"), ttl_s=30),
        "3": a_record(ADDRESS, last, 3600),
    }
    return message(NAME, tuple(records[each] for each in order))


def pointer(offset: int) -> bytes:
    return struct.pack(">H", 0xC000 | offset)


FIRST_DATA = 12 + len(name(NAME)) + 4 + 2 + 10
SECOND_DATA = FIRST_DATA + len(name("cdn.example.com")) + 2 + 10


@pytest.mark.parametrize(
    "answer",
    [
        message(NAME, (a_record(ADDRESS),)),
        message(NAME, (a_record(ADDRESS, name(NAME)),)),
        message(NAME, (a_record(ADDRESS, name("WWW.Example.COM")),)),
        message(NAME.upper(), (a_record(ADDRESS, name(NAME)),)),
        message(NAME, (a_record(ADDRESS, b"\x03www" + pointer(16)),)),
        message(NAME, (record(TO_QUESTION, dns.TXT, b"\x01x"), a_record(ADDRESS))),
        chain(first=TO_QUESTION, second=pointer(FIRST_DATA), last=pointer(SECOND_DATA)),
        chain(first=TO_QUESTION, second=name("CDN.example.com"), last=name("edge.example.net")),
        chain(first=TO_QUESTION, second=b"\x03cdn" + pointer(16), last=name("edge.example.net")),
        chain(first=name(NAME), second=name("cdn.example.com"), last=name("edge.example.net"), order="321"),
        chain(first=name(NAME), second=name("cdn.example.com"), last=name("edge.example.net"), order="213"),
    ],
    ids=[
        "pointer", "plain", "plain, other case", "question in other case", "label and pointer",
        "after another record", "chain by pointers", "chain in plain", "chain by label and pointer",
        "backwards", "shuffled",
    ],
)  # fmt: skip
def test_addresses_of_the_asked_name_are_learned(lab: NameLab, answer: bytes) -> None:
    lab.resolve(answer, "wWw.ExAmPlE.cOm")
    assert lab.learned() == {ADDRESS}
    assert lab.counted() == {}
    ((key, value),) = list(lab.policy.learned())
    assert key.ruleset
    assert value.name_id


@pytest.mark.parametrize(
    ("records", "strays"),
    [
        ((a_record(ADDRESS, name("evil.example.org")),), 1),
        ((a_record(ADDRESS, pointer(16)),), 1),  # example.com, not www.example.com
        ((a_record(ADDRESS, b"\0"),), 1),
        ((record(name("x.org"), dns.CNAME, name("y.org")), a_record(ADDRESS, name("y.org"))), 1),
        ((record(TO_QUESTION, dns.CNAME, name("a.example")), a_record(ADDRESS, name("b.example"))), 1),
        ((record(TO_QUESTION, dns.A, b"\1\2\3"),), 0),
        ((record(TO_QUESTION, dns.A, socket.inet_aton(ADDRESS), record_class=dns.CLASS_CHAOS),), 0),
        ((a_record(ADDRESS, pointer(12 + len(name(NAME)) + 4)),), 1),  # to itself
        ((a_record(ADDRESS, pointer(0x3000)),), 1),  # beyond the end
        ((a_record(ADDRESS, pointer(13)),), 1),  # into the middle of a label
    ],
    ids=[
        "another name", "the parent", "the root", "a chain of its own", "after an alias", "three bytes",
        "another class", "pointer to itself", "pointer beyond", "pointer into a label",
    ],
)  # fmt: skip
def test_records_of_others_are_not_learned(lab: NameLab, records: tuple[bytes, ...], strays: int) -> None:
    lab.resolve(message(NAME, records))
    assert lab.learned() == set()
    assert lab.counted() == ({"learned_other_owner": strays} if strays else {})


def test_aliases_in_a_circle_end(lab: NameLab) -> None:
    circle = (
        record(name(NAME), dns.CNAME, name("b.example")),
        record(name("b.example"), dns.CNAME, name(NAME)),
        a_record(ADDRESS, name("b.example")),
    )
    lab.resolve(message(NAME, circle))
    assert lab.learned() == {ADDRESS}


@pytest.mark.parametrize("owner", [TO_QUESTION, name(NAME), b"\x03www\x07example\x03com\0"])
def test_32_addresses_of_both_families_are_learned(lab: NameLab, owner: bytes) -> None:
    every = [f"10.0.0.{index}" for index in range(16)] + [f"2001:db8::{index + 1:x}" for index in range(16)]
    lab.resolve(message(NAME, tuple(a_record(address, owner) for address in every)))
    assert lab.learned() == set(every)


def test_ipv6_address_by_a_resolver_with_ipv6(lab: NameLab) -> None:
    lab.resolve(message(NAME, (a_record(ADDRESS_6),), kind=dns.AAAA), via=RESOLVER_6, kind=dns.AAAA)
    assert lab.learned() == {ADDRESS_6}


@pytest.mark.parametrize("split", [False, True], ids=["one segment", "length by itself"])
@pytest.mark.parametrize("via", [RESOLVER, RESOLVER_6])
def test_answer_over_tcp_is_learned(lab: NameLab, via: str, split: bool) -> None:
    whole = framed(message(NAME, (a_record(ADDRESS),)))
    lab.over_tcp(message(NAME, flags=dns.QUERY), (whole[:2], whole[2:]) if split else (whole,), via=via)
    assert lab.learned() == {ADDRESS}


def test_truncated_answer_teaches_nothing_and_the_retry_over_tcp_does(lab: NameLab) -> None:
    lab.resolve(message(NAME, flags=dns.RESPONSE | dns.TRUNCATED))
    assert lab.learned() == set()
    lab.over_tcp(message(NAME, flags=dns.QUERY), (framed(message(NAME, (a_record(ADDRESS),))),))
    assert lab.learned() == {ADDRESS}


@pytest.mark.parametrize(
    ("ttl_s", "floor_s", "grace_s", "left_s"),
    [(0, 10, 0, 10), (100, 10, 0, 100), (100, 10, 7, 107), (2**31, 10, 0, 10), (2**31 - 1, 10, 0, 604800)],
)
def test_time_to_live_with_floor_and_grace(
    lab: NameLab, ttl_s: int, floor_s: int, grace_s: int, left_s: int
) -> None:
    lab.policy.set_learned_times(floor_s * 10**9, grace_s * 10**9)
    try:
        lab.resolve(message(NAME, (a_record(ADDRESS, ttl_s=ttl_s),)))
        assert left_s - 5 < lab.left_s(ADDRESS) <= left_s
    finally:
        lab.policy.set_learned_times(0, 0)


def test_the_least_time_to_live_of_the_chain_counts_and_the_later_answer_wins(lab: NameLab) -> None:
    lab.resolve(chain(first=TO_QUESTION, second=pointer(FIRST_DATA), last=pointer(SECOND_DATA)))
    assert 25 < lab.left_s(ADDRESS) <= 30
    lab.resolve(message(NAME, (a_record(ADDRESS, ttl_s=500),)))
    assert 490 < lab.left_s(ADDRESS) <= 500
    lab.resolve(message(NAME, (a_record(ADDRESS, ttl_s=5),)))
    assert 490 < lab.left_s(ADDRESS) <= 500


def test_each_rule_set_that_lets_the_name_be_reached_learns_for_itself(lab: NameLab) -> None:
    both = [lab.profiles.ruleset(network(traffic(names=[NAME]))) for _ in range(2)]
    other = lab.profiles.ruleset(network(traffic(names=["example.org"])))
    lab.profiles.switch(lab.slot, lab.profiles.policy([both[0], other, both[1]]))
    lab.resolve(message(NAME, (a_record(ADDRESS),)))
    assert {key.ruleset for key, _ in lab.policy.learned()} == set(both)


def test_two_questions_at_once_and_answers_in_the_other_order(lab: NameLab) -> None:
    lab.new_socket("asks")
    for kind, transaction in ((dns.A, 1), (dns.AAAA, 2)):
        assert lab.ask(kind=kind, transaction=transaction, socket_name="asks") is None
    lab.answer(message(NAME, (a_record(ADDRESS_6),), kind=dns.AAAA, transaction=2))
    lab.answer(message(NAME, (a_record(ADDRESS),), transaction=1))
    assert lab.learned() == {ADDRESS, ADDRESS_6}


def test_a_forwarder_has_many_questions_open(lab: NameLab) -> None:
    lab.new_socket("asks")
    for number in range(60):
        assert lab.ask(f"h{number}.example.com", transaction=number, socket_name="asks") is None
    for number in range(60):
        lab.answer(message(f"h{number}.example.com", (a_record(f"10.0.0.{number}"),), transaction=number))
    assert lab.learned() == {f"10.0.0.{number}" for number in range(60)}
    assert lab.counted() == {}


GOOD = message(NAME, (a_record(ADDRESS),))


def test_answer_of_a_server_that_is_not_listed_is_not_believed(lab: NameLab) -> None:
    rules = traffic(f"{STRANGER}/32", names=[NAME])
    lab.profiles.govern(lab.slot, network(rules))
    lab.resolve(GOOD, via=STRANGER)
    assert lab.learned() == set()
    assert lab.counted() == {"learned_unsolicited": 1}


def test_answer_of_a_process_of_the_same_workload_is_not_believed(lab: NameLab) -> None:
    own = "127.7.3.53"
    rules = traffic(f"{own}/32", "127.0.0.0/8", names=[NAME])
    lab.profiles.govern(lab.slot, network(rules, traffic("0.0.0.0/0")))
    lab.client.tell("socket", "own", socket.AF_INET, socket.SOCK_DGRAM)
    assert lab.client.tell("bind", "own", own, 53) is None
    lab.new_socket("asks")
    lab.client.tell("sendbytesto", "asks", message(NAME, flags=dns.QUERY).hex(), own, 53)
    _, *peer = lab.client.tell("recvbytes", "own")
    lab.client.tell("sendbytesto", "own", GOOD.hex(), *peer)
    assert lab.client.tell("recvbytes", "asks")[0] == GOOD.hex()
    assert lab.learned() == set()
    assert lab.counted()["learned_unsolicited"] == 1


@pytest.mark.parametrize(
    "answer",
    [
        message(NAME, (a_record(ADDRESS),), transaction=0x1235),
        message("ftp.example.com", (a_record(ADDRESS),)),
        message(NAME, (a_record(ADDRESS_6),), kind=dns.AAAA),
    ],
    ids=["wrong id", "wrong name", "wrong type"],
)
def test_answer_to_what_was_not_asked_is_not_believed_and_the_right_one_is(
    lab: NameLab, answer: bytes
) -> None:
    lab.resolve(answer)
    assert lab.learned() == set()
    assert lab.counted() == {"learned_unsolicited": 1}
    lab.answer(GOOD)
    assert lab.learned() == {ADDRESS}


def test_answer_to_another_socket_of_the_process_is_not_believed(lab: NameLab) -> None:
    assert lab.ask() is None
    lab.new_socket("other")
    assert lab.ask("ftp.example.com", socket_name="other") is None
    lab.answer(GOOD, socket_name="other")
    assert lab.learned() == set()


def test_a_question_is_used_up_by_its_answer(lab: NameLab) -> None:
    lab.resolve(GOOD)
    lab.answer(message(NAME, (a_record("192.0.2.8"),)))
    assert lab.learned() == {ADDRESS}
    assert lab.counted() == {"learned_unsolicited": 1}


def test_a_question_asked_again_may_be_answered_twice(lab: NameLab) -> None:
    lab.new_socket("asks")
    for _ in range(2):
        assert lab.ask(socket_name="asks") is None
    for address in (ADDRESS, "192.0.2.8"):
        lab.answer(message(NAME, (a_record(address),)))
    assert lab.learned() == {ADDRESS, "192.0.2.8"}


def forge(lab: NameLab, source: str, data: bytes) -> None:
    """A datagram from another host's port 53 to the client's socket."""
    udp = struct.pack(">HHHH", 53, lab.client.tell("port", "asks"), 8 + len(data), 0) + data
    header = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0,
        socket.inet_aton(source), socket.inet_aton("127.0.0.1"),
    )  # fmt: skip
    lab.server.tell("socket", "raw", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    lab.server.tell("sendbytesto", "raw", (header + udp).hex(), "127.0.0.1", 0)


def test_a_forged_answer_with_the_resolvers_address_has_to_know_the_question(lab: NameLab) -> None:
    assert lab.ask() is None
    forged = message(NAME, (a_record("192.0.2.66"),), transaction=0x4321)
    forge(lab, RESOLVER, forged)
    assert lab.client.tell("recvbytes", "asks")[0] == forged.hex()
    assert lab.learned() == set()
    assert lab.counted() == {"learned_unsolicited": 1}
    lab.answer(GOOD)
    assert lab.learned() == {ADDRESS}


def test_an_answer_of_another_pod_that_knows_the_question_is_not_believed(lab: NameLab) -> None:
    lab.profiles.govern(lab.slot, network(traffic(f"{STRANGER}/32", names=[NAME])))
    assert lab.ask() is None
    forge(lab, STRANGER, GOOD)
    assert lab.client.tell("recvbytes", "asks")[0] == GOOD.hex()
    assert lab.learned() == set()
    assert lab.counted() == {"learned_unsolicited": 1}


def test_answers_with_an_error_teach_nothing(lab: NameLab) -> None:
    lab.resolve(message(NAME, (a_record(ADDRESS),), flags=dns.RESPONSE | dns.NXDOMAIN))
    assert lab.learned() == set()


def test_a_second_listed_resolver_is_believed_too(lab: NameLab) -> None:
    lab.resolve(GOOD, via=SECOND)
    assert lab.learned() == {ADDRESS}


def test_an_answer_that_breaks_off_teaches_what_came_before(lab: NameLab) -> None:
    lab.resolve(message(NAME, (a_record(ADDRESS), a_record("192.0.2.8")[:-1])))
    assert lab.learned() == {ADDRESS}
    assert lab.counted() == {"dns_malformed": 1}


HOST = "127.9.0.1"


def test_an_address_is_reached_once_its_name_was_answered_and_until_it_expires(lab: NameLab) -> None:
    port = lab.server.listen("web", HOST)
    assert lab.client.connect("early", HOST, port) == "EPERM"
    lab.policy.set_learned_times(10**9, 0)
    try:
        lab.resolve(message(NAME, (a_record(HOST, ttl_s=0),)))
        assert lab.client.connect("flow", HOST, port) is None
        lab.server.tell("accept", "web", "accepted")
        time.sleep(1.1)
        assert lab.client.connect("late", HOST, port) == "EPERM"
        lab.client.tell("send", "flow", "still open")
        assert lab.server.tell("recv", "accepted") == "still open"
        lab.server.tell("send", "accepted", "and back")
        assert lab.client.tell("recv", "flow") == "and back"
    finally:
        lab.policy.set_learned_times(0, 0)


def test_a_flow_opened_by_name_is_cut_when_the_name_is_no_longer_allowed(lab: NameLab) -> None:
    port = lab.server.listen("web", HOST)
    lab.resolve(message(NAME, (a_record(HOST),)))
    assert lab.client.connect("flow", HOST, port) is None
    lab.server.tell("accept", "web", "accepted")
    lab.profiles.govern(lab.slot, network(traffic(names=["example.org"])))
    lab.client.tell("send", "flow", "too late")
    assert lab.server.tell("recv", "accepted") == "ETIMEDOUT"
    assert lab.client.connect("again", HOST, port) == "EPERM"


def test_resolve_and_connect_at_once_a_thousand_times(lab: NameLab) -> None:
    """0 wrong denials, and 0 wrong allows: each second address was never answered."""
    port = lab.server.listen("web", HOST)
    wrong = []
    for number in range(500):
        good, bad = f"127.9.{number // 250}.{number % 250 + 2}", f"127.10.{number // 250}.{number % 250 + 2}"
        lab.resolve(message(f"h{number}.example.com", (a_record(good, ttl_s=0),)), f"h{number}.example.com")
        # UDP: nobody needs to listen for a connect to be decided.
        if lab.client.connect("c", good, port, kind=socket.SOCK_DGRAM) is not None:
            wrong.append(f"{good} was denied")
        if lab.client.connect("c", bad, port, kind=socket.SOCK_DGRAM) != "EPERM":
            wrong.append(f"{bad} was allowed")
    assert wrong == []


def test_one_workload_cannot_take_all_places(lab: NameLab) -> None:
    """Its share is used up after so many addresses; what is taken out makes room again."""
    share, each = 8192, 32
    for number in range(share // each + 1):
        records = tuple(a_record(f"10.{number >> 8}.{number & 255}.{index}") for index in range(each))
        lab.resolve(message(NAME, records))
    counted = lab.counted()
    assert sum(1 for key, _ in lab.policy.learned() if key.workload_cgroup_id == lab.pod.id) == share
    assert counted == {"learned_full": each}
