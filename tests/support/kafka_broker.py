# SPDX-License-Identifier: Apache-2.0
"""One real Apache Kafka broker as a child process, which can be stopped, killed and started again.

Input: an empty directory. Output: ``bootstrap``, the same address over every restart, because clients
reconnect to where they were. Failure: ``KafkaUnavailableError`` with the end of the broker's log.

The broker dies with the thread that started it (``setpriv --pdeathsig``), so a killed test run leaves
no Java behind.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.topics import TOPICS, creation_config
from tests.support.kafka_jars import KafkaUnavailableError, kafka_class_path

if TYPE_CHECKING:
    from collections.abc import Iterable

LOG_CONFIGURATION = Path(__file__).parent / "kafka" / "log4j2.yaml"
# 2 to 5 s are usual; a machine with other work on it has needed 15.
START_TIMEOUT_S = 60.0
# A clean stop takes under a second; after this the broker is killed, which its log survives.
STOP_TIMEOUT_S = 20.0
JVM_OPTIONS = ("-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")


def free_port() -> int:
    """A port nobody listens on now. Another process may take it first; no clash was seen in 60 starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(slots=True)
class KafkaBroker:
    """A broker of its own cluster: one node, controller and broker in one, PLAINTEXT on loopback."""

    directory: Path
    port: int = field(default_factory=free_port)
    controller_port: int = field(default_factory=free_port)
    settings: dict[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """``host:port`` for clients; does not change over restarts."""
        return f"127.0.0.1:{self.port}"

    @property
    def process_id(self) -> int | None:
        """The broker's process, or None while it is down."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Format the storage the first time, start, and return once the broker answers metadata."""
        if self._process:
            return
        if not shutil.which("java"):
            msg = "Java is not installed, so no Kafka broker can run: run tools/setup test"
            raise KafkaUnavailableError(msg)
        if not (self.directory / "data").exists():
            self._format()
        with (self.directory / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._properties)), stdout=log, stderr=subprocess.STDOUT
            )
        self._await_metadata()

    def stop(self) -> None:
        """Stop in order: the log is flushed and closed."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """``kill -9``: what a crash leaves behind."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop in order and start on the same address and data."""
        self.stop()
        self.start()

    def create_topics(self, topics: Iterable[NewTopic]) -> None:
        """Create topics and wait until the broker has them."""
        admin = self.admin()  # kept by name: a collected client fails its pending requests
        for future in admin.create_topics(list(topics)).values():
            future.result(START_TIMEOUT_S)

    def create_contract_topics(self) -> None:
        """Create every topic of the topic table, as a deployment would."""
        self.create_topics(
            NewTopic(each.name, each.partitions, replication_factor=1, config=creation_config(each))
            for each in TOPICS.values()
        )

    def admin(self) -> AdminClient:
        """A client that does not fill the test's stderr when the broker goes away on purpose."""
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def log_tail(self) -> str:
        """The last of what the broker said, for the message of a failed test."""
        log = self.directory / "broker.log"
        return log.read_text(errors="replace")[-3000:] if log.exists() else ""

    @property
    def _properties(self) -> Path:
        return self.directory / "server.properties"

    def _java(self, main_class: str, *arguments: str) -> list[str]:
        # Its native libraries are unpacked there, and a killed broker leaves them.
        scratch = f"-Djava.io.tmpdir={self.directory}"
        log_configuration = f"-Dlog4j2.configurationFile={LOG_CONFIGURATION}"
        options = [*JVM_OPTIONS, scratch, log_configuration, "-cp", kafka_class_path()]
        return ["setpriv", "--pdeathsig", "KILL", "java", *options, main_class, *arguments]

    def _format(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        lines = [f"{name}={value}" for name, value in self._server_settings().items()]
        self._properties.write_text("\n".join(lines) + "\n")
        cluster_id = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
        # One argument: an id may start with "-" and would be taken for an option.
        arguments = ("format", f"--cluster-id={cluster_id}", "-c", str(self._properties))
        command = self._java("kafka.tools.StorageTool", *arguments)
        result = subprocess.run(command, capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False)
        if result.returncode != 0:
            msg = f"Kafka storage was not formatted:\n{result.stdout}{result.stderr}"
            raise KafkaUnavailableError(msg)

    def _server_settings(self) -> dict[str, str]:
        """One small node. Internal topics have one partition: the defaults are sized for clusters."""
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.directory / "data"),
            "auto.create.topics.enable": "false",
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "default.replication.factor": "1",
            "min.insync.replicas": "1",
            "group.initial.rebalance.delay.ms": "0",
            # After kill -9 the controller takes the broker back only when its old session has expired.
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "400",
            "num.network.threads": "1",
            "num.io.threads": "2",
            "background.threads": "2",
            "log.cleaner.dedupe.buffer.size": "4194304",
            "log.segment.bytes": "16777216",
        } | self.settings

    def _await_metadata(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        admin = self.admin()
        while time.monotonic() < deadline:
            if self._process and self._process.poll() is not None:
                break
            try:
                if admin.list_topics(timeout=0.5).brokers:
                    return
            except KafkaException:
                time.sleep(0.05)
        self.kill()
        msg = f"Kafka did not answer on {self.bootstrap}:\n{self.log_tail()}"
        raise KafkaUnavailableError(msg)

    def _end(self, signal_number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal_number)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
