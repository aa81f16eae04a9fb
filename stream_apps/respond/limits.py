# SPDX-License-Identifier: Apache-2.0
"""How much may be cut, so that a wrong rule cannot take a cluster down.

Two guards, both told the time: token buckets per rule and per node, and the *disarmer*. A rule that would
cut more distinct process trees, or in more distinct workloads, within a minute than a person would believe,
is disarmed, and stays so until a whole minute passed without it wanting to cut anything. It goes on alerting.

The price is known: who can exploit faster than the limit disarms the rule. That is why the limits count
trees in the hundreds, why a put-off response is decided again by the next evidence, and why the metric of
refused responses deserves an alarm.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

_NS_PER_MINUTE: Final = 60_000_000_000
# Nodes with a bucket at once; one forgotten starts full, as a node that was quiet for a minute has it anyway.
MAX_NODES: Final = 8192


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket's size.

    Attributes:
        per_minute: How fast it fills.
        burst: How much it holds.
    """

    per_minute: int
    burst: int


class TokenBucket:
    """One bucket, full at first."""

    __slots__ = ("_filled_ns", "_rate", "_tokens")

    def __init__(self, rate: Rate, now_ns: int) -> None:
        self._rate = rate
        self._tokens = float(rate.burst)
        self._filled_ns = now_ns

    def has(self, now_ns: int) -> bool:
        """Fill up to now; whether a token is there."""
        # A clock that steps back must not empty the bucket, nor fill it twice.
        elapsed_ns = max(0, now_ns - self._filled_ns)
        self._tokens = min(
            float(self._rate.burst), self._tokens + elapsed_ns * self._rate.per_minute / _NS_PER_MINUTE
        )
        self._filled_ns = now_ns
        return self._tokens >= 1.0

    def take(self) -> None:
        """Take the token that ``has`` found."""
        self._tokens -= 1.0


class _Recent:
    """Distinct keys of the last minute; never more than one above the limit, which is all that matters."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._seen: OrderedDict[str, int] = OrderedDict()

    def add(self, key: str, now_ns: int) -> int:
        self.forget_old(now_ns)
        self._seen[key] = now_ns
        self._seen.move_to_end(key)
        if len(self._seen) > self.limit + 1:
            self._seen.popitem(last=False)
        return len(self._seen)

    def forget_old(self, now_ns: int) -> int:
        while self._seen:
            key, seen_ns = next(iter(self._seen.items()))
            if now_ns - seen_ns < _NS_PER_MINUTE:
                break
            del self._seen[key]
        return len(self._seen)


class Disarmer:
    """Disarms one rule.

    Attributes:
        disarmed: Whether it is now.
    """

    def __init__(self, max_workloads: int, max_trees: int) -> None:
        self.disarmed = False
        self._workloads = _Recent(max_workloads)
        self._trees = _Recent(max_trees)

    def objection(self, workload: str, tree: str, now_ns: int) -> str | None:
        """Take an attempt to cut; why it must not be, or None."""
        if self.disarmed and not self._trees.forget_old(now_ns):
            self.disarmed = False
        workloads = self._workloads.add(workload, now_ns)
        trees = self._trees.add(tree, now_ns)
        if workloads > self._workloads.limit or trees > self._trees.limit:
            self.disarmed = True
        if not self.disarmed:
            return None
        return (
            f"disarmed: more than {self._workloads.limit} workloads or {self._trees.limit} process trees "
            "within a minute; armed again after a minute without an attempt"
        )


class Limits:
    """All limits of a stream app.

    Args:
        per_node: Bucket of each node.
    """

    def __init__(self, per_node: Rate) -> None:
        self._per_node = per_node
        self._nodes: OrderedDict[str, TokenBucket] = OrderedDict()
        self._rules: dict[str, TokenBucket] = {}
        self._disarmers: dict[str, Disarmer] = {}

    def disarmed_rules(self) -> list[str]:
        """Rules that are disarmed."""
        return [rule for rule, each in self._disarmers.items() if each.disarmed]

    def add_rule(self, rule: str, rate: Rate, disarmer: Disarmer) -> None:
        """Say what a rule may do."""
        self._disarmers[rule] = disarmer
        self._rules[rule] = TokenBucket(rate, 0)

    def objection(self, rule: str, node: str, workload: str, tree: str, now_ns: int) -> str | None:
        """Take an attempt of a rule; why it must not be, or None, and then it has used its tokens."""
        disarmed = self._disarmers[rule].objection(workload, tree, now_ns)
        if disarmed:
            return disarmed
        by_node = self._nodes.get(node)
        if by_node is None:
            by_node = self._nodes[node] = TokenBucket(self._per_node, now_ns)
            if len(self._nodes) > MAX_NODES:
                self._nodes.popitem(last=False)
        self._nodes.move_to_end(node)
        by_rule = self._rules[rule]
        if not by_rule.has(now_ns):
            return "the rule's rate limit is used up"
        if not by_node.has(now_ns):
            return "the node's rate limit is used up"
        by_rule.take()
        by_node.take()
        return None
