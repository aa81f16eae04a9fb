# SPDX-License-Identifier: Apache-2.0
"""Precision and recall of each detector, on real attacks and benign twins, and on mutations of these.

The scenarios of ``tests/support/scenarios`` are run once on the running kernel and recorded. Each
recording is judged as it is, and in four mutations with three seeds each: tools under other names in
another place, another shell, three times slower, uneven gaps. A rule that an attack names and that told
it is a hit, one that did not a miss, one that told anything of a benign scenario a false alert; what else
is told of an attack counts for nothing. An attack is found if any rule told it.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.scenarios.catalogue import SCENARIOS
from tests.support.scenarios.judge import alerts_of, rules_of
from tests.support.scenarios.mutations import MUTATIONS, in_time
from tests.support.scenarios.stage import Stage

if TYPE_CHECKING:
    from tests.support.scenarios.recording import Recording

SEEDS = 3


def run() -> dict[str, Any]:
    """Measure and return tables by detector and by mutation."""
    with tempfile.TemporaryDirectory(prefix="nsp-bench-") as directory, Stage(Path(directory)) as stage:
        recordings, unable = stage.play(SCENARIOS)
    as_recorded, mutated = _Table(), _Table()
    by_mutation: dict[str, _Table] = {}
    missed: list[str] = []
    for recording in recordings:
        for name, mutation in MUTATIONS.items():
            for seed in range(SEEDS if name != "as recorded" else 1):
                changed = mutation(recording, random.Random(seed))
                told = rules_of(alerts_of(in_time(changed, recording.scenario.slower)))
                (as_recorded if name == "as recorded" else mutated).add(recording, told)
                by_mutation.setdefault(name, _Table()).add(recording, told)
                if recording.scenario.is_attack and not told:
                    missed.append(f"{recording.scenario.name} ({name})")
    return {
        "attacks": sum(each.scenario.is_attack for each in recordings),
        "benign": sum(not each.scenario.is_attack for each in recordings),
        "not_run": unable,
        "events": sum(each.events for each in recordings),
        "as_recorded": as_recorded.figures(),
        "mutated": mutated.figures(),
        "by_mutation": {name: table.attacks() for name, table in by_mutation.items()},
        "attacks_no_rule_told": sorted(set(missed)),
    }


class _Table:
    """Hits, misses and false alerts by rule."""

    def __init__(self) -> None:
        self._hits: Counter[str] = Counter()
        self._misses: Counter[str] = Counter()
        self._false: Counter[str] = Counter()
        self._found: Counter[bool] = Counter()
        self._benign = 0

    def add(self, recording: Recording, told: set[str]) -> None:
        """Take one judgement."""
        scenario = recording.scenario
        if not scenario.is_attack:
            self._benign += 1
            self._false.update(told)
            return
        self._found[bool(told)] += 1
        for rule in scenario.expects:
            (self._hits if rule in told else self._misses)[rule] += 1

    def figures(self) -> dict[str, str]:
        """By rule: precision and recall, with what they are of."""
        rules = sorted({*self._hits, *self._misses, *self._false})
        return {rule: self._row(rule) for rule in rules}

    def attacks(self) -> str:
        """How many attacks any rule told, and false alerts."""
        total = sum(self._found.values())
        return f"{self._found[True]} of {total} attacks told, {sum(self._false.values())} false alerts"

    def _row(self, rule: str) -> str:
        hits, misses, wrong = self._hits[rule], self._misses[rule], self._false[rule]
        precision = f"{hits / (hits + wrong):.2f}" if hits + wrong else "-"
        recall = f"{hits / (hits + misses):.2f}" if hits + misses else "-"
        return f"precision {precision}, recall {recall} ({hits} told, {misses} missed, {wrong} false)"
