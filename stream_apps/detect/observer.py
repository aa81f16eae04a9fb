# SPDX-License-Identifier: Apache-2.0
"""Detectors that look at everything a batch tells, and remember: what they are, and what they are given.

A :class:`~stream_apps.detect.rule.Detector` names suspects first and judges their events. Scans, beacons and
tunnels have no suspects: any process may do it, and no single event shows it. An :class:`Observer` is called
for each event of its kinds and says in most cases nothing; who did it, and whether that is excluded, is
worked out only when it says something. What it remembers is bounded and counted, keyed by workload or
process, and takes its time from the events, so a replay finds what was found live.

``handlers`` see each event; ``firsts`` see only the first of a batch by a process to an address and port:
what does not count events needs no more, and busy services go to few places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from stream_apps.detect.exclusions import apply_exclusions
from stream_apps.detect.rule import RANK, Rule, Sighting, Suspect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_apps.detect.character import Character
    from stream_apps.detect.exclusions import Exclusion
    from stream_apps.detect.rule import Severity
    from stream_apps.detect.scene import Scene

_CONTAINED: Final = ("POD", "CONTAINER")


class Frame:
    """A batch as observers see it: the scene, and what several of them need, worked out once.

    Attributes:
        scene: The scene.
        offset_ns: Add to a CLOCK_BOOTTIME time to get wall time.
        workload_ids: For each image the id of its workload.
        owners: For each image its process: (node, tgid, start_ns).
        characters: For each image what to think of it, once somebody asked (``detect.character``).
    """

    __slots__ = ("_columns", "characters", "offset_ns", "owners", "scene", "workload_ids")

    def __init__(self, scene: Scene) -> None:
        view = scene.view
        self.scene = scene
        self.offset_ns = view.wall_offset_ns
        self.workload_ids = view.workload_ids
        node = view.node
        self.owners = [(node, each["tgid"], each["start_ns"]) for each in view.processes]
        self._columns: dict[str, list[Any]] = {}
        self.characters: list[Character | None] = [None] * len(self.owners)

    def contained(self, index: int) -> bool:
        """Whether an image runs in a pod or container, and not on the host itself."""
        view = self.scene.view
        return view.workloads[view.workload_of[index]]["kind"] in _CONTAINED

    def pool(self, index: int) -> str:
        """Who shares a resolver's answers with an image: its pod or container, or the whole host."""
        return self.workload_ids[index] if self.contained(index) else f"host/{self.scene.view.node}"

    def column(self, name: str) -> list[Any]:
        """A place for each image, None at first; ``name`` is whose. For what is worked out once a batch."""
        found = self._columns.get(name)
        if found is None:
            found = self._columns[name] = [None] * len(self.workload_ids)
        return found

    def once(self, name: str, index: int, make: Callable[[Scene, int], Any]) -> Any:
        """What a function says of an image, asked once a batch; ``name`` is the function's own."""
        column = self.column(name)
        found = column[index]
        if found is None:
            found = column[index] = make(self.scene, index)
        return found


Handler = Callable[[Frame, int, Mapping[str, Any]], Sighting | None]
"""Given the batch, the index of who did it, and the event."""


class Observer:
    """Base of all observers: exclusions, severity, who is to blame.

    Args:
        rule: What is the same for all alerts.
        exclusions: What is known and wanted.
        severity: The highest to give; None: the rule's own.

    Attributes:
        settings: Names of the attributes that come from the configuration; the others are memory.
    """

    settings: ClassVar[tuple[str, ...]] = ("rule", "_exclusions")

    def __init__(
        self, rule: Rule, exclusions: Sequence[Exclusion] = (), severity: Severity | None = None
    ) -> None:
        self.rule = replace(rule, severity=severity) if severity else rule
        self._exclusions = tuple(exclusions)

    def begin(self, frame: Frame, first_ns: int) -> None:
        """Take up a batch; ``first_ns`` is the wall time of its first event."""

    def handlers(self) -> Mapping[str, Handler]:
        """By record name, what sees each event."""
        return {}

    def firsts(self) -> Mapping[str, Handler]:
        """By record name, what sees the first event of a batch by a process to an address and port."""
        return {}

    def metrics(self) -> Mapping[str, int]:
        """What was forgotten (``*_evicted``) and how much is kept (``*_now``)."""
        return {}

    def capped(self, severity: Severity) -> Severity:
        """A severity, or the highest this rule gives."""
        return min(severity, self.rule.severity, key=RANK.__getitem__)

    def blame(self, frame: Frame, index: int, event: Mapping[str, Any], sighting: Sighting) -> Suspect | None:
        """Who did what was seen; None when that is excluded."""
        scene = frame.scene
        suspect = self.suspect(frame, index)
        remaining = apply_exclusions(scene, suspect, self._exclusions)
        if not remaining:
            return None if remaining is None else suspect
        destination = sighting.destination
        if destination is None:
            address, name = None, sighting.dns_name if self.trusts_names(frame, event) else None
        else:
            known = scene.name_behind(index, destination.address, event["ktime_ns"])
            address, name = destination.address, known.name if known and known.trusted else None
        return None if any(each.covers_destination(address, name) for each in remaining) else suspect

    def left_out(self, frame: Frame, index: int) -> bool:
        """Whether an image is excluded wherever it goes: then nothing needs to be remembered of it."""
        excluded: bool = frame.once(self.rule.id, index, self._excludes)
        return excluded

    def _excludes(self, scene: Scene, index: int) -> bool:
        return apply_exclusions(scene, suspect_of(scene, index), self._exclusions) is None

    def suspect(self, frame: Frame, index: int) -> Suspect:
        """Who is behind an image's deed, and what would be cut for it."""
        return suspect_of(frame.scene, index)

    @staticmethod
    def trusts_names(frame: Frame, event: Mapping[str, Any]) -> bool:
        """Whether a question went to a resolver whose answers may excuse something."""
        server = event.get("server_address")
        return server is not None and frame.scene.names.is_trusted(server)


def suspect_of(scene: Scene, index: int) -> Suspect:
    """A process that is to blame: the tree below the service where there is one, else itself."""
    descent = scene.descents[index]
    if descent is None or not descent.cut_root:
        return Suspect(index, cut_root=index)
    return Suspect(index, descent.cut_root, descent.service, descent.tool)
