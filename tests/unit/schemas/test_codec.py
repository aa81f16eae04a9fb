# SPDX-License-Identifier: Apache-2.0
"""The codec: both Avro implementations agree on it, and hostile bytes cost nothing but an error."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import avro.io
import avro.schema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import catalogue
from schemas.catalogue import current
from schemas.codec import (
    HEADER_BYTES,
    MARKER,
    MAX_MESSAGE_BYTES,
    MAX_PROFILE_BYTES,
    decode,
    decode_as,
    encode,
)
from schemas.errors import CodecError
from schemas.samples import Sample, load_samples

if TYPE_CHECKING:
    from pathlib import Path

VALID = [each for each in load_samples() if each.reason is None]
NAMES = sorted(catalogue.current())


def by_file(sample: Sample) -> str:
    return f"{sample.name}-{sample.path.stem}"


def without_tuples(value: Any) -> Any:
    """A record as the avro package has it: it knows a union's branch by the fields alone."""
    if isinstance(value, tuple):
        return without_tuples(value[1])
    if isinstance(value, dict):
        return {key: without_tuples(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_tuples(each) for each in value]
    return value


class NamingWriter(avro.io.DatumWriter):
    """The avro package, told by name which branch of a union to write; left alone it guesses by fields."""

    def write_union(
        self, writers_schema: avro.schema.UnionSchema, datum: object, encoder: avro.io.BinaryEncoder
    ) -> None:
        if not isinstance(datum, tuple):
            super().write_union(writers_schema, datum, encoder)
            return
        name, record = datum
        branch = [each.fullname for each in writers_schema.schemas].index(name)
        encoder.write_long(branch)
        self.write_data(writers_schema.schemas[branch], record, encoder)


@pytest.mark.parametrize("sample", VALID, ids=by_file)
def test_the_avro_package_reads_what_the_codec_wrote(sample: Sample) -> None:
    data = encode(sample.name, sample.record())
    schema = avro.schema.parse(catalogue.schema(sample.name).text)
    buffer = io.BytesIO(data[HEADER_BYTES:])
    read = avro.io.DatumReader(schema).read(avro.io.BinaryDecoder(buffer))
    assert read == without_tuples(sample.record())
    assert buffer.read() == b""


@pytest.mark.parametrize("sample", VALID, ids=by_file)
def test_the_codec_reads_what_the_avro_package_wrote(sample: Sample) -> None:
    schema = avro.schema.parse(catalogue.schema(sample.name).text)
    header = MARKER + catalogue.schema(sample.name).fingerprint
    buffer = io.BytesIO()
    buffer.write(header)
    NamingWriter(schema).write_data(schema, sample.record(), avro.io.BinaryEncoder(buffer))
    assert decode(buffer.getvalue()) == (sample.name, sample.record())


def test_only_records_of_a_union_come_as_tuples() -> None:
    (sample,) = [each for each in VALID if by_file(each) == "EventBatch-exploit"]
    batch = decode_as("EventBatch", encode("EventBatch", sample.record()))
    assert {name for name, _ in batch["events"]} >= {"nsp.SocketConnect", "nsp.DnsAnswer", "nsp.ProcessExec"}
    assert isinstance(batch["clock"], dict)
    assert isinstance(batch["processes"][0], dict)
    assert batch["workloads"][1]["pod_uid"] == "0b9c1c52-7a0e-4c57-8a59-3d0c5be8f1aa"
    assert batch["workloads"][0]["pod_uid"] is None
    answer = next(event for name, event in batch["events"] if name == "nsp.DnsAnswer")
    assert answer["records"][1] == {"type": 1, "ttl_s": 30, "data": "203.0.113.9"}


def test_the_event_kinds_keep_their_order() -> None:
    (sample,) = [each for each in VALID if by_file(each) == "EventBatch-exploit"]
    record = sample.record()
    positions = [event["position"] for _, event in decode(encode("EventBatch", record))[1]["events"]]
    assert positions == sorted(positions)
    assert len(positions) == len(record["events"])


@pytest.mark.parametrize("name", NAMES)
def test_the_header_is_the_marker_and_the_fingerprint_the_avro_package_computes(name: str) -> None:
    sample = next(each for each in VALID if each.name == name)
    expected = avro.schema.parse(catalogue.schema(name).text).fingerprint("CRC-64-AVRO")
    assert encode(name, sample.record())[:HEADER_BYTES] == b"\xc3\x01" + expected


def test_the_fingerprint_is_the_one_of_the_specification(tmp_path: Path) -> None:
    path = tmp_path / "x.avsc"
    path.write_text(json.dumps({"type": "record", "name": "X", "fields": []}))
    loaded = catalogue.load_schema(path, "current")
    # CRC-64-AVRO of the canonical form, computed bit by bit as the specification's pseudo-code has it.
    value = empty = 0xC15D213AA4D7A795
    for byte in b'{"name":"X","type":"record","fields":[]}':
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (empty if value & 1 else 0)
    assert loaded.fingerprint == value.to_bytes(8, "little")


def test_another_record_than_asked_for_is_refused() -> None:
    pod = next(each for each in VALID if each.name == "Pod")
    with pytest.raises(CodecError, match="expected Alert, the message is Pod"):
        decode_as("Alert", encode("Pod", pod.record()))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"uid": None}, "does not fit Pod"),
        ({"uid": 5}, "does not fit Pod"),
        ({"ips": 7}, "does not fit Pod"),
        ({"labels": {"a": 1}}, "does not fit Pod"),
        ({"name": "\ud800"}, "does not fit Pod"),
        ({"name": "x" * (MAX_MESSAGE_BYTES + 1)}, "larger than"),
    ],
)
def test_what_cannot_be_written_raises(change: dict[str, Any], complaint: str) -> None:
    pod = next(each for each in VALID if each.name == "Pod")
    with pytest.raises(CodecError, match=complaint):
        encode("Pod", {**pod.record(), **change})


