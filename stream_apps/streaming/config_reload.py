# SPDX-License-Identifier: Apache-2.0
"""The configuration file and its rule files, taken over when they change, without a restart.

Input: files that somebody writes or that are swapped under their names, and SIGHUP. Output: the pipeline goes
over to what they say between two batches, or stays whole with what is in force: when the file is wrong, and
when it changes a setting that only a new process takes. Both are counted, logged with file, line and reason,
and ``nsp_stream_config_differs`` is 1 until the file on disk is the one in force again.

Files are asked for their status once a second: that sees what file system notices do not, a link swapped
somewhere above (ConfigMap) or a change made by another machine. Reading and parsing happen in a thread.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from stream_apps.config.changes import changed, name_of, restart_needed
from stream_apps.config.file import fingerprint, load_all, rules_fingerprint
from stream_apps.errors import ConfigError
from stream_apps.sigma.book import make_ready
from stream_apps.sigma.build import surroundings
from stream_apps.streaming.logs import log_refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stream_apps.config.file import Loaded, Print
    from stream_apps.pipeline import Pipeline
    from stream_apps.sigma.book import Held, Ready
    from stream_apps.streaming.metrics import Metrics

_log = structlog.get_logger(__name__)

# A change is taken when nothing moved for one look more: editors and `kubectl cp` write in pieces.
LOOK_S: Final = 1.0
# Rule directories may have thousands of files, each asked for its status.
_LOOKS_PER_RULES: Final = 5
# Of the settings that changed, in a log line.
_SHOWN: Final = 50


@dataclass(frozen=True, slots=True)
class _Ready:
    """What was read and may be taken over."""

    loaded: Loaded
    rules: Ready


class ConfigReload:
    """Watches and takes over; used on one event loop.

    Args:
        path: The file.
        loaded: What is in force.
        pipeline: Who goes over to it.
        metrics: Figures.
        taken: Called when another configuration is in force.
    """

    def __init__(
        self,
        path: Path,
        loaded: Loaded,
        pipeline: Pipeline,
        metrics: Metrics,
        taken: Callable[[Loaded], None],
    ) -> None:
        self._path = path
        self._loaded = loaded
        self._pipeline = pipeline
        self._metrics = metrics
        self._taken = taken
        self._asked = asyncio.Event()
        self._seen: Print = ()
        self._rules_seen: Print = ()
        self._looks = 0
        self._settling = False
        self._refused: tuple[str, ...] = ()
        pipeline.version = loaded.version
        metrics.config_in_force(loaded.version)

    def ask(self) -> None:
        """Load again as soon as can be, also when nothing changed: who was dismantled is armed again."""
        self._asked.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            asked = self._asked.is_set()
            self._asked.clear()
            try:
                moved = await loop.run_in_executor(None, self._has_changed)
                # A refused file is asked again: what it names may be there by now.
                again = self._refused and self._looks % _LOOKS_PER_RULES == 0
                if asked or moved or again:
                    await self.reload(asked=asked)
            except Exception as error:  # noqa: BLE001 - whatever a file triggers, the one in force stays
                self._refuse("refused", [f"{self._path}: {type(error).__name__}: {error}"])
            try:
                await asyncio.wait_for(self._asked.wait(), LOOK_S)
            except TimeoutError:
                continue

    async def reload(self, *, asked: bool = False) -> None:
        """Read the files, and take them over if they are good and may be."""
        if asked:
            self._refused = ()
        loop = asyncio.get_running_loop()
        held = self._pipeline.rules.held()
        try:
            ready = await loop.run_in_executor(None, self._read, held, asked)
        except ConfigError as error:
            self._refuse("refused", [str(each) for each in error.problems] or [str(error)])
            return
        if ready is None:
            self._refused = ()
            self._metrics.config_differs.set(0)
            return
        old, new = self._loaded.config, ready.loaded.config
        if needs := restart_needed(old, new):
            self._refuse("needs_restart", [f"{each} needs a restart" for each in needs])
            return
        self._pipeline.reconfigure(new, ready.loaded.version, ready.rules, time.time_ns())
        names = [name_of(each.place) for _, each in changed(old, new)]
        self._loaded, self._refused = ready.loaded, ()
        self._taken(ready.loaded)
        self._metrics.config_loads.labels("taken").inc()
        self._metrics.config_in_force(ready.loaded.version)
        rules = self._pipeline.rules
        for verdict in ready.rules.kept:
            _log.error(
                "rule file refused; the text before stays in force",
                place=f"{verdict.source}:{verdict.line}",
                reason=verdict.reason,
            )
        log_refused(rules.verdicts)
        _log.info(
            "configuration in force",
            version=ready.loaded.version,
            changed=names[:_SHOWN],
            rules_version=rules.version,
            rules=len(rules.rules),
        )

    def _read(self, held: Held, asked: bool) -> _Ready | None:
        """What is on disk, parsed; None when it is what is in force. Blocking."""
        loaded = load_all(self._path)
        same = (loaded.version, loaded.rules) == (self._loaded.version, self._loaded.rules)
        if same and not asked:
            return None
        return _Ready(loaded, make_ready(loaded.rules, surroundings(loaded.config.detect.sigma), held))

    def _has_changed(self) -> bool:
        """Whether a file is another than at the last look, and moves no more. Blocking."""
        seen, rules_seen = fingerprint(self._path), self._rules_seen
        if self._looks % _LOOKS_PER_RULES == 0 or self._settling:
            rules_seen = rules_fingerprint(self._loaded.config.detect.sigma.directories)
        self._looks += 1
        if (seen, rules_seen) != (self._seen, self._rules_seen):
            self._seen, self._rules_seen, self._settling = seen, rules_seen, True
            return False
        settled, self._settling = self._settling, False
        return settled

    def _refuse(self, outcome: str, reasons: list[str]) -> None:
        if self._refused == tuple(reasons):
            return  # told already
        self._refused = tuple(reasons)
        self._metrics.config_loads.labels(outcome).inc()
        self._metrics.config_differs.set(1)
        message = (
            "configuration needs a restart; the one in force stays whole"
            if outcome == "needs_restart"
            else "configuration refused; the one in force stays"
        )
        _log.error(message, file=str(self._path), reasons=reasons[:_SHOWN], in_force=self._loaded.version)
