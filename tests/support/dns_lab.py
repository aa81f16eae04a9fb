# SPDX-License-Identifier: Apache-2.0
"""The kernel's view of DNS exchanges: starts the kernel part over a cgroup and decodes what it reports."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING, Any

from sensor.kernel import Kernel, KernelOptions
from sensor.publish import layout
from sensor.publish.batch import BatchBuilder
from sensor.publish.decode import Decoder
from sensor.publish.ledger import Ledger
from sensor.publish.lineage import ProcessTable
from sensor.publish.losses import Losses
from sensor.workload.table import WorkloadTable
from tests.support.kernel_lab import ROOT, Cgroup, events_of, make_cgroup, make_pin_directory, remove_pins

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.support.dns_exchange import Exchange

_RAW = layout.reader(
    layout.DNS_EVENT, "tgid", "type", "cookie", "local_port", "remote_port", "dns_flags", "question_type",
    "name_bytes", "message_bytes", "answer_count", "family", "protocol", "record_count", "parse_flags",
)  # fmt: skip
_RAW_NAMES = (
    "tgid", "type", "cookie", "local_port", "remote_port", "dns_flags", "question_type",
    "name_bytes", "message_bytes", "answer_count", "family", "protocol", "record_count", "parse_flags",
)  # fmt: skip
# Tracepoints see every process and TCP socket of the machine, so these move without us.
_MACHINE_WIDE = ("owner_unknown", "process_unknown", "read_failed", "path_truncated", "process_map_full")
_PADDING = b"\0" * layout.RING_HEADER_BYTES  # readers start at the ring record's header


@dataclass(frozen=True, slots=True)
class Seen:
    """What one exchange, or one after the other, left on the ring and in the counters."""

    questions: tuple[dict[str, Any], ...]
    answers: tuple[dict[str, Any], ...]
    raw: tuple[dict[str, Any], ...]
    counted: dict[str, int]


def raw_event(data: bytes) -> dict[str, Any]:
    """The DNS fields of an event as the C has them, its message and its record places."""
    fields: dict[str, Any] = dict(zip(_RAW_NAMES, _RAW.unpack_from(_PADDING + data), strict=True))
    tail, end = layout.DNS_EVENT.size_bytes, layout.DNS_EVENT.size_bytes + fields["message_bytes"]
    fields["message"] = data[tail:end]
    fields["table"] = data[end + -end % 4 :]
    return fields


class DnsLab:
    """A running kernel part, and a process in its cgroup that plays resolver and client."""

    def __init__(self, kernel: Kernel, process: Popen[str]) -> None:
        self._kernel = kernel
        self._process = process
        self._counters = dict(kernel.counters())
        self.pid: int = self._reply()["pid"]

    def exchange(self, *exchanges: Exchange) -> Seen:
        """Perform exchanges and collect what the kernel reported of them.

        The events of others (all programs on the machine exec and exit) are left out by socket cookie.
        """
        cookies = set()
        for each in exchanges:
            if self._process.stdin is None:
                raise RuntimeError("the exchange process was started without a pipe")
            self._process.stdin.write(each.to_json() + "\n")
            self._process.stdin.flush()
            cookies.add(self._reply()["cookie"])
        return self._collect(cookies)

    def _reply(self) -> dict[str, Any]:
        if self._process.stdout is None:
            raise RuntimeError("the exchange process was started without a pipe")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the exchange process ended; its stderr says why")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _collect(self, cookies: set[int]) -> Seen:
        processes = ProcessTable()
        batch = BatchBuilder(processes, WorkloadTable("test-node", self._kernel.state))
        losses = Losses()
        decoder = Decoder(batch, Ledger(1024, fresh=False), losses)
        events: list[tuple[str, dict[str, Any]]] = []
        raw = []
        while (chunk := self._kernel.ring.read(1 << 18)) is not None:
            offset = 0
            while offset < len(chunk.data):  # a batch has its own size limit
                offset = decoder.feed(chunk.data, offset, chunk.start, 1 << 16)
                events += _named(batch)
                batch.close({})
            raw += [
                raw_event(e.data)
                for e in events_of(chunk)
                if e.type in (layout.DNS_QUESTION, layout.DNS_ANSWER)
            ]
            self._kernel.ring.release(chunk.end)
        if losses.decode__malformed or losses.decode__unknown_type:
            raise AssertionError(f"the decoder could not read the kernel's events: {losses}")
        ours = [(kind, event) for kind, event in events if event.get("cookie") in cookies]
        before, self._counters = self._counters, dict(self._kernel.counters())
        return Seen(
            tuple(event for kind, event in ours if kind == "nsp.DnsQuestion"),
            tuple(event for kind, event in ours if kind == "nsp.DnsAnswer"),
            tuple(event for event in raw if event["cookie"] in cookies),
            {
                key: value - before[key]
                for key, value in self._counters.items()
                if value != before[key] and key not in _MACHINE_WIDE
            },
        )


def _named(batch: BatchBuilder) -> Iterable[tuple[str, dict[str, Any]]]:
    """The batch's events with the owner's tgid instead of its index, which means nothing afterwards."""
    owners = {index: tgid for (tgid, _), index in batch.index.items()}
    for kind, event in batch.events:
        yield kind, {**event, "tgid": owners.get(event.get("process", 0), 0)}


@contextlib.contextmanager
def dns_lab() -> Iterator[DnsLab]:
    """A lab of its own; everything is removed at the end."""
    cgroup: Cgroup = make_cgroup()
    pins = make_pin_directory()
    try:
        options = KernelOptions(
            pin_directory=pins, cgroup_root=cgroup.path, ring_bytes=1 << 22, max_processes=8192
        )
        with contextlib.closing(Kernel.start(options)) as kernel:
            command = cgroup.command(sys.executable, "-m", "tests.support.dns_exchange")
            with Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=ROOT) as process:
                yield DnsLab(kernel, process)
                process.communicate()
    finally:
        remove_pins(pins)
        cgroup.remove()
