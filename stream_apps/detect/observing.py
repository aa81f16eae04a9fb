# SPDX-License-Identifier: Apache-2.0
"""All observers over one batch: who is called for which event.

Input: the events of a batch, one by one. Output: what was seen, with who did it. Failure: an observer that
raises is reported with the event, and the others go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_apps.detect.observer import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stream_apps.detect.observer import Handler, Observer
    from stream_apps.detect.rule import Rule, Sighting, Suspect
    from stream_apps.detect.scene import Scene

Called = tuple["Observer", "Handler"]
Seen = tuple["Rule", "Suspect", "Sighting"]

_NOTHING: Final[tuple[Seen, ...]] = ()


class Observing:
    """Calls the observers. Not thread-safe; one batch at a time.

    Args:
        observers: Who looks.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        self._each = _by_kind([(each, each.handlers()) for each in observers])
        self._first = _by_kind([(each, each.firsts()) for each in observers])
        self.kinds = frozenset(self._each) | frozenset(self._first)
        self._met: set[tuple[str, int, str, int]] = set()
        self._frame: Frame | None = None

    def begin(self, scene: Scene, first_boot_ns: int) -> None:
        """Take up a batch, whose first event is of that time."""
        self._frame = frame = Frame(scene)
        self._met = set()
        for each in self._observers:
            each.begin(frame, first_boot_ns + frame.offset_ns)

    def see(
        self, kind: str, process: int, event: Mapping[str, Any], report: Callable[[str, Exception], None]
    ) -> Sequence[Seen]:
        """Show an event of one of :attr:`kinds`.

        Args:
            kind: Its record name.
            process: Index of who did it.
            event: It.
            report: Told the rule and the error of an observer that raised.
        """
        frame = self._frame
        called = self._each.get(kind, ())
        if kind in self._first:
            place = (kind, process, event["remote_address"], event["remote_port"])
            if place not in self._met:
                self._met.add(place)
                called = (*self._first[kind], *called)
        if frame is None or not called:
            return _NOTHING
        found: list[Seen] | None = None
        for observer, handler in called:
            try:
                sighting = handler(frame, process, event)
                if sighting is None:
                    continue
                suspect = observer.blame(frame, process, event, sighting)
            except Exception as error:  # noqa: BLE001 - one observer's fault; the others go on
                report(observer.rule.id, error)
                continue
            if suspect is not None:
                found = found or []
                found.append((observer.rule, suspect, sighting))
        return found or _NOTHING

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
