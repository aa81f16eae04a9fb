# SPDX-License-Identifier: Apache-2.0
"""How complete what was learned of a workload is, what state that is, and whether it may be enforced. Pure.

Input: a merged workload and thresholds. Output: a :class:`Verdict`. Time is the workload's own: what counts
as quiet is the time in which it was there and did nothing new, so that a workload that is gone does not grow
complete. The estimate is made over hours of pods and again over six hours of pods: bursts would make it
depend on that choice, and where the two disagree much it is called unreliable and opens no gate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from stream_apps.learn.statistics import Estimate, estimate

if TYPE_CHECKING:
    from stream_apps.learn.merged import Merged

State = Literal["warm-up", "learning", "stable", "unstable"]
_NS_PER_S: Final = 1_000_000_000
# Said of bounds: these are evidence of what is never learned, and cut no profile short.
_NO_LOSS_OF_LEARNING: Final = frozenset({"evidence"})


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When learning is complete.

    Attributes:
        warm_up_s: In this time after the first sight, or a new image, nothing is said.
        quiet_s: So long nothing new may have been seen; in it no event may have been lost.
        unstable_after_s: What still finds something new after so long is unstable.
        min_coverage: The lower bound of the coverage must reach this.
        max_disagreement: Coverage by one and by six hours may differ so much.
        min_pods: Pods that must have been seen.
        min_nodes: The same for services of hosts.
        min_starts: Starts that must have been seen from the first program on.
    """

    warm_up_s: int = 900
    quiet_s: int = 24 * 3600
    unstable_after_s: int = 7 * 24 * 3600
    min_coverage: float = 0.95
    max_disagreement: float = 0.05
    min_pods: int = 2
    min_nodes: int = 1
    min_starts: int = 1


