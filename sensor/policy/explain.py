# SPDX-License-Identifier: Apache-2.0
"""Why a flow of a workload passes or does not: which profiles, which rule, which conflict. Pure.

Input: the selections of a workload (workloads.py) and a flow. Output: an :class:`Explanation`, as text or
as a document. It asks the compiled rules (decide.py), as the kernel does, and never the profile's own text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sensor.policy import layout
from sensor.policy.decide import Verdict, decide
from sensor.policy.layers import Answer, Asked, Flow, RuleTries
from sensor.policy.policy import union_of
from sensor.policy.reasons import REASONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sensor.policy.policy import Policy, Selection
    from sensor.policy.profile import Grant, Program

MODES: Final = {layout.MODE_NONE: "ignore", layout.MODE_ALERT: "alert", layout.MODE_ENFORCE: "enforce"}


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one profile says.

    Attributes:
        profile: Its key.
        generation: Its generation.
        mode: ignore, alert or enforce; of the program, if it names it.
        rules: Whose rules these are: the program's, or the default.
        expired: It does not count any more.
        asked: What its layers said to the flow.
    """

    profile: str
    generation: int
    mode: str
    rules: str
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
        yield f"workload {self.workload}{of_program}: {len(self.contributions)} profiles, mode {self.mode}"
        for each in self.contributions:
            ended = ", expired: does not count" if each.expired else ""
            yield f"  {each.profile} (generation {each.generation}, {each.mode}{ended}): {each.rules}"
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
            return "allowed: no profile governs it"
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


def explain(
    workload: str,
    selections: Sequence[Selection],
    flow: Flow | None,
    program: Program | None,
    now_ns: int,
) -> Explanation:
    """Explain what a workload, or a program in it, may do.

    Args:
        workload: Its name, for the text.
        selections: The profiles that have to do with it.
        flow: What it wants to do; None: only who selects it.
        program: Which program wants it.
        now_ns: Wall time.

    Raises:
        PolicyRefused: The profiles cannot be united; the sensor says the same.
    """
    policy = union_of(selections, now_ns)
    grants = policy.grants_of(program) if policy else None
    tries = _tries(selections, policy) if flow else {}
    counted = [each for each in selections if each.grant(program)]
    contributions = tuple(_contribution(each, program, flow, tries, now_ns) for each in counted)
    return Explanation(
        workload,
        program,
        MODES[grants.mode] if grants else MODES[layout.MODE_NONE],
        contributions,
        tuple(_conflicts([each for each in contributions if not each.expired])),
        decide(policy, flow, tries, program) if flow else None,
    )


def _tries(selections: Sequence[Selection], policy: Policy | None) -> dict[bytes, RuleTries]:
    wanted = policy.rule_sets() if policy else set()
    return {
        rules.content: RuleTries(rules) for each in selections for rules in each.profile.rule_sets(wanted)
    }


def _contribution(
    selection: Selection,
    program: Program | None,
    flow: Flow | None,
    tries: dict[bytes, RuleTries],
    now_ns: int,
) -> Contribution:
    profile, grant = selection.profile, selection.grant(program)
    expired = profile.expired(now_ns)
    return Contribution(
        profile.key,
        profile.generation,
        MODES[grant.mode] if grant else MODES[layout.MODE_NONE],
        _whose(selection, program, grant),
        expired,
        tries[grant.content].ask(flow) if flow and grant and not expired else None,
    )


def _whose(selection: Selection, program: Program | None, grant: Grant | None) -> str:
    for named, of_program in selection.profile.programs.items():
        if of_program is grant and program is not None:
            return f"its rules for {named}"
    return "its default rules" if selection.executables is None else "its rules for that executable"


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
    if answer.reason:
        return f"stopped, {REASONS[answer.reason]}"
    return f"passes by {answer.rule}" if answer.rule else "passes"


def _contribution_document(each: Contribution) -> dict[str, Any]:
    return {
        "profile": each.profile,
        "generation": each.generation,
        "mode": each.mode,
        "rules": each.rules,
        "expired": each.expired,
        "layers": [
            {"layer": answer.layer, "passes": not answer.reason, "rule": answer.rule, "text": _said(answer)}
            for answer in (each.asked.answers if each.asked else ())
        ],
    }
