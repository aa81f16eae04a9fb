# SPDX-License-Identifier: Apache-2.0
"""A real sensor process on the real kernel with an in-memory broker, and what a reader gets of it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from schemas.codec import decode_as
from schemas.partition import partition_for
from schemas.topics import EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.support.kernel_lab import Cgroup

NODE = "test-node"
START_TIMEOUT_S = 40.0  # a cold compile on a busy machine
WAIT_S = 20.0


@contextmanager
def embedded_broker(directory: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The in-memory broker: its address and its process."""
    address = directory / "address"
    command = [sys.executable, "-m", "nsp.embedded_broker", "--address-file", str(address)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(address.exists, "the embedded broker")
            yield address.read_text(), process
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = WAIT_S) -> None:
    """Wait for something, or say what did not come."""
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, f"no {what} within {timeout_s} s"
        time.sleep(0.05)


class SensorProcess:
    """``python -m sensor`` in a process of its own."""

    def __init__(
        self,
        brokers: str,
        cgroup_root: Path,
        pins: Path,
        log: Path,
        *,
        ring_bytes: int = 1 << 20,
        within: Cgroup | None = None,
        options: Sequence[str] = (),
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port: int = server.getsockname()[1]
        self._log = log
        with log.open("ab") as file:
            command = [
                sys.executable, "-m", "sensor", "--node", NODE, "--brokers", brokers,
                "--cgroup-root", str(cgroup_root), "--pin-directory", str(pins),
                "--ring-bytes", str(ring_bytes), "--metrics-address", f"127.0.0.1:{self.port}", *options,
            ]  # fmt: skip
            self.process = subprocess.Popen(
                within.command(*command) if within else command,
                stdout=file,
                stderr=file,
            )

    def started(self) -> SensorProcess:
        """Wait until it is healthy."""
        wait_until(lambda: self._ended() or self.health()[0] == 200, "healthy sensor", START_TIMEOUT_S)
        return self

    def _ended(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()[-3000:]
        return False

    def health(self) -> tuple[int, dict[str, Any]]:
        """Status and body of /healthz; 0 while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except OSError:
            return 0, {}

    def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the exit status."""
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)


@dataclass
class Reader:
    """Reads the node's batches as the contract says: events not above the highest position are dropped."""

    brokers: str
    batches: list[dict[str, Any]] = field(default_factory=list)
    events: list[tuple[str, dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    repeated: int = 0

    def __enter__(self) -> Self:
        self._consumer = Consumer({"bootstrap.servers": self.brokers, "group.id": "test", "log_level": 0})
        partition = partition_for(NODE.encode(), EVENTS.partitions)
        self._consumer.assign([TopicPartition(EVENTS.name, partition, OFFSET_BEGINNING)])
        self._highest = -1
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def poll(self) -> None:
        """Take what there is."""
        while (message := self._consumer.poll(0.2)) is not None:
            if message.error() is not None:
                continue
            batch = decode_as("EventBatch", message.value() or b"")
            self.batches.append(batch)
            for name, event in batch["events"]:
                if event["position"] <= self._highest:
                    self.repeated += 1
                    continue
                self._highest = event["position"]
                self.events.append((name, event, batch))

    def wait_for(
        self, name: str, wanted: Callable[[dict[str, Any], list[dict[str, Any]]], bool]
    ) -> list[Any]:
        """The first event of a kind that fits, with its lineage, nearest first.

        Args:
            name: Record name without the namespace.
            wanted: Told the event and its lineage.
        """
        found: list[Any] = []

        def search() -> bool:
            self.poll()
            for kind, event, batch in self.events:
                if kind == f"nsp.{name}" and wanted(event, lineage(batch, event["process"])):
                    found[:] = [event, lineage(batch, event["process"]), batch]
                    return True
            return False

        wait_until(search, f"{name} that fits")
        return found

    def unaccounted(self) -> dict[int, int]:
        """Per CPU: attempts the batches tell of, less events read and losses the kernel counted.

        Events decoded twice are counted once, by position.
        """
        attempts: dict[int, tuple[int, int]] = {}
        for batch in self.batches:
            for cpu in batch["cpus"]:
                first, last = attempts.get(cpu["cpu"], (cpu["first_seq"], 0))
                attempts[cpu["cpu"]] = min(first, cpu["first_seq"]), max(last, cpu["last_seq"])
        tried = sum(last - first + 1 for first, last in attempts.values())
        read = sum(name != "nsp.SensorNotice" for name, _, _ in self.events)
        lost = sum(
            loss["count"]
            for loss in self.batches[-1]["losses"]
            if (loss["stage"], loss["reason"]) in {("kernel", "ring_full"), ("kernel", "scratch_missing")}
        )
        return {} if tried == read + lost else {tried: read + lost}


def lineage(batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
    """The process and its ancestors, nearest first."""
    chain = []
    while index:
        chain.append(batch["processes"][index])
        index = batch["processes"][index]["parent"]
    return chain