def test_a_name_outside_the_contract_is_refused() -> None:
    with pytest.raises(CodecError, match="no schema is named 'Podd'"):
        encode("Podd", {})


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not Avro single-object"),
        (b"\xc3\x01\x00", "not Avro single-object"),
        (b"\x00\x00\x00\x00\x01" + bytes(20), "not Avro single-object"),
        (MARKER + bytes(8) + b"x", "never released"),
        (current()["EventBatch"].fingerprint.join([MARKER, bytes(MAX_MESSAGE_BYTES)]), "larger than"),
        (current()["ProfileOrder"].fingerprint.join([MARKER, bytes(MAX_PROFILE_BYTES)]), "larger than"),
    ],
)
def test_what_is_no_message_of_ours_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(CodecError, match=complaint):
        decode(data)


@pytest.mark.parametrize("sample", VALID, ids=by_file)
def test_a_message_cut_anywhere_or_with_bytes_left_over_is_refused(sample: Sample) -> None:
    data = encode(sample.name, sample.record())
    for end in range(len(data)):
        with pytest.raises(CodecError):
            decode(data[:end])
    with pytest.raises(CodecError, match="1 bytes are left over"):
        decode(data + b"\0")


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(NAMES), body=st.binary(max_size=400))
def test_any_body_gives_a_record_or_a_codec_error(name: str, body: bytes) -> None:
    try:
        read_name, record = decode(MARKER + catalogue.schema(name).fingerprint + body)
    except CodecError:
        return
    assert read_name == name
    assert isinstance(record, dict)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_message_gives_a_record_or_a_codec_error(data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from(VALID))
    message = bytearray(encode(sample.name, sample.record()))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    with suppress(CodecError):
        decode(bytes(message))


def test_an_error_says_little_of_what_a_hostile_message_holds() -> None:
    pod = next(each for each in VALID if each.name == "Pod").record()
    with pytest.raises(CodecError) as caught:
        encode("Pod", {**pod, "labels": ["x" * 10_000]})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("count", [1 << 20, 1 << 40, (1 << 62) - 1, -(1 << 40), -(1 << 62)])
def test_a_count_that_lies_runs_out_of_bytes_not_of_memory(count: int) -> None:
    zigzag = (count << 1) ^ (count >> 63)
    lie = bytearray()
    while zigzag > 0x7F:
        lie.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    lie.append(zigzag)
    header = MARKER + catalogue.schema("Pod").fingerprint
    for body in (bytes(lie), b"\0\0\0" + bytes(lie), b"\0\0\0" + bytes(lie) + bytes(64)):
        with pytest.raises(CodecError):
            decode(header + body)


def smallest(schema: Any, names: dict[str, Any]) -> int:
    """The fewest bytes a value of a schema takes."""
    if isinstance(schema, list):
        return 1 + min(smallest(branch, names) for branch in schema)
    if isinstance(schema, str):
        return smallest(names[schema], names) if schema in names else int(schema != "null")
    if schema["type"] == "record":
        names[schema["name"]] = schema
        return sum(smallest(field["type"], names) for field in schema["fields"])
    return schema["size"] if schema["type"] == "fixed" else 1


def items_in(schema: Any) -> list[Any]:
    if isinstance(schema, list):
        return [item for branch in schema for item in items_in(branch)]
    if not isinstance(schema, dict):
        return []
    inner = [item for field in schema.get("fields", []) for item in items_in(field["type"])]
    own = [schema[key] for key in ("items", "values") if key in schema]
    return inner + own + [item for each in own for item in items_in(each)]


@pytest.mark.parametrize("name", NAMES)
def test_no_item_of_an_array_or_map_encodes_to_nothing(name: str) -> None:
    for item in items_in(json.loads(catalogue.schema(name).text)):
        assert smallest(item, {}) > 0, item
