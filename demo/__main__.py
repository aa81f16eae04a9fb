# SPDX-License-Identifier: Apache-2.0
"""``python -m demo``: run the demonstration; exit code 0 only if all of it really happened."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.panel import Panel

from demo.errors import DemoError
from demo.replay import replay
from demo.screen import Screen
from demo.story import Story
from sensor.kernel.support import check_support

ROOT = Path(__file__).parent.parent
RECORDING = ROOT / "examples" / "recordings" / "demo.avro.gz"
REAL = """\
Real: the kernel programs, the sensor, the stream app, the signatures, the sockets, the exploit, the cut.
Not real: Kafka is librdkafka's embedded mock cluster; the pods are cgroups and network namespaces laid out
as a kubelet lays them out, and their metadata comes from a file instead of the Kubernetes API."""


def main() -> int:
    """Parse arguments, choose kernel or recording, report."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "demo", help="where the report goes")
    parser.add_argument("--recording", type=Path, help="play this recording instead of using the kernel")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    problems = [] if arguments.recording else check_support()
    try:
        with Screen(console) as screen:
            if problems or arguments.recording:
                for problem in problems:
                    console.print(f"[bold]No kernel part here:[/] {problem.cause} ({problem.cure})")
                report = replay(screen, arguments.build, arguments.recording or RECORDING)
            else:
                console.print(Panel(REAL, title="Network Security Probe, demonstration"))
                report = Story(screen, arguments.build).play()
    except DemoError as error:
        console.print(f"[bold red]The demonstration failed:[/] {error}", soft_wrap=True)
        console.print(f"Logs of the parts are in {arguments.build}", soft_wrap=True)
        return 1
    report.write(arguments.build / "report.json")
    failures = report.failures()
    Screen(console).finish(report, failures)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
