# SPDX-License-Identifier: Apache-2.0
"""Records to Kafka values and back: Avro single-object encoding.

A value is ``C3 01``, the CRC-64-AVRO fingerprint of the writer's schema (8 bytes, little endian) and
the body. The fingerprint finds the writer's schema among the current and all released ones, so an old
message is resolved into today's record.

Records are plain dicts; a record inside a union (``EventBatch.events``) is a tuple of its full name and
its dict, ``("nsp.SocketConnect", {...})``, written and read back the same way. Optional fields stay plain.

Encoding does not validate (that costs more than the encoding); what cannot be written raises, an unknown
field is left out. Failure is :class:`schemas.errors.CodecError`, always permanent. Hostile bytes cannot
cost more than memory in proportion to their length: no item of an array or map in the contract encodes
to zero bytes (a test holds that), so a length prefix that lies runs out of bytes.
"""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from fastavro import schemaless_reader, schemaless_writer
from fastavro.read import SchemaResolutionError

from schemas.catalogue import FINGERPRINT_BYTES, Schema, by_fingerprint, schema
from schemas.errors import CodecError, SchemaError

if TYPE_CHECKING:
    from collections.abc import Mapping

MARKER: Final = b"\xc3\x01"
HEADER_BYTES: Final = len(MARKER) + FINGERPRINT_BYTES

# The largest value on any topic (topics.py gives it to broker and producers). A decoded event takes up to
# 60 times its smallest encoding, so this also bounds what one hostile message costs: about 120 MB.
MAX_MESSAGE_BYTES: Final = 2 * 1024 * 1024

# Profiles may have 100,000 names, three to six megabytes of text, and nothing of them multiplies in memory:
# a text is a text. What carries one is as large.
MAX_PROFILE_BYTES: Final = 8 * 1024 * 1024
# An order is the profile, the pods it selects on the node (some hundred, of 37 bytes) and a signature; it has
# to fit where the profile did.
MAX_PUBLISHED_PROFILE_BYTES: Final = MAX_PROFILE_BYTES - 256 * 1024
_LARGE: Final = frozenset({"SecurityProfile", "ProfileOrder", "SignedEnforcement"})


def max_bytes(name: str) -> int:
    """The largest value of a record."""
    return MAX_PROFILE_BYTES if name in _LARGE else MAX_MESSAGE_BYTES


# What the C and Python parts of fastavro raise, besides their own errors, when bytes or values are wrong.
_WRONG_BYTES: Final = (
    EOFError, IndexError, KeyError, OverflowError, TypeError, ValueError, SchemaResolutionError, MemoryError,
)  # fmt: skip
_WRONG_VALUES: Final = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)


@cache
def _writer(name: str) -> tuple[bytes, Any]:
    try:
        found = schema(name)
    except SchemaError as error:
        raise CodecError(str(error)) from error
    return MARKER + found.fingerprint, found.parsed


def encode(name: str, record: Mapping[str, Any]) -> bytes:
    """Write one record with its current schema.

    Args:
        name: Record name, e.g. ``EventBatch``.
        record: Its fields.

    Raises:
        CodecError: The record does not fit, the name is unknown, or the value is larger than a topic takes.
    """
    header, parsed = _writer(name)
    # A new buffer each time: getvalue() of a buffer never reused hands its bytes over without a copy,
    # and threads need no lock.
    buffer = io.BytesIO()
    buffer.write(header)
    try:
        schemaless_writer(buffer, parsed, record)
    except _WRONG_VALUES as error:
        raise CodecError(f"a record does not fit {name}: {_brief(error)}") from error
    data = buffer.getvalue()
    if len(data) > max_bytes(name):
        raise CodecError(f"a {name} of {len(data)} bytes is larger than {max_bytes(name)}")
    return data


def decode(data: bytes) -> tuple[str, dict[str, Any]]:
    """Read one value, whatever record it holds.

    Returns:
        The record name and the record as today's schema has it.

    Raises:
        CodecError: Not a value of ours, of a schema never released, cut short, or with bytes left over.
    """
    writer = _writer_of(data)
    return writer.name, _read(data, writer)


def decode_as(name: str, data: bytes) -> dict[str, Any]:
    """Read one value that must hold the named record.

    Raises:
        CodecError: As :func:`decode`, or another record than asked for.
    """
    writer = _writer_of(data)
    if writer.name != name:
        raise CodecError(f"expected {name}, the message is {writer.name}")
    return _read(data, writer)


def _writer_of(data: bytes) -> Schema:
    if len(data) < HEADER_BYTES or data[:2] != MARKER:
        raise CodecError("not Avro single-object encoding: it does not begin with C3 01 and a fingerprint")
    fingerprint = data[2:HEADER_BYTES]
    writer = by_fingerprint().get(fingerprint)
    if writer is None:
        raise CodecError(f"written with a schema that was never released: fingerprint {fingerprint.hex()}")
    limit = max_bytes(writer.name)
    if len(data) > limit:
        raise CodecError(f"a message of {len(data)} bytes is larger than {limit}")
    return writer


def _read(data: bytes, writer: Schema) -> dict[str, Any]:
    reader = None if writer.origin == "current" else schema(writer.name).parsed
    buffer = io.BytesIO(data)
    buffer.seek(HEADER_BYTES)
    try:
        record: Any = schemaless_reader(
            buffer, writer.parsed, reader, return_record_name=True, return_record_name_override=True
        )
    except _WRONG_BYTES as error:
        raise CodecError(f"a damaged {writer.name} of {len(data)} bytes: {_brief(error)}") from error
    if buffer.tell() != len(data):
        raise CodecError(f"{len(data) - buffer.tell()} bytes are left over after a {writer.name}")
    fields: dict[str, Any] = record
    return fields


def _brief(error: BaseException) -> str:
    # fastavro puts whole schemas and hostile values into its messages.
    limit = 200
    text = str(error) or type(error).__name__
    return text if len(text) <= limit else text[:limit] + "..."
