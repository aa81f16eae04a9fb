# SPDX-License-Identifier: Apache-2.0
"""DNS questions and answers on real sockets, from the packet to the decoded event."""

from __future__ import annotations

import random
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import dns_messages as dns
from tests.support.dns_exchange import SERVERS, Exchange
from tests.support.dns_lab import DnsLab, dns_lab
from tests.support.dns_messages import TO_QUESTION, message, mutated, name, record

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "www.example.com"
ADDRESS = socket.inet_aton("192.0.2.7")
ADDRESS_6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7")
QUESTION = message(NAME, flags=dns.QUERY)
PLAIN_ANSWER = message(NAME, (record(TO_QUESTION, dns.A, ADDRESS),))


@pytest.fixture(scope="module")
def lab() -> Iterator[DnsLab]:
    with dns_lab() as started:
        yield started


def answer_event(lab: DnsLab, answer: bytes) -> dict[str, Any]:
    """The one event of an answer whose parsing counts as no loss."""
    seen = lab.exchange(Exchange((QUESTION,), (answer,)))
    assert seen.counted == {}
    (event,) = seen.answers
    return event


def addresses(event: dict[str, Any]) -> list[str]:
    return [each["data"] for each in event["records"]]


@pytest.mark.parametrize("connected", [True, False])
def test_question_names_its_process_server_and_name(lab: DnsLab, connected: bool) -> None:
    question = message("WwW.ExAmple.COM", flags=dns.QUERY, kind=dns.AAAA, transaction=0xBEEF)

    seen = lab.exchange(Exchange((question,), (), connected=connected))

    (event,) = seen.questions
    assert event["tgid"] == lab.pid
    assert event["server_address"] == SERVERS[4]
    assert event["transaction_id"] == 0xBEEF
    assert event["name"] == "www.example.com"
    assert event["question_type"] == dns.AAAA
    assert event["protocol"] == socket.IPPROTO_UDP
    (raw,) = seen.raw
    assert (raw["remote_port"], raw["family"], raw["message"]) == (53, 4, question)
    assert seen.counted == {}


def test_answer_has_the_address_and_belongs_to_who_asked(lab: DnsLab) -> None:
    event = answer_event(lab, PLAIN_ANSWER)

    assert event["tgid"] == lab.pid
    assert (event["name"], event["rcode"]) == (NAME, 0)
    assert not event["truncated"]
    assert not event["incomplete"]
    assert event["records"] == [{"type": dns.A, "ttl_s": 60, "data": "192.0.2.7"}]


def test_answer_with_ipv6_address(lab: DnsLab) -> None:
    event = answer_event(lab, message(NAME, (record(TO_QUESTION, dns.AAAA, ADDRESS_6),), kind=dns.AAAA))

    assert addresses(event) == ["2001:db8::7"]


def test_chain_of_aliases_keeps_each_step_in_order(lab: DnsLab) -> None:
    # 0xc010 points into the question at "example.com": a name part by part and by pointer.
    first = record(TO_QUESTION, dns.CNAME, b"\x03cdn\xc0\x10", ttl_s=300)
    second = record(name("cdn.example.com"), dns.CNAME, name("Edge.Example.NET"), ttl_s=30)
    last = record(name("edge.example.net"), dns.A, ADDRESS, ttl_s=5)

    event = answer_event(lab, message(NAME, (first, second, last)))

    assert not event["incomplete"]
    assert [(each["type"], each["ttl_s"], each["data"]) for each in event["records"]] == [
        (dns.CNAME, 300, "cdn.example.com"),
        (dns.CNAME, 30, "edge.example.net"),
        (dns.A, 5, "192.0.2.7"),
    ]


@pytest.mark.parametrize("ttl_s", [0, 2**32 - 1])
def test_time_to_live_at_its_limits(lab: DnsLab, ttl_s: int) -> None:
    event = answer_event(lab, message(NAME, (record(TO_QUESTION, dns.A, ADDRESS, ttl_s=ttl_s),)))

    assert event["records"][0]["ttl_s"] == ttl_s


@pytest.mark.parametrize(
    "owner", [TO_QUESTION, name("a.b.c.d.e.f"), b"\0"], ids=["pointer", "labels", "root"]
)
def test_32_records_are_complete(lab: DnsLab, owner: bytes) -> None:
    records = tuple(record(owner, dns.A, bytes((10, 0, 0, index))) for index in range(32))

    event = answer_event(lab, message(NAME, records))

    assert addresses(event) == [f"10.0.0.{index}" for index in range(32)]
    assert not event["incomplete"]


