# SPDX-License-Identifier: Apache-2.0
"""One replay: encoded batches in, a report out. Pure: no Kafka, no clock; time is that of the messages.

The pipeline is the one that runs live, and decides as it does there, so what it says has the same ids; its
orders and what waits for a person go nowhere: nothing here keeps them. Batches from before the time asked for
are only remembered, as after a restart, so that what was told then is not news again.

Failure: a message that cannot be used is counted and named with its place; the next one is taken.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from schemas.codec import decode_as
from schemas.errors import SchemaError
from schemas.topics import EVENTS
from stream_apps.correlate.ledger import Totals

if TYPE_CHECKING:
    from stream_apps.pipeline import Outcome, Pipeline
    from stream_apps.replay.tally import Tally

# Unusable messages that are named one by one; all are counted.
MAX_NAMED: Final = 50
# Of their reasons, which may quote what is in them.
MAX_REASON_CHARACTERS: Final = 400
# Time passes for the pipeline in steps like this; live it is one second, which a week has 600,000 of.
TICK_NS: Final = 5_000_000_000


class Received(NamedTuple):
    """A message of ``nsp.events``.

    Attributes:
        place: ``topic/partition@offset``.
        value: Its bytes; None: it has none.
        wall_ns: When it was written, to the millisecond.
    """

    place: str
    value: bytes | None
    wall_ns: int


class Beside(Protocol):
    """Somebody else who looks at every batch: what profiles would have stopped."""

    def batch(self, batch: dict[str, Any], *, counts: bool) -> None:
        """Look at a batch; without ``counts`` only remember."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """A message, or a part of it, that could not be used."""

    place: str
    stage: str
    reason: str


@dataclass(slots=True)
class Figures:
    """What was read.

    Attributes:
        messages: Messages, those only remembered left out.
        remembered: Messages that were only remembered.
        size: Bytes of all.
        events: Events decided on.
        duplicates: Events that were there twice.
        unusable: Messages that could not be used, or not all of them, by stage.
        named: Some of them.
        first_ns: Wall time of the first message decided on.
        last_ns: Of the last.
    """

    messages: int = 0
    remembered: int = 0
    size: int = 0
    events: int = 0
    duplicates: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    named: list[Unusable] = field(default_factory=list)
    first_ns: int = 0
    last_ns: int = 0


class Replay:
    """Takes messages in order of time."""

    def __init__(self, pipeline: Pipeline, tally: Tally, since_ns: int, beside: Beside | None = None) -> None:
        """Wire it.

        Args:
            pipeline: A fresh one; nobody else may use it.
            tally: Where what it says is counted.
            since_ns: Wall time; messages before it are only remembered.
            beside: Who else looks at each batch.
        """
        self.pipeline = pipeline
        self.tally = tally
        self.figures = Figures()
        self._since_ns = since_ns
        self._beside = beside
        self._ticked_ns = 0
        self._before: dict[str, Totals] | None = None
        self._before_all = Totals()

    def take(self, message: Received) -> None:
        """Take a message."""
        figures = self.figures
        counts = message.wall_ns >= self._since_ns
        if counts:
            if self._before is None:
                self._begin(message.wall_ns)
            figures.messages += 1
            figures.last_ns = max(figures.last_ns, message.wall_ns)
        else:
            figures.remembered += 1
        figures.size += len(message.value or b"")
        try:
            if message.value is None:
                raise SchemaError("an empty message")  # noqa: TRY301 - one place names what is not a batch
            batch = decode_as(EVENTS.value, message.value)
        except SchemaError as error:
            self._unusable(message, "decode", str(error))
            return
        try:
            outcome = self.pipeline.process(batch, message.wall_ns, replaying=not counts)
            if self._beside is not None:
                self._beside.batch(batch, counts=counts)
        except Exception as error:  # noqa: BLE001 - as live: whatever a batch triggers, the next one is taken
            reason = f"{type(error).__name__}: {error}"
            self._unusable(message, getattr(error, "stage", "detect"), reason)
            return
        for each in outcome.errors:
            self._unusable(message, each.stage, f"{each.place}: {each.reason}")
        if counts:
            self._count(outcome)
        self._tick(message.wall_ns, counts=counts)

    def losses(self) -> tuple[Totals, list[tuple[str, Totals]]]:
        """What is missing of the time asked for: of all nodes, and of each that misses anything."""
        before = self._before or {}
        nodes = [(node, _since(totals, before.get(node))) for node, totals in self.pipeline.ledger.by_node()]
        missing = [(node, each) for node, each in nodes if each.lost or each.unaccounted or each.gaps]
        return _since(self.pipeline.ledger.totals(), self._before_all), sorted(missing)

    def _begin(self, wall_ns: int) -> None:
        self._before = dict(self.pipeline.ledger.by_node())
        self._before_all = self.pipeline.ledger.totals()
        self.figures.first_ns = wall_ns

    def _count(self, outcome: Outcome) -> None:
        self.figures.events += outcome.events
        self.figures.duplicates += outcome.duplicates
        for alert in outcome.alerts:
            self.tally.alert(alert)

    def _tick(self, wall_ns: int, *, counts: bool) -> None:
        if wall_ns - self._ticked_ns < TICK_NS:
            return
        self._ticked_ns = wall_ns
        outcome = self.pipeline.tick(wall_ns)
        if counts:
            for alert in outcome.alerts:
                self.tally.alert(alert)

    def _unusable(self, message: Received, stage: str, reason: str) -> None:
        figures = self.figures
        figures.unusable[stage] += 1
        if len(figures.named) < MAX_NAMED:
            figures.named.append(Unusable(message.place, stage, reason[:MAX_REASON_CHARACTERS]))


def _since(now: Totals, before: Totals | None) -> Totals:
    """What an account grew by; one that began anew meanwhile has nothing before."""
    if before is None or now.seen < before.seen:
        return now
    return Totals(*(max(0, getattr(now, name) - getattr(before, name)) for name in Totals.__slots__))
