# SPDX-License-Identifier: Apache-2.0
"""The events of bpf/events.h as the decoder reads them: the one table.

Input: nothing. Output: a :class:`Layout` per C struct, and :func:`reader`, which makes of it a
``struct.Struct`` that reads only the wanted fields (each value costs about 15 ns) and starts at the ring
record's own header. A test compares every offset and size with the C compiler's.

Failure: a name that is not in the struct is a ``KeyError`` on import, never on the path.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

# A ring record: u32 length (bit 31 busy, bit 30 discarded), u32 page offset, the event, padding to 8.
RING_HEADER_BYTES: Final = 8
RING_DISCARDED: Final = 1 << 30

EXEC: Final = 1
FORK: Final = 2
EXIT: Final = 3
CONNECT: Final = 4
SENDMSG: Final = 5
BIND: Final = 6
LISTEN: Final = 7
ACCEPT: Final = 8
CLOSE: Final = 9
DNS_QUESTION: Final = 10
DNS_ANSWER: Final = 11
CGROUP_MKDIR: Final = 12
CGROUP_RMDIR: Final = 13
CGROUP_ATTACH: Final = 14
PACKET_REFUSED: Final = 15
PROCESS_INVENTORY: Final = 16
SOCKET_INVENTORY: Final = 17
HTTP_REQUEST: Final = 18
TLS_HELLO: Final = 19
ARP: Final = 20
RAW_SOCKET: Final = 21

PATH_TRUNCATED: Final = 1
PATH_DETACHED: Final = 2
DNS_TRUNCATED_COPY: Final = 1
DNS_MALFORMED: Final = 2
DNS_MORE_RECORDS: Final = 4
DNS_MAX_RECORDS: Final = 32
# enum nsp_stdio_kind and the schema's StdioKind, in the same order.
STDIO_KINDS: Final = ("CLOSED", "FILE", "TERMINAL", "PIPE", "INET", "SOCKET", "OTHER")
STDIO_INET: Final = 4
# enum nsp_reason - 1 and the schema's RefusalReason, in the same order.
REASONS: Final = (
    "QUARANTINED_PROCESS", "QUARANTINED_WORKLOAD", "BLOCKED_DESTINATION", "UNKNOWN_WORKLOAD", "L3_PROTOCOL",
    "L4_PROTOCOL", "ADDRESS", "DNS_NAME", "L7_PROTOCOL", "HTTP_REQUEST", "TLS_SNI", "OPAQUE", "RAW_SOCKET",
    "ARP_SPOOFING",
)  # fmt: skip
# enum nsp_verdict and the schema's PayloadVerdict, in the same order.
VERDICTS: Final = ("ALLOWED", "REFUSED", "ALERTED")
ALERTED: Final = 2
# NSP_L7_SEEN_* from bit 0 on and the schema's PayloadNote, in the same order.
PAYLOAD_NOTES: Final = (
    "NO_HOST", "HOST_IS_PEER", "DOT_SEGMENT", "MALFORMED", "ENCRYPTED_HELLO", "UPGRADE", "TOO_LONG",
)  # fmt: skip
# enum nsp_claim_finding - 1 and the schema's ClaimFinding, in the same order.
CLAIM_FINDINGS: Final = (
    "CONTRADICTION", "OWN_ADDRESS", "GATEWAY", "SENDER_MISMATCH", "UNSOLICITED", "FOREIGN_ADDRESS",
    "PROTOCOL", "MALFORMED",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layout:
    """One C struct.

    Attributes:
        c_name: ``struct`` tag in bpf/events.h.
        fields: Name and struct code in order, without padding at the end.
        offsets: Name to byte offset in the struct.
        size_bytes: ``sizeof``; where the tail begins.
    """

    c_name: str
    fields: tuple[tuple[str, str], ...]
    offsets: dict[str, int]
    size_bytes: int


def _layout(c_name: str, *fields: tuple[str, str]) -> Layout:
    offsets = {}
    end = 0
    for name, code in fields:
        offsets[name] = end
        end += struct.calcsize(f"<{code}")
    return Layout(c_name, fields, offsets, end)


_HEADER: Final = (
    ("ktime_ns", "Q"), ("start_ns", "Q"), ("cgroup_id", "Q"), ("seq", "Q"), ("tgid", "I"), ("tid", "I"),
    ("type", "H"), ("size", "H"), ("cpu", "H"), ("flags", "H"),
)  # fmt: skip
_FLOW: Final = (
    *_HEADER,
    ("cookie", "Q"), ("generation", "Q"), ("local_address", "16s"), ("remote_address", "16s"),
    ("local_port", "H"), ("remote_port", "H"), ("family", "B"), ("protocol", "B"), ("verdict", "B"),
    ("reason", "B"), ("direction", "B"), ("tcp_state", "B"), ("hook", "B"), ("pad", "5s"),
)  # fmt: skip
_DNS: Final = (
    *_HEADER,
    ("cookie", "Q"), ("generation", "Q"), ("local_address", "16s"), ("remote_address", "16s"),
    ("local_port", "H"), ("remote_port", "H"), ("dns_id", "H"), ("dns_flags", "H"), ("question_type", "H"),
    ("name_bytes", "H"), ("message_bytes", "H"), ("answer_count", "H"), ("family", "B"), ("protocol", "B"),
    ("record_count", "B"), ("parse_flags", "B"), ("verdict", "B"), ("reason", "B"), ("pad", "2s"),
)  # fmt: skip

HEADER: Final = _layout("nsp_event_header", *_HEADER)
EXEC_EVENT: Final = _layout(
    "nsp_exec_event",
    *_HEADER,
    ("parent_start_ns", "Q"), ("inode", "Q"), ("parent_tgid", "I"), ("dev", "I"), ("nlink", "I"),
    ("uid", "I"), ("gid", "I"), ("mnt_ns", "I"), ("pid_ns", "I"), ("net_ns", "I"), ("argv_total_bytes", "I"),
    ("mode", "H"), ("path_bytes", "H"), ("argv_bytes", "H"), ("stdio_port", "H"), ("stdio_kind", "3s"),
    ("path_flags", "B"), ("stdio_address", "16s"), ("comm", "16s"),
)  # fmt: skip
FORK_EVENT: Final = _layout(
    "nsp_fork_event",
    *_HEADER,
    ("parent_start_ns", "Q"), ("parent_tgid", "I"), ("uid", "I"), ("comm", "16s"),
)  # fmt: skip
EXIT_EVENT: Final = _layout("nsp_exit_event", *_HEADER, ("exit_code", "I"), ("pad", "4s"))
FLOW_EVENT: Final = _layout("nsp_flow_event", *_FLOW)
CLOSE_EVENT: Final = _layout(
    "nsp_close_event", *_FLOW, ("bytes_sent", "Q"), ("bytes_received", "Q"), ("duration_ns", "Q")
)
DNS_EVENT: Final = _layout("nsp_dns_event", *_DNS)
DNS_RECORD: Final = _layout(
    "nsp_dns_record",
    ("ttl_s", "I"), ("type", "H"), ("data_offset", "H"), ("data_bytes", "H"), ("owner_offset", "H"),
)  # fmt: skip
HTTP_EVENT: Final = _layout(
    "nsp_http_event",
    *_FLOW,
    ("uri_bytes", "H"), ("host_bytes", "H"), ("seen", "B"), ("seen_pad", "3s"), ("method", "16s"),
    ("uri", "236s"), ("host", "252s"),
)  # fmt: skip
TLS_EVENT: Final = _layout(
    "nsp_tls_event", *_FLOW, ("name_bytes", "H"), ("seen", "B"), ("seen_pad", "1s"), ("name", "252s")
)
ARP_EVENT: Final = _layout(
    "nsp_arp_event",
    *_HEADER,
    ("workload_cgroup_id", "Q"), ("generation", "Q"), ("known_age_ns", "Q"), ("ifindex", "I"),
    ("netns", "I"), ("policy_slot", "I"), ("operation", "H"), ("vlan", "H"), ("sender_address", "16s"),
    ("target_address", "16s"), ("sender_mac", "6s"), ("target_mac", "6s"), ("source_mac", "6s"),
    ("known_mac", "6s"), ("protocol", "B"), ("finding", "B"), ("verdict", "B"), ("reason", "B"),
    ("direction", "B"), ("pad", "3s"),
)  # fmt: skip
CGROUP_EVENT: Final = _layout(
    "nsp_cgroup_event",
    *_HEADER,
    ("parent_cgroup_id", "Q"), ("hierarchy_id", "I"), ("level", "I"), ("path_bytes", "H"), ("pad", "6s"),
)  # fmt: skip

LAYOUTS: Final = (
    HEADER, EXEC_EVENT, FORK_EVENT, EXIT_EVENT, FLOW_EVENT, CLOSE_EVENT, DNS_EVENT, DNS_RECORD,
    HTTP_EVENT, TLS_EVENT, ARP_EVENT, CGROUP_EVENT,
)  # fmt: skip


def reader(layout: Layout, *wanted: str) -> struct.Struct:
    """A reader of some fields of an event, to be used at the offset of its ring record.

    Args:
        layout: The event's struct.
        wanted: Field names in the order of the struct; the values come in that order.

    Raises:
        KeyError: No such field, or not in the struct's order.
    """
    code = f"<{RING_HEADER_BYTES}x"
    position = 0
    codes = dict(layout.fields)
    for name in wanted:
        gap = layout.offsets[name] - position
        if gap < 0:
            raise KeyError(f"{name} comes before the field in front of it")
        code += f"{gap}x{codes[name]}" if gap else codes[name]
        position = layout.offsets[name] + struct.calcsize(f"<{codes[name]}")
    return struct.Struct(code)


# What the drain loop itself needs: the ring's length word, then seq, type and cpu.
RECORD: Final = struct.Struct("<I4x24xQ8xH2xH")
