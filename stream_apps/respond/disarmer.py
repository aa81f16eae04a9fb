# SPDX-License-Identifier: Apache-2.0
"""The disarmer: a rule that would cut more than a person would believe stops responding.

Counted are distinct workloads, executables and process trees that a rule wants to cut, within a window.
Beyond one of the limits the rule is *disarmed* until a whole window passed without it wanting to cut
anything; it goes on alerting. A rule that is still new then is *dismantled*: armed again only when the
configuration is loaded again. The same, over all rules together, guards the fleet. Pure; told the time.

The price is known: who can exploit faster than the limit disarms the rule. That is why the limits count
trees in the hundreds, why a put-off response is decided again by the next evidence, and why a disarmed rule
is an alert of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Literal

_NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class DisarmerLimits:
    """How much is too much.

    Attributes:
        max_workloads: Distinct workloads.
        max_trees: Distinct process trees.
        max_executables: Distinct executables of what would be cut.
        window_ns: Within so long.
        new_for_ns: From its first attempt on a rule is new for so long.
    """

    max_workloads: int
    max_trees: int
    max_executables: int = 10_000
    window_ns: int = 60 * _NS_PER_S
    new_for_ns: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """What would be cut.

    Attributes:
        node: Where.
        workload: Workload id.
        tree: Subject.
        executable: Path; empty where no process would be cut.
    """

    node: str
    workload: str
    tree: str
    executable: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A disarmer that is in another state than before.

    Attributes:
        name: Whose: a rule id, or the fleet.
        state: What it is now.
        at_ns: Since when, wall ns.
        reason: Why, for people.
    """

    name: str
    state: Literal["disarmed", "dismantled", "armed"]
    at_ns: int
    reason: str


class _Recent:
    """Distinct keys of the window; never more than one above the limit, which is all that matters."""

    def __init__(self, limit: int, window_ns: int) -> None:
        self.limit = limit
        self._window_ns = window_ns
        self._seen: OrderedDict[str, int] = OrderedDict()

    def add(self, key: str, now_ns: int) -> bool:
        """Take a key; whether there are too many."""
        self.forget_old(now_ns)
        self._seen[key] = now_ns
        self._seen.move_to_end(key)
        if len(self._seen) > self.limit + 1:
            self._seen.popitem(last=False)
        return len(self._seen) > self.limit

    def retune(self, limit: int, window_ns: int) -> None:
        """Another limit and window, over what was seen."""
        self.limit, self._window_ns = limit, window_ns
        while len(self._seen) > limit + 1:
            self._seen.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        self._seen.clear()

    def forget_old(self, now_ns: int) -> int:
        """Drop what is out of the window; how many are left."""
        while self._seen:
            key, seen_ns = next(iter(self._seen.items()))
            if now_ns - seen_ns < self._window_ns:
                break
            del self._seen[key]
        return len(self._seen)


class Disarmer:
    """Disarms one rule, or the fleet.

    Attributes:
        name: Whose it is.
        disarmed: Whether nothing may be cut now.
        dismantled: Whether it stays so.
    """

    def __init__(self, limits: DisarmerLimits, name: str = "") -> None:
        self.name = name
        self.disarmed = False
        self.dismantled = False
        self._limits = limits
        window_ns = limits.window_ns
        self._workloads = _Recent(limits.max_workloads, window_ns)
        self._trees = _Recent(limits.max_trees, window_ns)
        self._executables = _Recent(limits.max_executables, window_ns)
        self._first_ns: int | None = None
        self._changes: list[Change] = []

    def allows(self, attempt: Attempt, now_ns: int) -> bool:
        """Take an attempt to cut; whether it may be."""
        if self._first_ns is None:
            self._first_ns = now_ns
        self._arm_again(now_ns)
        too_many = self._workloads.add(attempt.workload, now_ns)
        too_many |= self._trees.add(attempt.tree, now_ns)
        if attempt.executable:
            too_many |= self._executables.add(attempt.executable, now_ns)
        if too_many and not self.disarmed:
            self.disarmed = True
            self.dismantled = now_ns - self._first_ns < self._limits.new_for_ns
            state: Literal["disarmed", "dismantled"] = "dismantled" if self.dismantled else "disarmed"
            self._changes.append(Change(self.name, state, now_ns, self.says()))
        return not self.disarmed

    def load_again(self, limits: DisarmerLimits, now_ns: int) -> None:
        """The configuration was loaded again, with these limits: who was dismantled begins anew.

        Who is disarmed stays so until its window is empty, and what was counted counts.
        """
        self._limits = limits
        recent = (
            (self._workloads, limits.max_workloads),
            (self._trees, limits.max_trees),
            (self._executables, limits.max_executables),
        )
        for each, limit in recent:
            each.retune(limit, limits.window_ns)
        if self.dismantled:
            for each, _ in recent:
                each.clear()
            self.disarmed = self.dismantled = False
            self._first_ns = None
            self._changes.append(Change(self.name, "armed", now_ns, "the configuration was loaded again"))

    def changes(self, now_ns: int) -> list[Change]:
        """What changed since the last call, time included."""
        self._arm_again(now_ns)
        found, self._changes = self._changes, []
        return found

    def says(self) -> str:
        """Why nothing is cut."""
        limits = self._limits
        seconds = limits.window_ns // _NS_PER_S
        until = (
            "the rule is new, and dismantled until the configuration is loaded again"
            if self.dismantled
            else f"armed again after {seconds} s without an attempt"
        )
        return (
            f"{'dismantled' if self.dismantled else 'disarmed'}: more than {limits.max_workloads} workloads, "
            f"{limits.max_executables} executables or {limits.max_trees} process trees within {seconds} s; "
            f"{until}"
        )

    def _arm_again(self, now_ns: int) -> None:
        if self.disarmed and not self.dismantled and not self._trees.forget_old(now_ns):
            self.disarmed = False
            reason = f"no attempt for {self._limits.window_ns // _NS_PER_S} s"
            self._changes.append(Change(self.name, "armed", now_ns, reason))
