# SPDX-License-Identifier: Apache-2.0
"""DNS events: questions that leave sockets, answers delivered to them.

Input: a ring record's bytes and offset; the kernel found the records, the text is read here (dns.py).
Output: events appended to the batch.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from sensor.policy.remembered import Answer
from sensor.publish import layout
from sensor.publish.dns import decode_name, record_text
from sensor.publish.layout import (
    DNS_EVENT,
    DNS_MALFORMED,
    DNS_MAX_RECORDS,
    DNS_MORE_RECORDS,
    DNS_TRUNCATED_COPY,
    RING_HEADER_BYTES,
    reader,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sensor.publish.batch import BatchBuilder

_DNS: Final = reader(
    DNS_EVENT, "ktime_ns", "start_ns", "cgroup_id", "tgid", "cookie", "remote_address", "dns_id", "dns_flags",
    "question_type", "name_bytes", "message_bytes", "answer_count", "protocol", "record_count", "parse_flags",
)  # fmt: skip
_JUDGED: Final = reader(DNS_EVENT, "generation", "verdict", "reason")
_RECORD: Final = struct.Struct("<IHHHH")
_TAIL: Final = RING_HEADER_BYTES + DNS_EVENT.size_bytes
_TABLE_ALIGNMENT: Final = 4
_QUESTION_OFFSET: Final = 12  # of the first question in a DNS message
_RCODE: Final = 0x000F
_ADDRESS_TYPES: Final = frozenset({1, 28})  # A and AAAA
_TRUNCATED: Final = 0x0200
# enum nsp_verdict and enum nsp_reason of bpf/events.h, as far as questions have them.
_VERDICTS: Final = {0: "ALLOWED", 1: "REFUSED", 2: "ALERTED"}
_REASONS: Final = {4: "UNKNOWN_WORKLOAD", 8: "DNS_NAME", 9: "L7_PROTOCOL", 12: "OPAQUE"}
_INCOMPLETE: Final = DNS_TRUNCATED_COPY | DNS_MALFORMED | DNS_MORE_RECORDS


class DnsEvents:
    """Handlers of the two DNS events.

    Args:
        batch: What they append to.
    """

    def __init__(self, batch: BatchBuilder) -> None:
        self._batch = batch
        self._addresses = batch.addresses
        self._remembered = batch.remembered
        self._cgroup_id = 0  # of the event at hand

    def handlers(self) -> dict[int, Callable[[bytes, int, int], None]]:
        """Event type to handler(ring bytes, offset of the record, position)."""
        return {layout.DNS_QUESTION: self.question, layout.DNS_ANSWER: self.answer}

    def question(self, data: bytes, offset: int, position: int) -> None:
        """DnsQuestion."""
        event, message, _ = self._common(data, offset, position)
        event["name"] = decode_name(message, _QUESTION_OFFSET)[0]
        generation, verdict, reason = _JUDGED.unpack_from(data, offset)
        event["verdict"] = _VERDICTS.get(verdict, "ALLOWED")
        event["reason"] = _REASONS.get(reason, "NONE")
        event["generation"] = generation
        if self._remembered is not None:
            self._remembered.asked(event["cookie"], event["transaction_id"], event["name"])
        self._batch.events.append(("nsp.DnsQuestion", event))

    def answer(self, data: bytes, offset: int, position: int) -> None:
        """DnsAnswer."""
        event, message, found = self._common(data, offset, position)
        dns_flags, answer_count, record_count, parse_flags = found
        event["name"], complete = decode_name(message, _QUESTION_OFFSET)
        records = []
        weight = 0
        at = offset + _TAIL + len(message) + -len(message) % _TABLE_ALIGNMENT
        for _ in range(min(record_count, DNS_MAX_RECORDS)):
            ttl_s, kind, data_offset, data_bytes, _ = _RECORD.unpack_from(data, at)
            at += _RECORD.size
            text, readable = record_text(kind, message, data_offset, data_bytes)
            complete = complete and readable
            weight += len(text) + 16
            records.append({"type": kind, "ttl_s": ttl_s, "data": text})
        event["rcode"] = dns_flags & _RCODE
        event["truncated"] = bool(dns_flags & _TRUNCATED)
        event["incomplete"] = bool(parse_flags & _INCOMPLETE) or not complete or record_count < answer_count
        event["records"] = records
        if self._remembered is not None and not event["rcode"]:
            addresses = tuple(each["data"] for each in records if each["type"] in _ADDRESS_TYPES)
            answer = Answer(self._cgroup_id, event["server_address"], event["name"], addresses)
            self._remembered.answered(event["cookie"], event["transaction_id"], answer)
        self._batch.weight += weight
        self._batch.events.append(("nsp.DnsAnswer", event))

    def _common(
        self, data: bytes, offset: int, position: int
    ) -> tuple[dict[str, Any], bytes, tuple[int, int, int, int]]:
        (
            ktime_ns, start_ns, self._cgroup_id, tgid, cookie, server, dns_id, dns_flags, question_type,
            name_bytes, message_bytes, answer_count, protocol, record_count, parse_flags,
        ) = _DNS.unpack_from(data, offset)  # fmt: skip
        batch = self._batch
        key = (tgid, start_ns)
        index = batch.index.get(key)
        if index is None:
            index = batch.process(key)
        if index in batch.downstream:
            batch.urgent = True
        batch.weight += 4 * name_bytes
        event = {
            "position": position,
            "ktime_ns": ktime_ns,
            "process": index,
            "cookie": cookie,
            "protocol": protocol,
            "server_address": self._addresses[server],
            "transaction_id": dns_id,
            "question_type": question_type,
        }
        start = offset + _TAIL
        message = data[start : start + message_bytes]
        return event, message, (dns_flags, answer_count, record_count, parse_flags)
