# SPDX-License-Identifier: Apache-2.0
"""``make playground``: a whole installation on this machine, to try rules and commands on, until Ctrl-C.

A real Kafka with all topics, keys, a configuration, the stream app and, where the kernel part can run, a
sensor that sees this machine; else the recorded events of ``make demo``. The sensor is given no key: whatever
is tried here, nothing is cut. Everything is in one directory and stays there for the next time; what was
pinned in the kernel is removed at the end.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, Self

from rich.console import Console

from demo import services
from demo.errors import DemoError
from demo.processes import start_service, stop, wait_until
from demo.recording import load
from demo.replay import publish
from sensor.kernel.support import check_support
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_jars import KafkaUnavailableError

if TYPE_CHECKING:
    import subprocess

ROOT: Final = Path(__file__).parent.parent
RECORDING: Final = ROOT / "examples" / "recordings" / "demo.avro.gz"
PINS: Final = "/sys/fs/bpf/nsp-playground"
KAFKA_PORT: Final = 19092
START_TIMEOUT_S: Final = 60.0
SENSOR_METRICS: Final = "127.0.0.1:19477"
STREAM_METRICS: Final = "127.0.0.1:19465"
CONFIGURATION: Final = """\
# The playground's stream app. It takes changes over as they are saved.
# yaml-language-server: $schema={schema}
kafka: {{brokers: ["{brokers}"]}}
signing: {{key_file: "{key}"}}
service: {{metrics_address: "{metrics}", log_format: console}}
detect:
  sigma: {{directories: ["{rules}"]}}
respond:
  dry_run: true
"""
READY: Final = """
[bold]The playground is up.[/] {events}
Kafka [bold]{brokers}[/]; configuration, rules and logs in [bold]{directory}[/]. In another terminal:

  export NSP_BROKERS={brokers} PATH={bin}:$PATH
  nsp tail nsp.alerts

docs/tutorial-first-rule.md goes on from here. Ctrl-C ends it."""


class Playground:
    """What runs, and its end in reverse order."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.rules = directory / "rules"
        self.workspace = services.Workspace(directory, directory / "logs", SENSOR_METRICS, STREAM_METRICS)
        self._broker = KafkaBroker(directory / "kafka", port=port)
        self._stack = ExitStack()
        self._processes: dict[str, subprocess.Popen[str]] = {}

    @property
    def brokers(self) -> str:
        """Address of Kafka."""
        return self._broker.bootstrap

    def __enter__(self) -> Self:
        self.rules.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start_kafka(self) -> None:
        """Start Kafka; the first time with all topics."""
        new = not (self._broker.directory / "data").exists()
        self._stack.callback(self._broker.stop)
        self._broker.start()
        if new:
            self._broker.create_contract_topics()

    def start_stream(self) -> None:
        """Start the stream app, with the configuration that is there, or a first one."""
        if not self.workspace.keys.exists():
            services.run_nsp("keys", "generate", "--out", str(self.workspace.keys))
        if not self.workspace.config.exists():
            text = CONFIGURATION.format(
                schema=ROOT / "schemas" / "config" / "stream.schema.json",
                brokers=self.brokers,
                key=self.workspace.keys / "enforcement.key.pem",
                metrics=STREAM_METRICS,
                rules=self.rules,
            )
            self.workspace.config.write_text(text)
        self._watch("stream app", services.start_stream(self.workspace), STREAM_METRICS)

    def start_sensor(self) -> None:
        """Start a sensor that sees the whole machine and obeys nobody."""
        command = [
            sys.executable, "-m", "sensor", "--node", "playground", "--brokers", self.brokers,
            "--pin-directory", PINS, "--metrics-address", SENSOR_METRICS, "--interfaces", "off",
        ]  # fmt: skip
        self._stack.callback(services.unload, PINS)
        with self.workspace.log("sensor").open("a") as log:
            self._watch("sensor", start_service(command, services.environment(), log), SENSOR_METRICS)

    def play_recording(self) -> None:
        """Publish the recorded events as if they happened now."""
        publish(self.brokers, load(RECORDING))

    def wait(self) -> NoReturn:
        """Until Ctrl-C; a part that ends by itself ends all.

        Raises:
            DemoError: One did.
        """
        while True:
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise DemoError(f"the {name} ended with exit code {process.returncode}")
            time.sleep(0.5)

    def _watch(self, name: str, process: subprocess.Popen[str], address: str) -> None:
        self._processes[name] = process
        self._stack.callback(stop, process, name)
        wait_until(
            f"the {name} to be healthy",
            lambda: services.is_healthy(address),
            START_TIMEOUT_S,
            {name: process},
        )


def play(playground: Playground, console: Console, *, recorded: bool) -> NoReturn:
    """Start everything and wait."""
    console.print("starting Kafka")
    playground.start_kafka()
    problems = [] if recorded else check_support()
    for problem in problems:
        console.print(f"[bold]No sensor here:[/] {problem.cause} ({problem.cure})")
    console.print("starting the stream app")
    playground.start_stream()
    if recorded or problems:
        playground.play_recording()
        events = "The recorded events of the demonstration were played."
    else:
        console.print("starting the sensor")
        playground.start_sensor()
        events = "Its sensor sees this machine; it has no key, so nothing can be cut."
    text = READY.format(
        events=events,
        brokers=playground.brokers,
        directory=playground.directory,
        bin=ROOT / ".venv" / "bin",
    )
    console.print(text, soft_wrap=True)
    playground.wait()


def main() -> int:
    """Parse arguments and run until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m demo.playground", description=__doc__)
    parser.add_argument("--directory", type=Path, default=ROOT / "build" / "playground")
    parser.add_argument("--port", type=int, default=KAFKA_PORT, help="of Kafka, on loopback")
    parser.add_argument("--recorded", action="store_true", help="no sensor: play the recorded events")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier time left")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(highlight=False)
    if arguments.fresh:
        shutil.rmtree(arguments.directory, ignore_errors=True)
    try:
        with Playground(arguments.directory.resolve(), arguments.port) as playground:
            play(playground, console, recorded=arguments.recorded)
    except KeyboardInterrupt:
        console.print("ended")
        return 0
    except (DemoError, KafkaUnavailableError) as error:
        console.print(f"[bold red]The playground failed:[/] {error}", soft_wrap=True)
        console.print(f"Logs of the parts are in {arguments.directory / 'logs'}", soft_wrap=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
