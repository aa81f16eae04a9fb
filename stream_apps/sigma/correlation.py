# SPDX-License-Identifier: Apache-2.0
"""Sigma correlations: how often, how many different, together, or one after the other within a time.

Input: matches of rules, with the wall time of their events. Output: whether the correlation holds now. Groups
are kept for each node by itself: a worker reads whole nodes, so what is found does not depend on how nodes
are dealt out to workers. A match that lacks a field of ``group-by`` belongs to no group. A group that has
fired begins anew.

What is kept is bounded by groups and by entries over all groups of a rule; the group that was quiet for
longest is forgotten, and counted.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_apps.detect.rule import Rule
    from stream_apps.sigma.facts import Facts

CorrelationType = Literal["event_count", "value_count", "temporal", "temporal_ordered"]

# Of one rule; a group is a key and a few numbers, so about 10 MB at most.
MAX_GROUPS: Final = 10_000
# Times and values kept over all groups of one rule; 100 bytes each.
MAX_ENTRIES: Final = 200_000
# A higher threshold would keep more than one group's share.
MAX_COUNT: Final = 10_000
# What a value is cut to before it is counted as different; names and addresses are shorter.
_MAX_VALUE: Final = 512

GroupKey = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Correlation:
    """A correlation rule.

    Attributes:
        rule: What its alerts say.
        kind: What is counted.
        members: Ids of the rules it is about, in their order.
        timespan_ns: Within this time.
        group_by: For each member, by its id, the slots whose values make a group.
        least: How many it takes: matches, values, or different rules.
        value_slots: For each member the slot whose values are counted; for value_count.
    """

    rule: Rule
    kind: CorrelationType
    members: tuple[str, ...]
    timespan_ns: int
    group_by: Mapping[str, tuple[int, ...]]
    least: int
    value_slots: Mapping[str, int] = field(default_factory=dict)

    @property
    def slots(self) -> frozenset[int]:
        """All slots it looks at."""
        return frozenset(self.value_slots.values()).union(*self.group_by.values())


class _Group(Protocol):
    """What is kept of one group."""

    def add(self, member: str, value: Any, at_ns: int) -> bool:
        """Take a match; whether the correlation holds with it."""

    def __len__(self) -> int: ...


class _Count:
    """The last times, as many as it takes."""

    __slots__ = ("_times", "_within_ns")

    def __init__(self, rule: Correlation) -> None:
        self._times: deque[int] = deque(maxlen=rule.least)
        self._within_ns = rule.timespan_ns

    def __len__(self) -> int:
        return len(self._times)

    def add(self, _: str, __: Any, at_ns: int) -> bool:
        times = self._times
        times.append(at_ns)
        return len(times) == times.maxlen and at_ns - times[0] <= self._within_ns


class _Values:
    """When each value was last seen, oldest first; never more than it takes."""

    __slots__ = ("_least", "_seen", "_within_ns")

    def __init__(self, rule: Correlation) -> None:
        self._seen: OrderedDict[Any, int] = OrderedDict()
        self._least = rule.least
        self._within_ns = rule.timespan_ns

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, _: str, value: Any, at_ns: int) -> bool:
        if value is None:
            return False
        seen = self._seen
        counted = _counted(value)
        seen[counted] = at_ns
        seen.move_to_end(counted)
        while at_ns - next(iter(seen.values())) > self._within_ns:
            seen.popitem(last=False)
        return len(seen) >= self._least


def _counted(value: Any) -> Any:
    return value[:_MAX_VALUE] if isinstance(value, str) else value


class _Together:
    """When each rule last matched."""

    __slots__ = ("_last", "_least", "_within_ns")

    def __init__(self, rule: Correlation) -> None:
        self._last: dict[str, int] = {}
        self._least = rule.least
        self._within_ns = rule.timespan_ns

    def __len__(self) -> int:
        return len(self._last)

    def add(self, member: str, _: Any, at_ns: int) -> bool:
        last = self._last
        last[member] = at_ns
        return sum(at_ns - each <= self._within_ns for each in last.values()) >= self._least


class _InOrder:
    """For each place in the order, the latest beginning of a run that has come so far."""

    __slots__ = ("_members", "_runs", "_within_ns")

    def __init__(self, rule: Correlation) -> None:
        self._members = rule.members
        self._runs: list[int | None] = [None] * len(rule.members)
        self._within_ns = rule.timespan_ns

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, member: str, _: Any, at_ns: int) -> bool:
        runs = self._runs
        # Backwards: one match takes one place in a run.
        for place in range(len(runs) - 1, -1, -1):
            if self._members[place] != member:
                continue
            begun = at_ns if place == 0 else runs[place - 1]
            if begun is not None and at_ns - begun <= self._within_ns:
                runs[place] = begun
        last = runs[-1]
        return last is not None and at_ns - last <= self._within_ns


_GROUPS: Final[dict[CorrelationType, Callable[[Correlation], _Group]]] = {
    "event_count": _Count,
    "value_count": _Values,
    "temporal": _Together,
    "temporal_ordered": _InOrder,
}


class Correlator:
    """The state of one correlation rule.

    Attributes:
        rule: The rule.
        evicted: Groups forgotten because of the bounds.
    """

    def __init__(
        self, rule: Correlation, max_groups: int = MAX_GROUPS, max_entries: int = MAX_ENTRIES
    ) -> None:
        self.rule = rule
        self.evicted = 0
        self._max_groups = max_groups
        self._max_entries = max_entries
        self._entries = 0
        self._groups: OrderedDict[GroupKey, _Group] = OrderedDict()

    def __len__(self) -> int:
        return len(self._groups)

    def take(self, node: str, member: str, facts: Facts, at_ns: int) -> bool:
        """Take a match of a member; whether the correlation holds with it."""
        rule = self.rule
        key = node, *[_counted(facts.values[slot]) for slot in rule.group_by[member]]
        if None in key:
            return False
        group = self._groups.pop(key, None)
        if group is None:
            group = _GROUPS[rule.kind](rule)
        before = len(group)
        value = facts.values[rule.value_slots[member]] if rule.value_slots else None
        if group.add(member, value, at_ns):
            self._entries -= before
            return True
        self._groups[key] = group
        self._entries += len(group) - before
        while len(self._groups) > self._max_groups or self._entries > self._max_entries:
            _, gone = self._groups.popitem(last=False)
            self._entries -= len(gone)
            self.evicted += 1
        return False
