# SPDX-License-Identifier: Apache-2.0
"""Why a flow of a workload passes or does not: which profiles, which rule, which conflict. Pure.

Input: the selections of a workload (workloads.py) and a flow or bind. Output: an :class:`Explanation`, as
text or as a document. It asks the compiled rules (decide.py), as the kernel does, never the profile's text.
Failure: :class:`~sensor.policy.errors.PolicyRefused` where the sensor would refuse, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sensor.policy import layout
from sensor.policy.decide import Verdict, decide, decide_bind
from sensor.policy.layers import Answer, Asked, Flow, RuleTries
from sensor.policy.policy import union_of, unknown_policy
from sensor.policy.reasons import REASONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sensor.policy.policy import Policy, Selection
    from sensor.policy.profile import Grant, Program

MODES: Final = {layout.MODE_NONE: "ignore", layout.MODE_ALERT: "alert", layout.MODE_ENFORCE: "enforce"}


@dataclass(frozen=True, slots=True)
class Bind:
    """A bind to a local port, which is no flow yet.

    Attributes:
        protocol: IP protocol number.
        port: The port.
    """

    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one profile says.

    Attributes:
        profile: Its key.
        generation: Its generation.
        mode: ignore, alert or enforce; of the program, if it names it.
        rules: Whose rules these are: the program's, or the default.
        spec: Where in the profile they are.
        expired: It does not count any more.
        asked: What its layers said to the flow.
    """

    profile: str
    generation: int
    mode: str
    rules: str
    spec: str
    expired: bool
    asked: Asked | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """All of it.

    Attributes:
        workload: Who was asked about.
        program: Which program; None: one that no profile names.
        mode: What is done with what no rule allows.
        contributions: Of each profile that has to do with it.
        conflicts: Where profiles differ, and what holds.
        verdict: What happens to the flow; None when none was given.
    """

    workload: str
    program: Program | None
    mode: str
    contributions: tuple[Contribution, ...]
    conflicts: tuple[str, ...]
    verdict: Verdict | None

    def lines(self) -> Iterator[str]:
        """Text for a person."""
        of_program = f" {self.program}" if self.program else ""
        count = len(self.contributions)
        profiles = f"{count} profile{'' if count == 1 else 's'}"
        yield f"workload {self.workload}{of_program}: {profiles}, mode {self.mode}"
        for each in self.contributions:
            ended = ", expired: does not count" if each.expired else ""
            known = f"{each.profile} (generation {each.generation}, {each.mode}{ended})"
            yield f"  {known}: {each.rules}, {each.spec}"
            for answer in each.asked.answers if each.asked else ():
                yield f"    {answer.layer}: {_said(answer)}"
        for conflict in self.conflicts:
            yield f"  conflict: {conflict}"
        if self.verdict:
            yield self.outcome()

    def outcome(self) -> str:
        """The verdict in one line."""
        verdict = self.verdict
        if verdict is None:
            return "no flow was given"
        if not verdict.governed:
            ignored = any(not each.expired for each in self.contributions)
            return "allowed: mode ignore" if ignored else "allowed: no profile governs it"
        if verdict.reason:
            return f"{verdict.outcome}: {REASONS[verdict.reason]}"
        passing = [each.profile for each in self.contributions if each.asked and not each.asked.stopped]
        return f"allowed by {', '.join(passing)}" if passing else "allowed: the loopback is free"

    def document(self) -> dict[str, Any]:
        """The same for programs."""
        verdict = self.verdict
        return {
            "workload": self.workload,
            "program": str(self.program) if self.program else None,
            "mode": self.mode,
            "profiles": [_contribution_document(each) for each in self.contributions],
            "conflicts": list(self.conflicts),
            "verdict": verdict
            and {"outcome": verdict.outcome, "reason": verdict.reason, "text": self.outcome()},
        }


class Explainer:
    """The selections of one workload, compiled once and asked often."""

    def __init__(self, selections: Sequence[Selection], now_ns: int) -> None:
        """Unite and compile them.

        Args:
            selections: The profiles that have to do with the workload.
            now_ns: Wall time: what has expired by then does not count.

        Raises:
            PolicyRefused: The profiles cannot be united; the sensor says the same.
        """
        self._selections = selections
        self._now_ns = now_ns
        self._policy = union_of(selections, now_ns)
        self._tries = _tries(selections, self._policy)

    def verdict(self, asked: Flow | Bind, program: Program | None) -> Verdict:
        """What happens to a flow or bind of a program, without the words."""
        return _verdict(self._policy, asked, self._tries, program)

    def explain(self, workload: str, asked: Flow | Bind | None, program: Program | None) -> Explanation:
        """Explain it; see :func:`explain`."""
        grants = self._policy.grants_of(program) if self._policy else None
        verdict = self.verdict(asked, program) if asked else None
        trace = dict(verdict.trace) if verdict else {}
        contributions = tuple(
            _contribution(each, program, grant, trace, self._now_ns)
            for each in self._selections
            if (grant := each.grant(program))
        )
        return Explanation(
            workload,
            program,
            MODES[grants.mode] if grants else MODES[layout.MODE_NONE],
            contributions,
            tuple(_conflicts([each for each in contributions if not each.expired])),
            verdict,
        )


