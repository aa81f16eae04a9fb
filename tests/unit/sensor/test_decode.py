# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import decode_as, encode
from sensor.publish import layout
from sensor.publish.batch import MAX_WEIGHT, BatchBuilder
from sensor.publish.decode import Decoder, look_ahead
from sensor.publish.images import executable_path
from sensor.publish.ledger import Ledger
from sensor.publish.lineage import ProcessTable
from sensor.publish.losses import Losses
from sensor.workload.table import WorkloadTable
from tests.support.ring_records import (
    FakeWorkloadMap,
    NoFiles,
    dns_message,
    exec_record,
    numbered,
    record,
    wire_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

WEB: dict[str, Any] = {"tgid": 10, "start_ns": 1000, "cgroup_id": 5, "ktime_ns": 77}
FLOW: dict[str, Any] = {"remote_address": "192.0.2.9", "remote_port": 443, "protocol": 6, "cookie": 3}
RING_BASE = 1 << 40


class Bench:
    """A decoder with everything around it."""

    def __init__(self) -> None:
        self.losses = Losses()
        self.workloads = WorkloadTable("n", FakeWorkloadMap())
        self.workloads.created(1, "/")
        self.workloads.created(5, "/system.slice/web.service")
        self.processes = ProcessTable(NoFiles())
        self.batch = BatchBuilder(self.processes, self.workloads)
        self.ledger = Ledger(4, fresh=True)
        self.decoder = Decoder(self.batch, self.ledger, self.losses)

    def feed(self, *records: bytes, limit: int = 1000) -> dict[str, Any]:
        """Decode all, and what a reader gets of it."""
        self.decoder.feed(b"".join(records), 0, RING_BASE, limit)
        return self.close()

    def close(self) -> dict[str, Any]:
        header = {
            "node": "n", "boot_id": "b", "sensor_version": "v", "sequence": 1, "ring_start": 0, "ring_end": 1,
            "clock": {"boot_ns": 1, "wall_ns": 1}, "cpus": self.ledger.take(), "losses": [],
        }  # fmt: skip
        return decode_as("EventBatch", encode("EventBatch", self.batch.close(header)))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def only(batch: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    ((name, event),) = batch["events"]
    return name, event


def lineage(batch: dict[str, Any], index: int) -> list[str]:
    out = []
    while index:
        entry = batch["processes"][index]
        out.append(f"{entry['tgid']}:{entry['executable']}")
        index = entry["parent"]
    return out


def test_an_allowed_connect_names_its_process_and_destination(bench: Bench) -> None:
    name, event = only(bench.feed(record(layout.CONNECT, **WEB, **FLOW)))
    assert name == "nsp.SocketConnect"
    assert event["position"] == RING_BASE
    assert (event["ktime_ns"], event["remote_address"], event["remote_port"]) == (77, "192.0.2.9", 443)


def test_a_datagram_over_ipv6(bench: Bench) -> None:
    flow = {**FLOW, "remote_address": "2001:db8::7", "protocol": 17}
    name, event = only(bench.feed(record(layout.SENDMSG, **WEB, **flow)))
    assert (name, event["remote_address"], event["protocol"]) == ("nsp.DatagramSend", "2001:db8::7", 17)


@pytest.mark.parametrize(
    ("kind", "hook", "shown"),
    [
        (layout.CONNECT, 0, "CONNECT"),
        (layout.SENDMSG, 0, "SENDMSG"),
        (layout.BIND, 0, "BIND"),
        (layout.PACKET_REFUSED, layout.CONNECT, "PACKET_OUT"),
        (layout.PACKET_REFUSED, layout.ACCEPT, "PACKET_IN"),
    ],
)
def test_each_refusal_says_where_and_why(bench: Bench, kind: int, hook: int, shown: str) -> None:
    refused = record(kind, **WEB, **FLOW, verdict=1, reason=3, generation=12, hook=hook)
    name, event = only(bench.feed(refused))
    assert name == "nsp.Refusal"
    assert (event["hook"], event["reason"], event["generation"]) == (shown, "BLOCKED_DESTINATION", 12)


def test_a_claim_on_the_wire_names_its_interface_and_both_macs(bench: Bench) -> None:
    liar, known = bytes.fromhex("020000000066"), bytes.fromhex("020000000001")
    claim = record(
        layout.ARP, ktime_ns=77, workload_cgroup_id=5, generation=12, known_age_ns=9, ifindex=2,
        netns=4026532511, operation=2, sender_address="10.1.2.1", target_address="10.1.2.3", sender_mac=liar,
        source_mac=liar, known_mac=known, finding=3, verdict=2, reason=14, direction=1,
    )  # fmt: skip
    batch = bench.feed(claim)
    name, event = only(batch)
    assert (name, event["finding"], event["reason"]) == ("nsp.ArpSpoofing", "GATEWAY", "ARP_SPOOFING")
    assert (event["sender_mac"], event["known_mac"]) == ("02:00:00:00:00:66", "02:00:00:00:00:01")
    assert (event["sender_address"], event["outgoing"], event["alerted_only"]) == ("10.1.2.1", False, True)
    assert batch["workloads"][event["workload"]]["cgroup_path"] == "/system.slice/web.service"
    assert event["process"] == 0


def test_a_request_and_a_hello_are_told_as_they_were_said(bench: Bench) -> None:
    said = {**WEB, **FLOW, "verdict": 1, "generation": 12, "direction": 1}
    request = record(
        layout.HTTP_REQUEST, **said, reason=10, uri_bytes=300, host_bytes=11, seen=4, method=b"GET",
        uri=b"/a\xff/.." + b"x" * 400, host=b"example.comleftover",
    )  # fmt: skip
    hello = record(layout.TLS_HELLO, **WEB, **FLOW, name_bytes=3, seen=16, name=b"a.bcd")
    (first, told), (second, greeted) = bench.feed(request, hello)["events"]
    assert (first, second) == ("nsp.HttpRequest", "nsp.TlsHello")
    assert (told["verdict"], told["reason"], told["generation"]) == ("REFUSED", "HTTP_REQUEST", 12)
    assert (told["method"], told["host"], told["notes"]) == ("GET", "example.com", ["DOT_SEGMENT"])
    assert told["uri"] == "/a\\xff/.." + "x" * 230
    assert (told["uri_bytes"], told["inbound"]) == (300, True)
    assert (greeted["verdict"], greeted["reason"], greeted["server_name"]) == ("ALLOWED", None, "a.b")
    assert greeted["notes"] == ["ENCRYPTED_HELLO"]


def test_a_close_tells_direction_and_whether_it_ever_came_up(bench: Bench) -> None:
    bytes_ = {"bytes_sent": 10, "bytes_received": 20, "duration_ns": 30}
    never = record(layout.CLOSE, **WEB, **FLOW, tcp_state=2)
    inbound = record(layout.CLOSE, **WEB, **FLOW, tcp_state=1, direction=1, **bytes_)
    first, second = (event for _, event in bench.feed(never, inbound)["events"])
    assert (first["inbound"], first["established"]) == (False, False)
    assert (second["inbound"], second["established"]) == (True, True)
    assert {name: second[name] for name in bytes_} == bytes_


def test_who_listens_or_accepts_serves(bench: Bench) -> None:
    for kind, name in ((layout.LISTEN, "nsp.SocketListen"), (layout.ACCEPT, "nsp.SocketAccept")):
        process = {**WEB, "tgid": kind}
        batch = bench.feed(record(layout.FORK, **process), record(kind, **process, **FLOW, local_port=80))
        assert batch["events"][1][0] == name
        assert batch["processes"][batch["events"][1][1]["process"]]["serving"]


def test_a_socket_that_listened_before_the_sensor_says_who_serves(bench: Bench) -> None:
    batch = bench.feed(record(layout.SOCKET_INVENTORY, **WEB, **FLOW, tcp_state=10))
    name, event = only(batch)
    assert (name, event["tcp_state"]) == ("nsp.SocketInventory", 10)
    assert batch["processes"][event["process"]]["serving"]


def test_a_batch_stands_alone_with_every_image_on_the_way(bench: Bench) -> None:
    shell = {**WEB, "tgid": 11, "start_ns": 2000}
    bench.feed(
        exec_record("/usr/bin/web", ["web"], kind=layout.PROCESS_INVENTORY, **WEB),
        record(layout.FORK, **shell, parent_tgid=10, parent_start_ns=1000, uid=33, comm=b"web"),
    )
    batch = bench.feed(
        record(layout.CONNECT, **shell, **FLOW),
        exec_record(
            "/bin/sh", ["sh", "-c", "id"], **{**shell, "ktime_ns": 99}, parent_tgid=10, parent_start_ns=1000
        ),
        record(layout.CONNECT, **shell, **FLOW),
    )
    before, executed, after = (event for _, event in batch["events"])
    assert lineage(batch, before["process"]) == ["11:/usr/bin/web", "10:/usr/bin/web"]
    assert lineage(batch, after["process"]) == ["11:/bin/sh", "11:/usr/bin/web", "10:/usr/bin/web"]
    image = batch["processes"][executed["process"]]
    assert (image["argv"], image["image_ns"], image["origin"]) == (["sh", "-c", "id"], 99, "EXEC")
    assert batch["workloads"][image["workload"]]["id"] == "host/n/web.service"


def test_standard_streams_on_a_socket_are_told_with_their_peer(bench: Bench) -> None:
    batch = bench.feed(
        exec_record(
            "/bin/sh",
            ["sh"],
            **WEB,
            stdio_kind=bytes([4, 4, 1]),
            stdio_address="198.51.100.7",
            stdio_port=4444,
        )
    )
    image = batch["processes"][only(batch)[1]["process"]]
    assert (image["stdio"], image["stdio_peer"]) == (["INET", "INET", "FILE"], "198.51.100.7:4444")


def test_a_truncated_argv_and_a_deleted_program_say_so(bench: Bench) -> None:
    batch = bench.feed(exec_record("/tmp/x", ["x"], **WEB, nlink=0, argv_total_bytes=5000))
    image = batch["processes"][only(batch)[1]["process"]]
    assert (image["deleted"], image["argv_truncated"]) == (True, True)


def test_a_path_without_its_root_end_never_looks_absolute() -> None:
    assert executable_path(b"sh\0bin\0", 0) == "/bin/sh"
    assert executable_path(b"sh\0bin\0", layout.PATH_TRUNCATED) == "bin/sh"
    assert executable_path(b"memfd:x\0", layout.PATH_DETACHED) == "memfd:x"
    assert executable_path(b"", 0) == ""


def test_an_exit_tells_status_or_signal(bench: Bench) -> None:
    batch = bench.feed(record(layout.EXIT, **WEB, exit_code=3 << 8), record(layout.EXIT, **WEB, exit_code=9))
    assert [(e["exit_status"], e["signal"]) for _, e in batch["events"]] == [(3, 0), (0, 9)]


def test_cgroups_come_and_go_and_processes_move(bench: Bench) -> None:
    path = b"/system.slice/new.service"
    subject = {"cgroup_id": 50, "path_bytes": len(path)}
    batch = bench.feed(
        record(layout.FORK, **WEB),
        record(layout.CGROUP_MKDIR, path, **subject),
        record(layout.CGROUP_ATTACH, path, **{**WEB, **subject}),
        record(layout.CGROUP_RMDIR, path, **subject),
    )
    changes = [event for name, event in batch["events"] if name == "nsp.CgroupChange"]
    assert [event["change"] for event in changes] == ["CREATED", "JOINED", "REMOVED"]
    assert {batch["workloads"][event["workload"]]["id"] for event in changes} == {"host/n/new.service"}
    moved = batch["processes"][changes[1]["process"]]
    assert batch["workloads"][moved["workload"]]["unit"] == "new.service"


def test_a_dns_question_and_its_answer(bench: Bench) -> None:
    question = dns_message(wire_name("Shop.Example"))
    address = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton("192.0.2.1")
    target = b"\xc0\x0c" + struct.pack(">HHIH", 5, 1, 30, 7) + b"\x04edge\xc0\x0c"
    answer = dns_message(wire_name("shop.example"), answers=target + address, count=2)
    first = len(question) + 12
    records = struct.pack("<IHHHH", 30, 5, first, 7, 0) + struct.pack("<IHHHH", 60, 1, first + 7 + 12, 4, 0)
    common = {**WEB, "remote_address": "192.0.2.53", "protocol": 17, "dns_id": 7, "question_type": 1}
    batch = bench.feed(
        record(
            layout.DNS_QUESTION, question, **common, message_bytes=len(question), name_bytes=14,
            verdict=1, reason=8, generation=41,
        ),
        record(
            layout.DNS_ANSWER, answer + bytes(-len(answer) % 4) + records, **common,
            message_bytes=len(answer), name_bytes=14, record_count=2, answer_count=2, dns_flags=0x8183,
        ),
    )  # fmt: skip
    (asked_name, asked), (answered_name, answered) = batch["events"]
    assert (asked_name, asked["name"], asked["server_address"]) == (
        "nsp.DnsQuestion",
        "shop.example",
        "192.0.2.53",
    )
    assert (asked["verdict"], asked["reason"], asked["generation"]) == ("REFUSED", "DNS_NAME", 41)
    assert answered_name == "nsp.DnsAnswer"
    assert (answered["rcode"], answered["truncated"], answered["incomplete"]) == (3, False, False)
    assert answered["records"] == [
        {"type": 5, "ttl_s": 30, "data": "edge.shop.example"},
        {"type": 1, "ttl_s": 60, "data": "192.0.2.1"},
    ]


@given(
    message=st.binary(max_size=300),
    records=st.binary(max_size=384),
    count=st.integers(0, 255),
    claimed=st.integers(0, 65535),
    name_bytes=st.integers(0, 65535),
)
def test_any_dns_answer_is_an_event(
    message: bytes, records: bytes, count: int, claimed: int, name_bytes: int
) -> None:
    bench = Bench()
    hostile = record(
        layout.DNS_ANSWER, message + bytes(-len(message) % 4) + records.ljust(384, b"\0"), **WEB,
        message_bytes=len(message), record_count=count, answer_count=claimed, name_bytes=name_bytes,
    )  # fmt: skip
    assert only(bench.feed(hostile))[0] == "nsp.DnsAnswer"
    assert bench.losses == Losses()


@given(argv=st.binary(max_size=200), path=st.binary(max_size=100), comm=st.binary(max_size=16))
def test_any_exec_is_an_event(argv: bytes, path: bytes, comm: bytes) -> None:
    bench = Bench()
    hostile = record(
        layout.EXEC, path + argv, **WEB, path_bytes=len(path), argv_bytes=len(argv), comm=comm, inode=1 << 63
    )
    assert only(bench.feed(hostile))[0] == "nsp.ProcessExec"


def test_what_cannot_be_read_is_counted_and_shows_in_the_account(bench: Bench) -> None:
    short = bytearray(record(layout.FORK, **WEB))[:72]  # ends before the fork's own fields
    struct.pack_into("<I", short, 0, 64)
    good = record(layout.CONNECT, **WEB, **FLOW)
    data = numbered(good, record(99, **WEB), record(400, **WEB), good, bytes(short))
    batch = bench.feed(data)
    assert len(batch["events"]) == 2
    assert (bench.losses.decode__unknown_type, bench.losses.decode__malformed) == (2, 1)
    assert batch["cpus"] == [{"cpu": 0, "first_seq": 1, "last_seq": 5, "events": 2}]


def test_a_discarded_record_is_stepped_over(bench: Bench) -> None:
    given_up = record(layout.CONNECT, ring_flags=layout.RING_DISCARDED, **WEB, **FLOW)
    batch = bench.feed(given_up, record(layout.CONNECT, **WEB, **FLOW))
    assert only(batch)[1]["position"] == RING_BASE + len(given_up)
    assert sum(cpu["events"] for cpu in batch["cpus"]) == 1


def test_a_full_batch_stops_the_feed_where_it_can_go_on(bench: Bench) -> None:
    one = record(layout.CONNECT, **WEB, **FLOW)
    data = numbered(*[one] * 5)
    offset = bench.decoder.feed(data, 0, 0, 3)
    assert offset == 3 * len(one)
    first = bench.close()
    assert bench.decoder.feed(data, offset, 0, 3) == len(data)
    second = bench.close()
    assert [len(batch["events"]) for batch in (first, second)] == [3, 2]
    assert second["cpus"] == [{"cpu": 0, "first_seq": 4, "last_seq": 5, "events": 2}]


def test_long_arguments_close_a_batch_before_kafka_would_refuse_it(bench: Bench) -> None:
    records = [exec_record("/bin/x", ["a" * 1000], **{**WEB, "tgid": number}) for number in range(100, 1100)]
    data = b"".join(records)
    offset = bench.decoder.feed(data, 0, 0, 100_000)
    assert offset < len(data)
    assert len(encode("EventBatch", _with_header(bench))) < 2 * MAX_WEIGHT


def _with_header(bench: Bench) -> dict[str, Any]:
    return bench.batch.close({
        "node": "n", "boot_id": "b", "sensor_version": "v", "sequence": 1, "ring_start": 0, "ring_end": 1,
        "clock": {"boot_ns": 1, "wall_ns": 1}, "cpus": [], "losses": [],
    })  # fmt: skip


def urgency(bench: Bench, records: Iterable[bytes]) -> bool:
    bench.decoder.feed(b"".join(records), 0, 0, 1000)
    return bench.batch.urgent


class TestUrgency:
    """A batch does not wait when something a service started acts."""

    child: ClassVar = {**WEB, "tgid": 11, "start_ns": 2000}
    born = record(layout.FORK, **child, parent_tgid=10, parent_start_ns=1000)
    shell = exec_record("/bin/sh", ["sh"], **child, parent_tgid=10, parent_start_ns=1000)

    def serve(self, bench: Bench) -> None:
        bench.feed(
            exec_record("/usr/bin/web", ["web"], kind=layout.PROCESS_INVENTORY, **WEB),
            record(layout.LISTEN, **WEB, **FLOW),
        )

    def test_a_shell_below_a_service_is_urgent(self, bench: Bench) -> None:
        self.serve(bench)
        assert urgency(bench, [self.born, self.shell])

    def test_what_it_then_does_is_urgent_in_every_batch(self, bench: Bench) -> None:
        self.serve(bench)
        bench.feed(self.born, self.shell)
        assert urgency(bench, [record(layout.CONNECT, **self.child, **FLOW)])

    def test_a_worker_of_the_service_is_not(self, bench: Bench) -> None:
        self.serve(bench)
        assert not urgency(bench, [self.born, record(layout.CONNECT, **self.child, **FLOW)])

    def test_a_service_of_another_workload_above_is_not(self, bench: Bench) -> None:
        self.serve(bench)
        bench.workloads.created(6, "/system.slice/other.service")
        elsewhere = exec_record(
            "/bin/sh", ["sh"], **{**self.child, "cgroup_id": 6}, parent_tgid=10, parent_start_ns=1000
        )
        assert not urgency(bench, [self.born, elsewhere])

    def test_a_program_that_begins_on_a_socket_is(self, bench: Bench) -> None:
        on_socket = exec_record("/bin/sh", ["sh"], **self.child, stdio_kind=bytes([4, 4, 4]))
        assert urgency(bench, [on_socket])


def test_the_inventory_is_learnt_before_older_events_but_not_over_them() -> None:
    bench = Bench()
    child = {**WEB, "tgid": 11, "start_ns": 2000}
    chunks = [
        record(layout.FORK, **child, parent_tgid=10, parent_start_ns=1000),
        exec_record("/usr/bin/web", ["web"], kind=layout.PROCESS_INVENTORY, **WEB)
        + exec_record("/bin/late", ["late"], kind=layout.PROCESS_INVENTORY, **child)
        + record(layout.SOCKET_INVENTORY, **WEB, **FLOW, tcp_state=10),
    ]
    assert look_ahead(chunks, bench.processes, bench.batch.addresses) == 1
    batch = bench.feed(chunks[0])
    assert lineage(batch, only(batch)[1]["process"]) == ["11:/usr/bin/web", "10:/usr/bin/web"]
    assert batch["processes"][1]["serving"]


def test_the_account_of_an_adopted_ring_begins_at_the_lowest_number_read() -> None:
    ledger = Ledger(2, fresh=False)
    one = record(layout.CONNECT, **WEB, **FLOW)
    # An interrupt took number 101 and its place first.
    data = numbered(one, first=101) + numbered(one, first=100) + numbered(one, first=104)
    ledger.learn(data)
    ledger.last[0], ledger.events[0] = 104, 3
    assert ledger.take() == [{"cpu": 0, "first_seq": 101, "last_seq": 105, "events": 3}]
