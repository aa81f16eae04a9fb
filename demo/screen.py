# SPDX-License-Identifier: Apache-2.0
"""The screen: a live picture on a terminal, the same story as plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from demo.attack import Times
    from demo.report import Report

EVENTS_SHOWN = 14
STEPS_SHOWN = 18
PLAIN_EVENTS_PER_STEP = 12  # without a terminal: a taste of the stream, not all of it


class Screen:
    """Shows steps of the story and the stream of events; use as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        """Prepare for the given console, or the standard output."""
        self.console = console or Console(highlight=False)
        self._events: deque[str] = deque(maxlen=EVENTS_SHOWN)
        self._steps: deque[Text] = deque(maxlen=STEPS_SHOWN)
        self._started = time.monotonic()
        self._plain_budget = PLAIN_EVENTS_PER_STEP
        self._facts = ""
        self.focus = ""  # without a terminal, show only lines that begin with this
        self._live = Live(console=self.console, refresh_per_second=10, transient=True)
        self._is_live = self.console.is_terminal

    def __enter__(self) -> Self:
        """Start drawing."""
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing."""
        if self._is_live:
            self._live.stop()
            for step in self._steps:
                self.console.print(step)

    def step(self, text: str, style: str = "") -> None:
        """Tell one step of the story."""
        stamped = Text(f"{time.monotonic() - self._started:6.1f} s  ", style="dim") + Text(text, style=style)
        self._steps.append(stamped)
        self._plain_budget = PLAIN_EVENTS_PER_STEP
        if self._is_live:
            self._draw()
        else:
            self.console.print(stamped, soft_wrap=True)

    def events(self, lines: Iterable[str]) -> None:
        """Show what the sensor saw."""
        for line in lines:
            self._events.append(line)
            if not self._is_live and self._plain_budget > 0 and line.startswith(self.focus):
                self._plain_budget -= 1
                self.console.print(Text("            | " + line, style="dim"), soft_wrap=True)
        if self._is_live:
            self._draw()

    def facts(self, text: str) -> None:
        """Show the running totals (terminal only)."""
        self._facts = text

    def process_tree(self, lineage: Sequence[Mapping[str, object]]) -> None:
        """Show the chain from the service to the attacker's process, with what is cut marked."""
        root: Tree | None = None
        branch: Tree | None = None
        service = next(
            (at for at, entry in enumerate(lineage) if entry["role"] == "service"), len(lineage) - 1
        )
        for entry in reversed(lineage[: service + 1]):
            label = _lineage_label(entry)
            if branch is None:
                root = branch = Tree(label)
            else:
                branch = branch.add(label)
        if root is not None:
            self._print_above(Panel(root, title="process tree", expand=False))

    def times(self, times: Times) -> None:
        """Show the four times."""
        table = Table("moment", "ms after the first forbidden event", title="from seen to cut")
        table.add_row("first forbidden event in the kernel", "0.000")
        table.add_row("decided by the stream app", f"{times.after_first_ms(times.decided_ns):.3f}")
        table.add_row("written to the kernel map", f"{times.after_first_ms(times.map_written_ns):.3f}")
        table.add_row("first packet or call refused", f"{times.after_first_ms(times.first_refused_ns):.3f}")
        self._print_above(table)

    def finish(self, report: Report, failures: Sequence[str]) -> None:
        """Show the figures and the verdict."""
        table = Table("figure", "value", title="report")
        for name in report.__slots__:
            table.add_row(name, str(getattr(report, name)))
        self.console.print(table)
        if failures:
            self.console.print(Text("NOT as it must be: " + "; ".join(failures), style="bold red"))
        else:
            self.console.print(Text("All of it really happened.", style="bold green"))

    def _print_above(self, renderable: Panel | Table) -> None:
        console = self._live.console if self._is_live else self.console
        console.print(renderable)

    def _draw(self) -> None:
        seen = Text("\n".join(self._events), no_wrap=True, overflow="ellipsis")
        self._live.update(
            Group(
                Panel(seen, title="what the sensor sees (from Kafka)", height=EVENTS_SHOWN + 2),
                Panel(Group(*self._steps), title="story"),
                Text(self._facts, style="dim"),
            )
        )


def _lineage_label(entry: Mapping[str, object]) -> Text:
    argv = entry["argv"]
    command = " ".join(str(part) for part in argv) if isinstance(argv, list) else ""
    shown = "".join(character if character.isprintable() else "." for character in command)[:70]
    role = str(entry["role"])
    style = {"service": "green", "cut-root": "bold red", "actor": "red", "tool": "red"}.get(role, "")
    mark = f"   <- {role}" if role else ""
    return Text(f"{entry['executable']} [{entry['tgid']}]  {shown}{mark}", style=style)