def explain(
    workload: str,
    selections: Sequence[Selection],
    asked: Flow | Bind | None,
    program: Program | None,
    now_ns: int,
) -> Explanation:
    """Explain what a workload, or a program in it, may do.

    Args:
        workload: Its name, for the text.
        selections: The profiles that have to do with it.
        asked: What it wants to do; None: only who selects it.
        program: Which program wants it.
        now_ns: Wall time.

    Raises:
        PolicyRefused: The profiles cannot be united; the sensor says the same.
    """
    return Explainer(selections, now_ns).explain(workload, asked, program)


def explain_unknown(workload: str, mode: str, asked: Flow | Bind | None) -> Explanation:
    """What a pod may do that no profile decision is known for yet.

    Args:
        workload: Its name, for the text.
        mode: The sensor's ``--unknown-workload``.
        asked: What it wants to do.
    """
    policy = unknown_policy(mode)
    verdict = _verdict(policy, asked, {}, None) if asked else None
    return Explanation(
        workload, None, MODES[policy.default.mode if policy else layout.MODE_NONE], (), (), verdict
    )


def _verdict(
    policy: Policy | None, asked: Flow | Bind, tries: dict[bytes, RuleTries], program: Program | None
) -> Verdict:
    if isinstance(asked, Bind):
        return decide_bind(policy, asked.protocol, asked.port, tries, program)
    return decide(policy, asked, tries, program)


def _tries(selections: Sequence[Selection], policy: Policy | None) -> dict[bytes, RuleTries]:
    wanted = policy.rule_sets() if policy else set()
    return {
        rules.content: RuleTries(rules) for each in selections for rules in each.profile.rule_sets(wanted)
    }


def _contribution(
    selection: Selection,
    program: Program | None,
    grant: Grant,
    trace: Mapping[bytes, Asked],
    now_ns: int,
) -> Contribution:
    profile, expired = selection.profile, selection.profile.expired(now_ns)
    whose, spec = _whose(selection, program, grant)
    return Contribution(
        profile.key,
        profile.generation,
        MODES[grant.mode],
        whose,
        spec,
        expired,
        None if expired else trace.get(grant.content),
    )


def _whose(selection: Selection, program: Program | None, grant: Grant) -> tuple[str, str]:
    """Whose rules a profile has for a program, and where."""
    for named, of_program in selection.profile.programs.items():
        if of_program is grant and program is not None:
            return f"its rules for {named}", f"spec.processes[{named}].network"
    whose = "its default rules" if selection.executables is None else "its rules for that executable"
    _, default = next(selection.profile.networks())
    return (whose, "spec.default") if default else ("it has no default rules", "so nothing passes")


def _conflicts(contributions: Sequence[Contribution]) -> Iterator[str]:
    modes = {each.mode for each in contributions}
    if len(modes) > 1:
        said = ", ".join(f"{each.profile} says {each.mode}" for each in contributions)
        strictest = max(modes, key=lambda mode: list(MODES.values()).index(mode))
        yield f"{said}: the strictest holds, {strictest}"
    allowing = [each.profile for each in contributions if each.asked and not each.asked.stopped]
    stopping = [each for each in contributions if each.asked and each.asked.stopped]
    if allowing and stopping:
        reasons = ", ".join(
            f"{each.profile} does not ({REASONS[each.asked.stopped]})" for each in stopping if each.asked
        )
        yield f"{', '.join(allowing)} allows it, {reasons}: one that allows is enough"


def _said(answer: Answer) -> str:
    where = f" ({answer.field})" if answer.field else ""
    if answer.reason:
        return f"stopped, {REASONS[answer.reason]}{where}"
    return f"passes by {answer.rule}{where}" if answer.rule else "passes"


def _contribution_document(each: Contribution) -> dict[str, Any]:
    return {
        "profile": each.profile,
        "generation": each.generation,
        "mode": each.mode,
        "rules": each.rules,
        "spec": each.spec,
        "expired": each.expired,
        "layers": [
            {
                "layer": answer.layer,
                "passes": not answer.reason,
                "rule": answer.rule,
                "field": answer.field,
                "text": _said(answer),
            }
            for answer in (each.asked.answers if each.asked else ())
        ],
    }
