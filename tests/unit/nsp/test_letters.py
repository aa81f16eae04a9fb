# SPDX-License-Identifier: Apache-2.0
"""Dead letters as a person sees them: decoded, with a cure, and harmless to a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from nsp.letters import Place, Wanted, as_json, as_text, read
from schemas.codec import encode
from schemas.letters import MAX_HEADERS, RETRIED, RETRIES, bounded, retries_of, with_retries
from schemas.samples import load_samples
from tests.unit.nsp.test_command import nsp


@dataclass
class Message:
    content: bytes | None
    place: int = 0
    extra: list[tuple[str, bytes]] | None = None

    def value(self) -> bytes | None:
        return self.content

    def headers(self) -> list[tuple[str, bytes]] | None:
        return self.extra

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.place


def letter(**changes: Any) -> bytes:
    record = {
        "topic": "nsp.events", "partition": 3, "offset": 991, "key": b"node", "value": b"\x1b[2Jgarbage",
        "stage": "decode", "reason": "CodecError: not Avro single-object encoding", "failed_at_ns": 10**18,
        "value_bytes": 11, "headers": [],
    }  # fmt: skip
    return encode("DeadLetter", {**record, **changes})


def test_nothing_in_a_letter_reaches_the_terminal_raw() -> None:
    hostile = letter(
        topic="\x1b]0;a", stage="\x07", reason="one\x1b[31m\ntwo\r\u202e", key=b"\x1b[A", value=b"\x9b\x1b[2J"
    )
    (found,) = read([Message(hostile)], Wanted(), 10).letters
    text = list(as_text(found, 0))
    assert all(each.isprintable() for each in text)
    assert any("\\x1b[31m" in each for each in text)
    assert sum(each.startswith("    reason  ") for each in text) == 1
    assert any(each.strip() == "two\\r\\u202e" for each in text)


def test_a_value_that_can_be_read_is_shown_as_what_it_is() -> None:
    sample = next(each for each in load_samples("EventBatch") if each.reason is None)
    (found,) = read([Message(letter(value=encode("EventBatch", sample.record())))], Wanted(), 10).letters
    document = as_json(found, 2)
    assert document["value"]["EventBatch"]["node"] == sample.record()["node"]
    assert (document["id"], document["retried"], document["failed_at"]) == ("0/0", 2, "2001-09-09 01:46:40Z")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"reason": "CodecError: written with a schema that was never released: fingerprint 01"},
            "update the",
        ),
        ({"reason": "SchemaError: an empty message"}, "find who writes"),
        ({"reason": "CodecError: not Avro single-object encoding"}, "let only sensors"),
        ({"reason": "CodecError: EOF"}, "fails in the same way"),
        ({"stage": "detect", "reason": "nsp.x: KeyError"}, "switch off the detector"),
        ({"topic": "nsp.rules", "reason": "line 3"}, "nsp rules lint"),
        ({"topic": "nsp.profiles", "reason": "x"}, "nsp apply"),
    ],
)
def test_a_known_cure_is_told(changes: dict[str, Any], words: str) -> None:
    (found,) = read([Message(letter(**changes))], Wanted(), 10).letters
    assert words in found.cure


def test_letters_are_chosen_and_marks_are_counted() -> None:
    messages = [
        Message(letter(), 0),
        Message(letter(stage="detect", reason="ZeroDivisionError: x"), 1),
        Message(letter(topic="nsp.rules", failed_at_ns=2 * 10**18), 2),
        Message(None, 3, [(RETRIED, b"0/1")]),
        Message(None, 4),
        Message(b"nothing", 5),
    ]

    def places(wanted: Wanted, most: int = 10) -> list[int]:
        return [each.place.offset for each in read(messages, wanted, most).letters]

    assert places(Wanted()) == [0, 1, 2]
    assert places(Wanted(), 2) == [1, 2]
    assert places(Wanted(reason="zero*x")) == [1]
    assert places(Wanted(topic="nsp.rules")) == [2]
    assert places(Wanted(stage="decode")) == [0, 2]
    assert places(Wanted(since_ns=10**18 + 1)) == [2]
    assert places(Wanted(places=frozenset({Place(0, 2)}))) == [2]
    found = read(messages, Wanted(), 2)
    assert (found.retried, found.unreadable, found.left_out) == ({"0/1": 1}, 2, 1)


def test_a_letter_knows_its_message() -> None:
    (whole,) = read([Message(letter(value=b"abc", value_bytes=3))], Wanted(), 1).letters
    assert whole.is_about(b"node", b"abc")
    assert not whole.is_about(b"node", b"abcd")
    assert not whole.is_about(b"other", b"abc")
    assert not whole.is_about(None, b"abc")
    (cut,) = read([Message(letter(value=b"abc", value_bytes=4))], Wanted(), 1).letters
    assert cut.is_cut
    assert cut.is_about(b"node", b"abcd")
    assert not cut.is_about(b"node", b"xbcd")


def test_headers_are_bounded_and_counts_that_are_none_are_none() -> None:
    assert len(bounded([("a" * 5000, b"b" * 5000)] * 100)) == MAX_HEADERS
    assert bounded(None) == ()
    assert retries_of(with_retries([("x", None), (RETRIES, b"2")], 3)) == 3
    assert [retries_of([(RETRIES, each)]) for each in (None, b"", b"-1", b"x", b"9" * 7, "²".encode())] == [
        0
    ] * 6


def test_what_to_retry_must_be_said(tmp_path: Any) -> None:
    for arguments in (["retry"], ["retry", "--id", "17"], ["show", "--since", "soon"]):
        done = nsp("dead-letter", *arguments, "--brokers", "127.0.0.1:1", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
