# SPDX-License-Identifier: Apache-2.0
"""Rules that were loaded, and all of them together as the detector uses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stream_apps.sigma.index import RuleIndex
from stream_apps.sigma.taxonomy import RECORDS
from stream_apps.sigma.tree import slots_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_apps.detect.rule import Rule
    from stream_apps.sigma.correlation import Correlation
    from stream_apps.sigma.taxonomy import Stream
    from stream_apps.sigma.tree import Node


# Before the UUID of each rule in alerts: what is said about all Sigma rules is said with it.
ID_PREFIX: Final = "sigma."


@dataclass(frozen=True, slots=True)
class EventRule:
    """A rule on single events.

    Attributes:
        rule: What its alerts say: id, title, severity, ATT&CK ids.
        name: The name that correlations may call it by, or empty.
        stream: Where it is judged.
        condition: When it matches.
        alerts: Whether a match is an alert by itself; not, where it only serves correlations.
    """

    rule: Rule
    name: str
    stream: Stream
    condition: Node
    alerts: bool = True


class RuleSet:
    """All rules in force. Never changed: a change makes another.

    Attributes:
        rules: Rules on single events.
        correlations: Rules on several.
        indexes: By record kind, the rules judged there.
        needed: Slots they look at.
    """

    def __init__(self, rules: Sequence[EventRule] = (), correlations: Sequence[Correlation] = ()) -> None:
        self.rules = tuple(rules)
        self.correlations = tuple(correlations)
        by_stream: dict[Stream, list[EventRule]] = {}
        for each in self.rules:
            by_stream.setdefault(each.stream, []).append(each)
        self.indexes = {
            kind: index
            for stream, members in by_stream.items()
            for index in (RuleIndex(members),)
            for kind in RECORDS[stream]
        }
        slots = [slots_of(each.condition) for each in self.rules]
        self.needed = frozenset().union(*slots, *(each.slots for each in self.correlations))

    def __len__(self) -> int:
        return len(self.rules) + len(self.correlations)
