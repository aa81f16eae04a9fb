# SPDX-License-Identifier: Apache-2.0
"""Event batches made by hand, and a synthetic load with a realistic mix, for tests and benchmarks.

:class:`Node` is a node as its sensor would tell it: processes are born, exec, serve, ask names and connect,
and the events so far are cut into batches with dictionaries, positions and ledgers that fit together.
:class:`Load` is a stream of such batches: 70 % connect and close, 20 % DNS, 10 % process events.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BOOT_ID: Final = "6f1d0c52-4a3e-4b5e-9a53-0c7de8a4b1f2"
POD_UID: Final = "0b9c1c52-7a0e-4c57-8a59-3d0c5be8f1aa"
CONTAINER_ID: Final = "4f2c" * 16
WALL_OFFSET_NS: Final = 1_790_000_000_000_000_000
FIRST_NS: Final = 8_000_000_000_000
EVENT_BYTES: Final = 96
MICROSECOND: Final = 1_000
SECOND: Final = 1_000_000_000

Record = dict[str, Any]


def workload(workload_id: str, kind: str = "HOST_SERVICE", **fields: Any) -> Record:
    """A ``Workload`` record."""
    return {
        "id": workload_id, "kind": kind, "cgroup_id": 77, "cgroup_path": f"/{workload_id}", "pod_uid": None,
        "container_id": None, "unit": None, **fields,
    }  # fmt: skip


HOST: Final = workload("host/worker-1/", "HOST")
POD: Final = workload(POD_UID, "POD", pod_uid=POD_UID, container_id=CONTAINER_ID)


def pod_record(**fields: Any) -> Record:
    """The ``Pod`` record of :data:`POD`."""
    return {
        "uid": POD_UID, "namespace": "shop", "name": "shop-6c9f7d5b8-x2v5q", "labels": {"app": "shop"},
        "owner_kind": "Deployment", "owner_name": "shop", "service_account": "shop", "node": "worker-1",
        "ips": ["10.1.2.3"],
        "containers": [{"id": CONTAINER_ID, "name": "shop", "image": "registry.example/shop:1.4.2"}],
        **fields,
    }  # fmt: skip


def image(tgid: int, start_ns: int, executable: str = "", **fields: Any) -> Record:
    """A ``ProcessImage`` record."""
    return {
        "tgid": tgid, "start_ns": start_ns, "image_ns": start_ns, "parent": 0, "origin": "EXEC",
        "executable": executable, "inode": crc32(executable.encode()) | 1, "device": 8 << 20 | 1, "deleted":
        False,
        "argv": [executable.rpartition("/")[2]], "argv_truncated": False,
        "comm": executable.rpartition("/")[2][:15], "uid": 33, "gid": 33, "mnt_ns": 4026532201,
        "pid_ns": 4026532204, "net_ns": 4026532207, "workload": 0, "serving": False,
        "stdio": ["FILE", "FILE", "FILE"], "stdio_peer": None, **fields,
    }  # fmt: skip


NOBODY: Final = image(0, 0, origin="UNKNOWN", inode=0, device=0, argv=[], stdio=[])


@dataclass(slots=True)
class Node:
    """One node.

    Images are named by their index in ``images``; batches hold those their events need, renumbered.
    """

    name: str = "worker-1"
    boot_id: str = BOOT_ID
    workloads: list[Record] = field(default_factory=lambda: [dict(HOST), dict(POD)])
    images: list[Record] = field(default_factory=lambda: [dict(NOBODY)])
    events: list[tuple[str, Record]] = field(default_factory=list)
    now_ns: int = FIRST_NS
    position: int = 4096
    next_tgid: int = 4000
    sequence: int = 0
    seq: int = 0
    lost: int = 0
    reported: int = 0

    def service(self, executable: str, argv: Sequence[str] = (), *, workload: int = 1, **fields: Any) -> int:
        """A serving program that has been there for an hour."""
        start_ns = self.now_ns - 3600 * SECOND
        own = {
            "parent": 0,
            "argv": list(argv) or [executable],
            "workload": workload,
            "serving": True,
            **fields,
        }
        return self._image(start_ns, executable, **own)

    def fork(self, parent: int, **fields: Any) -> int:
        """A process is born."""
        self._pass_time()
        copied = {**self.images[parent], "origin": "FORK", "parent": parent, "serving": False, **fields}
        copied |= {"tgid": self._tgid(), "start_ns": self.now_ns, "image_ns": self.now_ns}
        self.images.append(copied)
        self.add("ProcessFork", len(self.images) - 1)
        return len(self.images) - 1

    def exec(self, process: int, executable: str, argv: Sequence[str] = (), **fields: Any) -> int:
        """A process begins another image."""
        self._pass_time()
        before = self.images[process]
        made = image(
            before["tgid"], before["start_ns"], executable, image_ns=self.now_ns, parent=process,
            workload=before["workload"], stdio=list(before["stdio"]), stdio_peer=before["stdio_peer"],
        )  # fmt: skip
        made |= {"argv": list(argv) or [executable], **fields}
        self.images.append(made)
        self.add("ProcessExec", len(self.images) - 1)
        return len(self.images) - 1

    def spawn(self, parent: int, executable: str, argv: Sequence[str] = (), **fields: Any) -> int:
        """Fork and exec."""
        return self.exec(self.fork(parent), executable, argv, **fields)

    def connect(self, process: int, address: str, port: int, protocol: int = 6) -> int:
        """A connect; returns its ring position."""
        return self.add(
            "SocketConnect", process, cookie=self.position, protocol=protocol, remote_address=address,
            remote_port=port,
        )  # fmt: skip

    def send(self, process: int, address: str, port: int) -> int:
        """A datagram."""
        return self.add(
            "DatagramSend",
            process,
            cookie=self.position,
            protocol=17,
            remote_address=address,
            remote_port=port,
        )

    def ask(self, process: int, name: str, server: str = "10.96.0.10") -> int:
        """A DNS question."""
        return self.add(
            "DnsQuestion", process, cookie=9001, protocol=17, server_address=server, transaction_id=7,
            name=name, question_type=1,
        )  # fmt: skip

    def answer(
        self, process: int, name: str, addresses: Sequence[str], ttl_s: int = 30, **fields: Any
    ) -> int:
        """A DNS answer by way of an alias."""
        records = [{"type": 5, "ttl_s": ttl_s, "data": f"edge.{name}"}]
        records += [{"type": 28 if ":" in each else 1, "ttl_s": ttl_s, "data": each} for each in addresses]
        return self.add(
            "DnsAnswer", process,
            **{
                "cookie": 9001, "protocol": 17, "server_address": "10.96.0.10", "transaction_id": 7, "name":
                name,
                "question_type": 1, "rcode": 0, "truncated": False, "incomplete": False, "records": records,
                **fields,
            },
        )  # fmt: skip

    def close(self, process: int, address: str, port: int, *, inbound: bool = False) -> int:
        """A TCP socket closes."""
        return self.add(
            "SocketClose", process, cookie=self.position, local_address="10.1.2.3", local_port=51044,
            remote_address=address, remote_port=port, inbound=inbound, established=True, bytes_sent=812,
            bytes_received=4410, duration_ns=3_400_000,
        )  # fmt: skip

    def listen(self, process: int, port: int) -> int:
        """A TCP socket begins to listen."""
        self.images[process]["serving"] = True
        return self.add(
            "SocketListen", process, cookie=77, protocol=6, local_address="0.0.0.0", local_port=port
        )

    def refuse(self, process: int, address: str, port: int, **fields: Any) -> int:
        """The kernel refuses something."""
        return self.add(
            "Refusal", process,
            **{
                "cookie": 0, "hook": "CONNECT", "reason": "BLOCKED_DESTINATION", "generation": 5,
                "protocol": 6,
                "local_address": "0.0.0.0", "local_port": 0, "remote_address": address, "remote_port": port,
                **fields,
            },
        )  # fmt: skip

    def notice(self, kind: str, detail: str = "", subject: str = "") -> None:
        """The sensor reports on itself; no room on the ring, no number."""
        self._pass_time()
        fields = {"position": self.position, "ktime_ns": self.now_ns, "process": 0, "kind": kind}
        self.events.append(("nsp.SensorNotice", {**fields, "subject": subject, "detail": detail}))

    def lose(self, count: int) -> None:
        """The ring was full: numbers taken, nothing written, counted."""
        self.seq += count
        self.lost += count

    def add(self, kind: str, process: int, **fields: Any) -> int:
        """An event on the ring; returns its position."""
        self._pass_time()
        self.seq += 1
        position = self.position
        self.position += EVENT_BYTES
        place = {"position": position, "ktime_ns": self.now_ns, "process": process}
        self.events.append((f"nsp.{kind}", {**place, **fields}))
        return position

    def batch(self, events: Sequence[tuple[str, Record]] | None = None, **fields: Any) -> Record:
        """The events since the last batch (or those given) as a batch that stands alone."""
        taken = list(self.events if events is None else events)
        if events is None:
            self.events = []
        self.sequence += 1
        numbered = [event for name, event in taken if name != "nsp.SensorNotice"]
        start = numbered[0]["position"] if numbered else self.position
        end = numbered[-1]["position"] + EVENT_BYTES if numbered else self.position
        made = {
            "node": self.name, "boot_id": self.boot_id, "sensor_version": "0.1.0", "sequence": self.sequence,
            "ring_start": start, "ring_end": end,
            "clock": {"boot_ns": self.now_ns, "wall_ns": self.now_ns + WALL_OFFSET_NS},
            "cpus": self._ledger(len(numbered)) if numbered else [],
            "losses": [{"stage": "kernel", "reason": "ring_full", "count": self.lost}] if self.lost else [],
            "workloads": [dict(each) for each in self.workloads],
            **self._dictionary(taken),
        }  # fmt: skip
        return made | fields

    @property
    def wall_ns(self) -> int:
        """Wall time now."""
        return self.now_ns + WALL_OFFSET_NS

    def _ledger(self, events: int) -> list[Record]:
        first = self.reported + 1
        self.reported = self.seq
        return [{"cpu": 0, "first_seq": first, "last_seq": self.seq, "events": events}]

    def _dictionary(self, events: Sequence[tuple[str, Record]]) -> Record:
        needed = {0}
        for _, event in events:
            index = event["process"]
            while index not in needed:
                needed.add(index)
                index = self.images[index]["parent"]
        number = {index: place for place, index in enumerate(sorted(needed))}
        processes = [{**self.images[each], "parent": number[self.images[each]["parent"]]} for each in number]
        renumbered = [(name, {**event, "process": number[event["process"]]}) for name, event in events]
        return {"processes": processes, "events": renumbered}

    def _image(self, start_ns: int, executable: str, **fields: Any) -> int:
        self.images.append(image(self._tgid(), start_ns, executable, **fields))
        return len(self.images) - 1

    def _tgid(self) -> int:
        self.next_tgid += 1
        return self.next_tgid

    def _pass_time(self) -> None:
        self.now_ns += 100 * MICROSECOND


EVENTS_PER_BATCH: Final = 400
_SERVICES: Final = (
    "/usr/sbin/nginx", "/usr/bin/python3.11", "/usr/local/bin/node", "/usr/lib/postgresql/15/bin/postgres",
    "/app/checkout", "/usr/bin/java", "/usr/sbin/haproxy", "/app/search",
)  # fmt: skip
_COMMANDS: Final = ("/usr/bin/dash", "/usr/bin/date", "/usr/bin/cat", "/usr/bin/grep", "/usr/bin/python3.11")
# Peers of one service that is no crawler: a dozen services of its own, and some of the outside world.
_PEERS: Final = 40
_PEER_PORTS: Final = (443, 443, 5432, 6379, 8080, 9092)


@dataclass(frozen=True, slots=True)
class _Peer:
    """Somebody a service speaks to by name."""

    name: str
    address: str
    port: int


class Load:
    """A busy node without an attack: services connect, ask names, and start harmless commands.

    Of the events 70 % are connects and closes, 20 % DNS questions and answers, 10 % fork, exec and exit.

    Args:
        seed: The same gives the same.
        strangers: Each connection goes to another of 65,536 addresses that no name stands for: what a scanner
            or a crawler does, and the worst case for all that remembers. Else each service speaks to forty
            peers by name, to the popular ones more often (Zipf), as services do.
    """

    def __init__(self, seed: int = 1, *, strangers: bool = False) -> None:
        self._dice = random.Random(seed)
        self._strangers = strangers
        self._node = Node(
            workloads=[dict(HOST), *(workload(f"host/worker-1/s{each}.service") for each in range(8))]
        )
        self._services = [
            self._node.service(path, workload=place) for place, path in enumerate(_SERVICES, start=1)
        ]
        self._peers = {each: self._peers_of(each) for each in self._services}
        self._weights = [1 / rank for rank in range(1, _PEERS + 1)]

    def batches(self, count: int, events_per_batch: int = EVENTS_PER_BATCH) -> Iterator[Record]:
        """So many batches."""
        node = self._node
        for _ in range(count):
            while len(node.events) < events_per_batch:
                self._one_turn()
            yield node.batch()
            # Images of commands that ended are in no later batch.
            del node.images[len(self._services) + 1 :]

    def _one_turn(self) -> None:
        """30 events: 21 connect or close, 6 DNS, 3 process."""
        node, dice = self._node, self._dice
        for _ in range(3):
            service = dice.choice(self._services)
            peer = self._peer(service)
            node.ask(service, peer.name)
            node.answer(service, peer.name, [peer.address])
        for _ in range(10):
            service = dice.choice(self._services)
            peer = self._peer(service)
            address, port = peer.address, peer.port
            if self._strangers:
                address, port = f"10.2.{dice.randrange(256)}.{dice.randrange(256)}", 5432
            node.connect(service, address, port)
            node.close(service, address, port)
        node.close(dice.choice(self._services), "10.9.9.9", 40000, inbound=True)
        command = node.spawn(dice.choice(self._services), dice.choice(_COMMANDS))
        node.add("ProcessExit", command, exit_status=0, signal=0)

    def _peer(self, service: int) -> _Peer:
        return self._dice.choices(self._peers[service], self._weights)[0]

    def _peers_of(self, service: int) -> list[_Peer]:
        return [
            _Peer(f"s{each}.shop.svc.cluster.local", f"10.3.{service}.{each}", self._dice.choice(_PEER_PORTS))
            for each in self._dice.sample(range(256), _PEERS)
        ]
