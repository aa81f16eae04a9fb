# SPDX-License-Identifier: Apache-2.0
"""How much may be cut, so that a wrong rule cannot take a cluster down: rates here, disarmers beside.

A response passes its rule's disarmer, then the fleet's, then the buckets of its policy and of its node.
What a rule's own disarmer holds back does not count against the fleet: a rule that has gone mad must not
silence the others. All are told the time.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from stream_apps.respond.disarmer import Attempt, Change, Disarmer, DisarmerLimits

if TYPE_CHECKING:
    from collections.abc import Iterable

_NS_PER_MINUTE: Final = 60_000_000_000
# Nodes with a bucket at once; one forgotten starts full, as a node that was quiet for a minute has it anyway.
MAX_NODES: Final = 8192
# Rules with a disarmer; SigmaHQ has 3,200 rules of any kind. Beyond it a rule does not respond.
MAX_RULES: Final = 16_384
FLEET: Final = "the fleet"


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket's size.

    Attributes:
        per_minute: How fast it fills.
        burst: How much it holds.
    """

    per_minute: int
    burst: int


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a policy grants the rules it is for.

    Attributes:
        policy: Its name; rules under it share its rate.
        rate: Responses.
        disarmer: Of each rule.
    """

    policy: str
    rate: Rate
    disarmer: DisarmerLimits


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a response must not be now."""

    kind: Literal["rate-limited", "disarmed", "dismantled"]
    reason: str


class TokenBucket:
    """One bucket, full at first."""

    __slots__ = ("_filled_ns", "_rate", "_tokens")

    def __init__(self, rate: Rate, now_ns: int) -> None:
        self._rate = rate
        self._tokens = float(rate.burst)
        self._filled_ns = now_ns

    def retune(self, rate: Rate) -> None:
        """Another rate; what is in it stays, as far as it fits."""
        self._rate = rate
        self._tokens = min(self._tokens, float(rate.burst))

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


class Limits:
    """All limits of a stream app.

    Args:
        per_node: Bucket of each node.
        fleet: Over all rules; None: no such limit.
    """

    def __init__(self, per_node: Rate, fleet: DisarmerLimits | None = None) -> None:
        self._per_node = per_node
        self._nodes: OrderedDict[str, TokenBucket] = OrderedDict()
        self._policies: dict[str, TokenBucket] = {}
        self._disarmers: dict[tuple[str, DisarmerLimits], Disarmer] = {}
        self._fleet = Disarmer(fleet, FLEET) if fleet else None
        self._gone: list[Change] = []

    def disarmed_rules(self) -> list[str]:
        """Rules that are disarmed or dismantled, and the fleet when it is."""
        return sorted({each.name for each in self._all() if each.disarmed})

    def changes(self, now_ns: int) -> list[Change]:
        """Who was disarmed, dismantled or armed again since the last call."""
        gone, self._gone = self._gone, []
        return gone + [change for each in self._all() for change in each.changes(now_ns)]

    def load_again(
        self,
        per_node: Rate,
        fleet: DisarmerLimits,
        allowances: tuple[Iterable[Allowance], Iterable[Allowance]],
        now_ns: int,
    ) -> None:
        """The configuration was loaded again: other limits over what was counted.

        Args:
            per_node: Bucket of each node.
            fleet: Over all rules.
            allowances: Of all policies, before and now; a policy is known by its name.
            now_ns: Wall time.
        """
        before, now = allowances
        named = {each.policy: each for each in now}
        self._per_node = per_node
        for bucket in self._nodes.values():
            bucket.retune(per_node)
        self._policies = {name: bucket for name, bucket in self._policies.items() if name in named}
        for name, bucket in self._policies.items():
            bucket.retune(named[name].rate)
        # Policies with equal limits share a rule's disarmer; they may have different ones now.
        heirs: dict[DisarmerLimits, dict[DisarmerLimits, None]] = {}
        for each in before:
            if each.policy in named:
                heirs.setdefault(each.disarmer, {})[named[each.policy].disarmer] = None
        disarmers, self._disarmers = self._disarmers, {}
        for (rule, limits), disarmer in disarmers.items():
            self._hand_down(rule, disarmer, tuple(heirs.get(limits, ())), now_ns)
        if self._fleet is not None:
            self._fleet.load_again(fleet, now_ns)

    def _hand_down(
        self, rule: str, disarmer: Disarmer, heirs: tuple[DisarmerLimits, ...], now_ns: int
    ) -> None:
        if not heirs and disarmer.disarmed:
            self._gone.append(Change(rule, "armed", now_ns, "the policy it was disarmed under is gone"))
        for number, limits in enumerate(heirs):
            if (rule, limits) in self._disarmers and not disarmer.disarmed:
                continue
            heir = disarmer if number == 0 else copy.deepcopy(disarmer)
            heir.load_again(limits, now_ns)
            self._disarmers[rule, limits] = heir

    def held_back(self, allowance: Allowance, rule: str) -> Objection | None:
        """What a disarmer says now, without an attempt: for what has waited for its say."""
        mine = self._disarmers.get((rule, allowance.disarmer))
        for each in (mine, self._fleet):
            if each is not None and each.disarmed:
                return _objection(each)
        return None

    def objection(self, allowance: Allowance, rule: str, attempt: Attempt, now_ns: int) -> Objection | None:
        """Take an attempt of a rule; why it must not be, or None, and then it has used its tokens."""
        held = self._disarmed(allowance, rule, attempt, now_ns)
        if held is not None:
            return held
        by_node = self._nodes.get(attempt.node)
        if by_node is None:
            by_node = self._nodes[attempt.node] = TokenBucket(self._per_node, now_ns)
            if len(self._nodes) > MAX_NODES:
                self._nodes.popitem(last=False)
        self._nodes.move_to_end(attempt.node)
        by_policy = self._policies.get(allowance.policy)
        if by_policy is None:
            by_policy = self._policies[allowance.policy] = TokenBucket(allowance.rate, now_ns)
        if not by_policy.has(now_ns):
            return Objection("rate-limited", f"the rate limit of {allowance.policy} is used up")
        if not by_node.has(now_ns):
            return Objection("rate-limited", "the node's rate limit is used up")
        by_policy.take()
        by_node.take()
        return None

    def _disarmed(self, allowance: Allowance, rule: str, attempt: Attempt, now_ns: int) -> Objection | None:
        key = rule, allowance.disarmer
        mine = self._disarmers.get(key)
        if mine is None:
            if len(self._disarmers) >= MAX_RULES:
                return Objection("rate-limited", f"{MAX_RULES} rules respond already")
            mine = self._disarmers[key] = Disarmer(allowance.disarmer, rule)
        for each in (mine, self._fleet):
            if each is not None and not each.allows(attempt, now_ns):
                return _objection(each)
        return None

    def _all(self) -> Iterable[Disarmer]:
        yield from self._disarmers.values()
        if self._fleet is not None:
            yield self._fleet


def _objection(disarmer: Disarmer) -> Objection:
    return Objection("dismantled" if disarmer.dismantled else "disarmed", disarmer.says())
