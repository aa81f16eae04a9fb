# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import socket

from hypothesis import given
from hypothesis import strategies as st

from sensor.publish.dns import MAX_NAME_OCTETS, decode_name, record_text
from tests.support.ring_records import dns_message, wire_name

SHOWN = re.compile(r"([!-\[\]-~]|\\[0-9]{3})*")


def test_a_name_is_lower_case_without_its_final_dot() -> None:
    assert decode_name(wire_name("WWW.Example.COM"), 0) == ("www.example.com", True)


def test_the_root_is_empty() -> None:
    assert decode_name(b"\0", 0) == ("", True)


def test_what_is_not_printable_or_would_read_as_something_else_is_escaped() -> None:
    assert decode_name(b"\x06a.b\\\x00\xff\0", 0) == (r"a\046b\092\000\255", True)


def test_a_compressed_name_is_followed_backwards() -> None:
    message = wire_name("example.com") + b"\x03www\xc0\x00"
    assert decode_name(message, 13) == ("www.example.com", True)


def test_a_pointer_to_itself_or_forwards_ends_the_name() -> None:
    assert decode_name(b"\xc0\x00", 0) == ("", False)
    assert decode_name(b"\x01a\xc0\x04\x01b\0", 0) == ("a", False)


def test_a_name_longer_than_the_standard_allows_is_cut() -> None:
    labels = b"".join(b"\x3f" + b"x" * 63 for _ in range(5)) + b"\0"
    text, complete = decode_name(labels, 0)
    assert not complete
    assert len(text) <= MAX_NAME_OCTETS


def test_a_name_that_runs_out_of_the_message_is_incomplete() -> None:
    assert decode_name(b"\x03www\x07exam", 0) == ("www", False)


def test_address_records_are_text() -> None:
    v4 = socket.inet_aton("192.0.2.1")
    assert record_text(1, b"xx" + v4, 2, 4) == ("192.0.2.1", True)
    v6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    assert record_text(28, v6, 0, 16) == ("2001:db8::1", True)
    assert record_text(1, v4, 0, 3) == ("", False)
    assert record_text(28, v6[:9], 0, 16) == ("", False)


def test_the_target_of_a_cname_may_be_compressed() -> None:
    message = dns_message(wire_name("shop.example"), answers=b"\x04edge\xc0\x11")
    assert record_text(5, message, len(message) - 7, 7) == ("edge.example", True)


def test_other_records_have_no_text() -> None:
    assert record_text(16, b"abc", 0, 3) == ("", True)


@given(st.binary(max_size=600), st.integers(-5, 700))
def test_any_bytes_give_a_printable_bounded_name(message: bytes, offset: int) -> None:
    text, complete = decode_name(message, offset)
    assert isinstance(complete, bool)
    assert SHOWN.fullmatch(text)
    assert len(text) <= 4 * MAX_NAME_OCTETS


@given(st.integers(0, 65535), st.binary(max_size=600), st.integers(0, 65535), st.integers(0, 65535))
def test_any_record_gives_text_or_says_it_is_not_readable(
    kind: int, message: bytes, offset: int, length: int
) -> None:
    text, complete = record_text(kind, message, offset, length)
    assert isinstance(text, str)
    assert isinstance(complete, bool)


@given(st.lists(st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True), min_size=1, max_size=8))
def test_a_name_written_is_the_name_read(labels: list[str]) -> None:
    name = ".".join(labels)
    assert decode_name(wire_name(name), 0) == (name, True)
