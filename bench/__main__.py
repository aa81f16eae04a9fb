# SPDX-License-Identifier: Apache-2.0
"""``python -m bench [NAME ...] [--json]``: run benchmarks, print a table or one JSON object each."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import machine
from bench.errors import BenchError
from demo.errors import DemoError

NAMES = (
    "latency", "policy", "profiles", "names", "gap", "drain", "stream", "replay", "fleet", "detect", "rules",
    "loop", "apply", "selftest", "footprint",
)  # fmt: skip


def flatten(result: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested figures as rows with dotted names."""
    rows: list[tuple[str, str]] = []
    for name, value in result.items():
        if isinstance(value, dict):
            rows += flatten(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, str(value)))
    return rows


def show(name: str, result: dict[str, Any], console: Console) -> None:
    """Print one benchmark's figures as a table."""
    table = Table("figure", "value", title=f"bench {name}")
    for row in flatten(result):
        table.add_row(*row)
    console.print(table)


def main() -> int:
    """Run the benchmarks named, or all; exit code 1 if one could not run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(NAMES)} (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout for each benchmark")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}")
    console = Console(highlight=False)
    failed = 0
    for name in arguments.names or NAMES:
        try:
            result: dict[str, Any] = importlib.import_module(f"bench.{name}").run()
        except (BenchError, DemoError) as error:
            sys.stderr.write(f"bench {name}: {error}\n")
            failed = 1
            continue
        result["machine"] = machine.describe()
        if arguments.json:
            sys.stdout.write(json.dumps(result) + "\n")
        else:
            show(name, result, console)
    return failed


if __name__ == "__main__":
    sys.exit(main())