def test_more_than_32_records_are_said_to_be_incomplete(lab: DnsLab) -> None:
    records = tuple(record(TO_QUESTION, dns.A, bytes((10, 0, 0, index))) for index in range(33))

    event = answer_event(lab, message(NAME, records))

    assert len(event["records"]) == 32
    assert event["incomplete"]


@pytest.mark.parametrize("rcode", [dns.NXDOMAIN, dns.SERVFAIL, 0])
def test_answer_without_records_is_reported(lab: DnsLab, rcode: int) -> None:
    event = answer_event(lab, message(NAME, flags=dns.RESPONSE | rcode))

    assert (event["name"], event["rcode"], event["records"]) == (NAME, rcode, [])
    assert not event["incomplete"]


def test_truncation_by_the_server_is_reported(lab: DnsLab) -> None:
    assert answer_event(lab, message(NAME, flags=dns.RESPONSE | dns.TRUNCATED))["truncated"]


def test_record_of_another_class_is_not_taken_for_an_address(lab: DnsLab) -> None:
    chaos = record(TO_QUESTION, dns.A, ADDRESS, record_class=dns.CLASS_CHAOS)

    event = answer_event(lab, message(NAME, (chaos, record(TO_QUESTION, dns.A, ADDRESS))))

    assert addresses(event) == ["192.0.2.7"]
    assert event["incomplete"]


@pytest.mark.parametrize(
    ("longest", "allowed"),
    [
        (".".join(["a" * 63] * 3 + ["b" * 61]), True),  # 255 bytes on the wire
        (".".join(["a"] * 127), True),
        (".".join(["a" * 63] * 3 + ["b" * 62]), False),
    ],
    ids=["255 bytes", "127 labels", "256 bytes"],
)
def test_longest_names(lab: DnsLab, longest: str, allowed: bool) -> None:
    seen = lab.exchange(Exchange((message(longest, flags=dns.QUERY),), ()))

    (raw,) = seen.raw
    assert raw["name_bytes"] == (255 if allowed else 0)
    assert seen.counted == ({} if allowed else {"dns_malformed": 1})
    if allowed:
        assert seen.questions[0]["name"] == longest


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_ipv6_resolver(lab: DnsLab, transport: str) -> None:
    prefix = (lambda piece: struct.pack(">H", len(piece)) + piece) if transport == "tcp" else bytes
    exchange = Exchange((prefix(QUESTION),), (prefix(PLAIN_ANSWER),), family=6, transport=transport)

    seen = lab.exchange(exchange)

    assert [event["server_address"] for event in (*seen.questions, *seen.answers)] == ["::1", "::1"]
    assert addresses(seen.answers[0]) == ["192.0.2.7"]
    assert {raw["family"] for raw in seen.raw} == {6}
    assert seen.counted == {}


def over_tcp(*pieces: bytes) -> Exchange:
    return Exchange((struct.pack(">H", len(QUESTION)) + QUESTION,), pieces, transport="tcp")


def test_message_in_one_tcp_segment_is_read(lab: DnsLab) -> None:
    seen = lab.exchange(over_tcp(struct.pack(">H", len(PLAIN_ANSWER)) + PLAIN_ANSWER))

    assert [event["name"] for event in (*seen.questions, *seen.answers)] == [NAME, NAME]
    assert {event["protocol"] for event in (*seen.questions, *seen.answers)} == {socket.IPPROTO_TCP}
    assert seen.counted == {}  # the handshake and the acknowledgements are no segments of a message


def test_length_and_message_in_tcp_segments_of_their_own_are_read(lab: DnsLab) -> None:
    whole = struct.pack(">H", len(PLAIN_ANSWER)) + PLAIN_ANSWER

    seen = lab.exchange(over_tcp(whole[:2], whole[2:], whole[:2], whole[2:]))

    assert [event["name"] for event in seen.answers] == [NAME, NAME]
    assert seen.counted == {}


def test_message_over_several_tcp_segments_is_counted_for_each(lab: DnsLab) -> None:
    whole = struct.pack(">H", len(PLAIN_ANSWER)) + PLAIN_ANSWER

    seen = lab.exchange(over_tcp(whole[:3], whole[3:30], whole[30:]))

    assert len(seen.questions) == 1
    assert seen.answers == ()
    assert seen.counted == {"dns_tcp_segmented": 3}