@dataclass(frozen=True, slots=True)
class Condition:
    """One part of the gate.

    Attributes:
        name: coverage, agreement, quiet, replicas, starts, loss, bounds.
        met: Whether it holds.
        text: The figures, for people.
    """

    name: str
    met: bool
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of a workload.

    Attributes:
        state: warm-up, learning, stable or unstable.
        reason: Why.
        estimate: Over hours of pods.
        wide: Over six hours of pods.
        reliable: Whether the two agree.
        gate: All that must hold before it is enforced.
    """

    state: State
    reason: str
    estimate: Estimate
    wide: Estimate
    reliable: bool
    gate: tuple[Condition, ...]

    @property
    def may_enforce(self) -> bool:
        """Whether the gate is open."""
        return all(each.met for each in self.gate)

    def statement(self) -> str:
        """The completeness in a sentence."""
        e, w = self.estimate, self.wide
        trust = "" if self.reliable else "; UNRELIABLE: the two units disagree"
        return (
            f"coverage {e.coverage:.1%} (95 %: {e.low:.1%} to {e.high:.1%}) over {e.units} pod-hours, "
            f"{w.coverage:.1%} over {w.units} six-hour units{trust}; {e.behaviours} behaviours seen, "
            f"at least {e.unseen:.1f} not seen"
        )

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "state": self.state,
            "reason": self.reason,
            "reliable": self.reliable,
            "mayEnforce": self.may_enforce,
            "coverage": _estimate_document(self.estimate),
            "coverageSixHours": _estimate_document(self.wide),
            "gate": [{"name": each.name, "met": each.met, "text": each.text} for each in self.gate],
        }


def judge(workload: Merged, thresholds: Thresholds) -> Verdict:
    """Judge a workload."""
    learned = workload.learned()
    narrow = estimate((each.units for each in learned.values()), workload.units)
    wide = estimate((each.wide_units for each in learned.values()), workload.wide_units)
    reliable = abs(narrow.coverage - wide.coverage) <= thresholds.max_disagreement
    gate = _gate(workload, thresholds, narrow, wide)
    state, reason = _state(workload, thresholds, gate)
    return Verdict(state, reason, narrow, wide, reliable, gate)


def _gate(
    workload: Merged, thresholds: Thresholds, narrow: Estimate, wide: Estimate
) -> tuple[Condition, ...]:
    quiet_s = _seconds(workload.last_ns - max(workload.last_new_ns(), workload.episode_ns))
    since_loss_s = _seconds(workload.last_ns - workload.loss_ns)
    disagreement = abs(narrow.coverage - wide.coverage)
    pods = workload.kind == "POD"
    seen, wanted = (
        (workload.pods, thresholds.min_pods) if pods else (len(workload.nodes), thresholds.min_nodes)
    )
    cut = {name: count for name, count in workload.beyond.items() if name not in _NO_LOSS_OF_LEARNING}
    return (
        Condition(
            "coverage",
            narrow.low >= thresholds.min_coverage,
            f"lower bound {narrow.low:.1%}, wanted {thresholds.min_coverage:.1%}",
        ),
        Condition(
            "agreement",
            disagreement <= thresholds.max_disagreement,
            f"1 h and 6 h units differ by {disagreement:.1%}, allowed {thresholds.max_disagreement:.1%}",
        ),
        Condition(
            "quiet",
            quiet_s >= thresholds.quiet_s,
            f"nothing new for {duration(quiet_s)}, wanted {duration(thresholds.quiet_s)}",
        ),
        Condition("replicas", seen >= wanted, f"{seen} {'pods' if pods else 'nodes'} seen, wanted {wanted}"),
        Condition(
            "starts",
            workload.starts >= thresholds.min_starts,
            f"{workload.starts} starts seen whole, wanted {thresholds.min_starts}",
        ),
        Condition(
            "loss",
            not workload.loss_ns or since_loss_s >= thresholds.quiet_s,
            f"events were lost {duration(since_loss_s)} before it was seen last"
            if workload.loss_ns
            else "no event was lost",
        ),
        Condition("bounds", not cut, _cut_text(cut)),
    )


def _state(workload: Merged, thresholds: Thresholds, gate: tuple[Condition, ...]) -> tuple[State, str]:
    age_s = _seconds(workload.last_ns - workload.episode_ns)
    if age_s < thresholds.warm_up_s:
        return "warm-up", f"seen for {duration(age_s)} of {duration(thresholds.warm_up_s)}"
    missing = [each for each in gate if not each.met]
    drift = sum(each.drift for each in workload.learned().values())
    if not missing:
        extra = f"; {drift} behaviours came after it was stable and are in no draft" if drift else ""
        return "stable", f"the gate is open{extra}"
    by_name = {each.name: each for each in missing}
    if drift and "quiet" in by_name:
        return "unstable", f"{drift} behaviours are new since it was stable"
    if "bounds" in by_name:
        return "unstable", by_name["bounds"].text
    if age_s >= thresholds.unstable_after_s:
        for name in ("agreement", "quiet", "coverage"):
            if name in by_name:
                return "unstable", f"after {duration(age_s)}: {by_name[name].text}"
    return "learning", "; ".join(each.text for each in missing)


def _cut_text(cut: dict[str, int]) -> str:
    if not cut:
        return "nothing was cut off by a bound"
    listed = ", ".join(f"{count} {name}" for name, count in sorted(cut.items()))
    return f"beyond the bounds and not learned: {listed}"


def _estimate_document(given: Estimate) -> dict[str, Any]:
    return {
        "coverage": round(given.coverage, 6),
        "low": round(given.low, 6),
        "high": round(given.high, 6),
        "unseenAtLeast": round(given.unseen, 2),
        "behaviours": given.behaviours,
        "incidences": given.incidences,
        "units": given.units,
        "seenOnce": given.once,
        "seenTwice": given.twice,
    }


def _seconds(ns: int) -> float:
    return max(ns, 0) / _NS_PER_S


def duration(seconds: float) -> str:
    """A stretch of time in its largest unit."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}".replace(".0 ", " ")
    return f"{seconds:.0f} s"
