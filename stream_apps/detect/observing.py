# SPDX-License-Identifier: Apache-2.0
"""All observers over one batch: who is called for which event.

Input: the events of a batch, one by one. Output: what was seen, with who did it. Failure: an observer that
raises is reported with the event, and the others go on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from stream_apps.detect.observer import Frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.detect.observer import Handler, Observer
    from stream_apps.detect.rule import Rule, Sighting, Suspect
    from stream_apps.detect.scene import Scene

Called = tuple["Observer", "Handler"]
Seen = tuple["Rule", "Suspect", "Sighting"]

Fault = tuple[str, Exception, "tuple[str, Mapping[str, Any]] | None"]
"""Rule, error, and the event it came at; None: at the beginning of the batch."""

# What no process did is one finding a rule and node.
_NOBODY: Final = 1
_NOTHING: Final[tuple[Seen, ...]] = ()


class Observing:
    """Calls the observers. Not thread-safe; one batch at a time.

    Args:
        observers: Who looks.

    Attributes:
        kinds: Record names that anybody wants to see.
        faults: What observers raised in this batch.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        self._each = _by_kind([(each, each.handlers()) for each in observers])
        self._first = _by_kind([(each, each.firsts()) for each in observers])
        self._all = {kind: (*first, *self._each.get(kind, ())) for kind, first in self._first.items()}
        self.kinds = frozenset(self._each) | frozenset(self._first)
        self.faults: list[Fault] = []
        self._met: dict[str, set[tuple[int, str, int]]] = {}
        self._frame: Frame | None = None

    def begin(self, scene: Scene, first_boot_ns: int) -> None:
        """Take up a batch, whose first event is of that time."""
        self._frame = frame = Frame(scene)
        self._met = {kind: set() for kind in self._first}
        self.faults = []
        for each in self._observers:
            try:
                each.begin(frame, first_boot_ns + frame.offset_ns)
            except Exception as error:  # noqa: BLE001 - as in see
                self.faults.append((each.rule.id, error, None))

    def see(self, kind: str, process: int, event: Mapping[str, Any]) -> Sequence[Seen]:
        """Show an event of one of :attr:`kinds`: by whom, and what was seen. Mostly nothing."""
        frame = self._frame
        if frame is None:
            return _NOTHING
        met = self._met.get(kind)
        if met is None:
            called = self._each.get(kind, ())
        else:
            place = (process, event["remote_address"], event["remote_port"])
            if place in met:
                called = self._each.get(kind, ())
            else:
                met.add(place)
                called = self._all[kind]
        found: Sequence[Seen] = _NOTHING
        for observer, handler in called:
            try:
                sighting = handler(frame, process, event)
                if sighting is not None:
                    suspect = observer.blame(frame, process, event, sighting)
                    if suspect is not None:
                        if not suspect.cut_root:
                            sighting = replace(sighting, group=_NOBODY)
                        found = (*found, (observer.rule, suspect, sighting))
            except Exception as error:  # noqa: BLE001 - one observer's fault; the others go on
                self.faults.append((observer.rule.id, error, (kind, event)))
        return found

    def metrics(self) -> Mapping[tuple[str, str], int]:
        """Figures of all observers, each named after its rule."""
        return {
            ("detect", f"{each.rule.id.removeprefix('nsp.').replace('-', '_')}_{name}"): value
            for each in self._observers
            for name, value in each.metrics().items()
        }


def _by_kind(tables: list[tuple[Observer, Mapping[str, Handler]]]) -> dict[str, tuple[Called, ...]]:
    found: dict[str, tuple[Called, ...]] = {}
    for observer, handlers in tables:
        for kind, handler in handlers.items():
            found[kind] = (*found.get(kind, ()), (observer, handler))
    return found