@pytest.mark.parametrize(
    "garbage",
    [
        b"x",
        b"\0" * 11,
        b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        message(NAME, flags=dns.RESPONSE),
        message(NAME, flags=dns.QUERY | 0x2000),
        QUESTION[:4] + b"\0\2" + QUESTION[6:],
    ],
    ids=["one byte", "short", "http", "a response", "opcode", "two questions"],
)
def test_what_is_not_a_question_passes_counted_and_without_event(lab: DnsLab, garbage: bytes) -> None:
    seen = lab.exchange(Exchange((garbage,), ()))  # returns only when the bytes have arrived

    assert seen.raw == ()
    assert seen.counted == {"dns_malformed": 1}


def test_a_question_sent_as_an_answer_is_none(lab: DnsLab) -> None:
    seen = lab.exchange(Exchange((QUESTION,), (QUESTION,)))

    assert (len(seen.questions), seen.answers, seen.counted) == (1, (), {"dns_malformed": 1})


@pytest.mark.parametrize(
    "answer",
    [
        message(NAME, (record(TO_QUESTION, dns.A, ADDRESS),), count=2),
        message(NAME, (record(TO_QUESTION, dns.A, ADDRESS), b"\x80")),
        message(NAME, (record(TO_QUESTION, dns.A, ADDRESS), record(TO_QUESTION, dns.TXT, b"abc")[:-1])),
    ],
    ids=["one record missing", "reserved label", "data beyond the end"],
)
def test_broken_answer_keeps_the_records_before_the_break(lab: DnsLab, answer: bytes) -> None:
    seen = lab.exchange(Exchange((QUESTION,), (answer,)))

    (event,) = seen.answers
    assert addresses(event) == ["192.0.2.7"]
    assert event["incomplete"]
    assert seen.counted == {"dns_malformed": 1}


def test_longer_message_than_is_copied_is_cut_and_counted(lab: DnsLab) -> None:
    records = tuple(record(TO_QUESTION, dns.TXT, bytes(200), ttl_s=index) for index in range(15))

    seen = lab.exchange(Exchange((QUESTION,), (message(NAME, records),)))

    (event,) = seen.answers
    assert [each["ttl_s"] for each in event["records"]] == list(range(9))
    assert event["incomplete"]
    assert seen.raw[-1]["message"] == message(NAME, records)[: dns.MAX_COPY_BYTES]
    assert seen.counted == {"dns_too_long": 1}


@pytest.mark.parametrize("seed", range(4))
def test_mutated_messages_are_read_as_a_plain_reader_does(lab: DnsLab, seed: int) -> None:
    generator = random.Random(seed)
    long_owner = name("a" * 60 + "." + "b" * 60)
    bases = (
        PLAIN_ANSWER,
        message(
            NAME,
            (record(TO_QUESTION, dns.CNAME, name("x.y")),) * 2 + (record(TO_QUESTION, dns.A, ADDRESS),) * 3,
        ),
        message(NAME, (record(name("a.b.c.d.e.f.g.h"), dns.A, ADDRESS),) * 32),
        message(NAME, (record(long_owner, dns.A, ADDRESS),) * 16),
    )
    answers = tuple(mutated(generator.choice(bases), generator) for _ in range(200))
    questions = tuple(mutated(QUESTION, generator) for _ in range(100))

    seen = lab.exchange(Exchange(questions, answers))

    expected = [
        (data[: dns.MAX_COPY_BYTES], reading)
        for pieces, response in ((questions, False), (answers, True))
        for data in pieces
        if (reading := dns.read(data, response=response)) is not None
    ]
    assert [(raw["message"], reading_of(raw)) for raw in seen.raw] == expected


def reading_of(raw: dict[str, Any]) -> dns.Reading:
    """An event in the plain reader's terms; it has as many places as records."""
    table = list(struct.iter_unpack("<IHHHH", raw["table"]))
    assert len(table) == raw["record_count"]
    records = tuple((ttl_s, kind, offset, length) for ttl_s, kind, offset, length, _ in table)
    cut, malformed, more = (bool(raw["parse_flags"] & flag) for flag in (1, 2, 4))
    return dns.Reading(raw["name_bytes"], raw["question_type"], records, cut, malformed, more)
