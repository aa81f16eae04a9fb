# SPDX-License-Identifier: Apache-2.0
"""The real stream app as a child process, which can be stopped, killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from schemas.signing import SigningKey
from tests.support.kafka_broker import free_port

ROOT = Path(__file__).parents[2]
GROUP = "nsp-stream"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0


@dataclass(slots=True)
class StreamProcess:
    """One stream app process; files go to a directory of its own."""

    directory: Path
    bootstrap: str
    key: SigningKey = field(default_factory=SigningKey.generate)
    instance: str | None = None
    respond: str = ""
    more: str = ""
    given: Path | None = None
    module: str = "stream_apps"
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return at once."""
        self.directory.mkdir(parents=True, exist_ok=True)
        key_file = self.directory / "enforcement.key.pem"
        key_file.write_bytes(self.key.to_pem())
        self.configure()
        command = [sys.executable, "-m", self.module, "--config", str(self.config)]
        if self.instance:
            command += ["--instance", self.instance]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    @property
    def config(self) -> Path:
        """Its configuration file."""
        return self.given or self.directory / "stream.yaml"

    def configure(self) -> None:
        """Write the configuration anew, as a person's editor would; not one that was given."""
        if self.given is None:
            self.config.write_text(self.text())

    def text(self) -> str:
        """Its configuration."""
        key_file = self.directory / "enforcement.key.pem"
        return (
            f"kafka: {{brokers: ['{self.bootstrap}'], group: {GROUP}}}\n"
            f"signing: {{key_file: '{key_file}'}}\n"
            f"service: {{metrics_address: '127.0.0.1:{self.port}'}}\n"
            # A test sends more attacks a minute than a person should let a rule answer.
            "respond:\n"
            "  dry_run: false\n"
            "  node_per_minute: 100000\n"
            "  node_burst: 100000\n"
            "  nsp.rce-egress: {per_minute: 100000, burst: 100000, max_workloads_per_minute: 10000,"
            " max_trees_per_minute: 10000}\n"
            "  fleet: {max_workloads: 10000, max_executables: 10000, max_trees: 10000}\n"
            f"{self.respond}"
            f"{self.more}"
        )

    def start_and_wait(self) -> None:
        """Start it and return when it processes events."""
        self.start()
        self.wait_until_healthy()

    def wait_until_healthy(self) -> None:
        """Return when ``/healthz`` says ok."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.health() != "ok":
            assert self.running, f"the stream app ended:\n{self.log_tail()}"
            assert time.monotonic() < deadline, f"not healthy ({self.health()}):\n{self.log_tail()}"
            time.sleep(0.05)

    def health(self) -> str:
        """What ``/healthz`` says; empty when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=2) as answer:
                text: str = answer.read().decode().strip()
                return text
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode().strip()
        except OSError:
            return ""

    def metric(self, line: str) -> float:
        """The value of one line of ``/metrics``; 0 when it is not there."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            page: str = answer.read().decode()
        return next(
            (float(each.rpartition(" ")[2]) for each in page.splitlines() if each.startswith(line)), 0.0
        )

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def hang_up(self) -> None:
        """SIGHUP."""
        assert self._process
        self._process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """``kill -9``."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(STOP_TIMEOUT_S)

    def wait(self, timeout_s: float) -> int:
        """Wait until it ends by itself; the exit status."""
        assert self._process
        return self._process.wait(timeout_s)

    @property
    def log(self) -> Path:
        """What it said."""
        return self.directory / "stream.log"

    def log_tail(self) -> str:
        """The end of what it said, for the message of a failed test."""
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""
