# SPDX-License-Identifier: Apache-2.0
"""Which policy a threat falls under: the first that fits, and why it does.

Input: the policies of the configuration in their order, then one for each rule that has a response of its
own. Output: a :class:`Policy` and the reason in words. A threat that fits none only alerts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from stream_apps.detect.exclusions import has_labels, matches
from stream_apps.respond.disarmer import DisarmerLimits
from stream_apps.respond.limits import Allowance, Rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_apps.detect.rule import Severity
    from stream_apps.respond.threat import ActionName, Threat

_NOTHING: Final = Allowance("", Rate(1, 1), DisarmerLimits(1, 1))


@dataclass(frozen=True, slots=True)
class Match:
    """What a policy is for. Each condition that is given must hold; patterns are shell patterns."""

    rules: tuple[str, ...] = ("*",)
    severities: tuple[Severity, ...] = ()
    namespaces: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()

    def misfit(self, threat: Threat) -> str | None:
        """The first condition that does not hold, or None."""
        pod = threat.pod
        if not matches(self.rules, threat.rule_id):
            return f"not for {threat.rule_id}"
        if self.severities and threat.severity not in self.severities:
            return f"not for {threat.severity}"
        if self.namespaces and (pod is None or not matches(self.namespaces, pod.namespace)):
            return f"not for namespace {pod.namespace}" if pod else "for pods only, and no pod is known"
        if self.workloads and not matches(self.workloads, threat.workload["id"]):
            return f"not for workload {threat.workload['id']}"
        if self.labels and (pod is None or not has_labels(pod.labels, self.labels)):
            return "the pod has other labels" if pod else "for pods only, and no pod is known"
        return None


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be done.

    Attributes:
        name: What people call it.
        match: What it is for.
        actions: What to do, with the time each lasts in ns; the first is the one an alert names.
        min_severity: Below it, only an alert.
        dry_run: Say what would be done.
        approval: Actions that wait for a person.
        min_healthy_replicas: Pods of the same owner that must be left.
        allowance: How much of it.
    """

    name: str = ""
    match: Match = field(default_factory=Match)
    actions: Sequence[tuple[ActionName, int]] = ()
    min_severity: Severity = "HIGH"
    dry_run: bool = True
    approval: frozenset[str] = frozenset()
    min_healthy_replicas: int = 0
    allowance: Allowance = _NOTHING

    @property
    def acts(self) -> list[tuple[ActionName, int]]:
        """The actions that do something."""
        return [each for each in self.actions if each[0] not in {"alert", "none"}]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A policy, and how it came to be chosen: a line for each one that was asked."""

    policy: Policy | None
    explained: tuple[str, ...]


class PolicyBook:
    """All policies, in order."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.policies = tuple(policies)

    def choose(self, threat: Threat) -> Policy | None:
        """The first policy that fits."""
        return next((each for each in self.policies if each.match.misfit(threat) is None), None)

    def named(self, name: str) -> Policy | None:
        """The policy of a name."""
        return next((each for each in self.policies if each.name == name), None)

    def explain(self, threat: Threat) -> Chosen:
        """The same, with a line for each policy that was asked."""
        lines: list[str] = []
        for each in self.policies:
            misfit = each.match.misfit(threat)
            if misfit is None:
                return Chosen(each, (*lines, f"{each.name}: fits"))
            lines.append(f"{each.name}: {misfit}")
        return Chosen(None, (*lines, f"no policy is for {threat.rule_id}: it only alerts"))
