# SPDX-License-Identifier: Apache-2.0
"""Precision and recall of each detector, on real attacks and benign twins, and on mutations of these.

The scenarios of ``tests/support/scenarios`` are run once on the running kernel and recorded. Each recording
is judged as it is, and in each of the mutations with three seeds. A rule that an attack names and that told
it is a hit, one that did not a miss. Wrong is what a rule tells of a benign scenario, and of an attack it is
not for (``beside`` has what it may tell there). An attack is found if any rule told it. Beacons are judged
at other periods and with more jitter too, beside calls as customers make them, by scaling the times of real
ones. Output: figures, and ``build/bench/detect.json`` and ``detect.md``, tables for ``docs/benchmarks.md``.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from bench.detect_tables import markdown
from tests.support.scenarios.catalogue import SCENARIOS
from tests.support.scenarios.judge import alerts_of, rules_of
from tests.support.scenarios.mutations import MUTATIONS, in_time
from tests.support.scenarios.scenario import BEACON
from tests.support.scenarios.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.scenarios.recording import Recording

SEEDS: Final = 3
BEACON_SEEDS: Final = 5
PERIODS_MIN: Final = (2, 5, 10, 20, 30, 60)
JITTERS: Final = (0.0, 0.1, 0.2, 0.3, 0.5)
RESULTS: Final = Path("build/bench")
_AS_RECORDED: Final = "as recorded"
_CALLS: Final = {"beacon": True, "a partner called as customers come": False}
_CONNECTED: Final = "nsp.SocketConnect"


def run() -> dict[str, Any]:
    """Measure and return tables by detector and by mutation."""
    with tempfile.TemporaryDirectory(prefix="nsp-bench-") as directory, Stage(Path(directory)) as stage:
        recordings, unable = stage.play(SCENARIOS)
    result = measure(recordings)
    result["not_run"] = unable
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "detect.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "detect.md").write_text(markdown(result))
    return result


def measure(recordings: Sequence[Recording]) -> dict[str, Any]:
    """All tables of some recordings; deterministic."""
    as_recorded, mutated = _Table(), _Table()
    by_mutation: dict[str, _Table] = {}
    missed: Counter[str] = Counter()
    not_by: Counter[str] = Counter()
    for recording in recordings:
        scenario = recording.scenario
        for name, told in _judgements(recording):
            for table in (
                as_recorded if name == _AS_RECORDED else mutated,
                by_mutation.setdefault(name, _Table()),
            ):
                table.add(recording, told)
            if scenario.is_attack and not told:
                missed[f"{scenario.name} ({name})"] += 1
            for rule in set(scenario.expects) - told:
                not_by[f"{rule}: {scenario.name} ({name})"] += 1
    return {
        "attacks": sum(each.scenario.is_attack for each in recordings),
        "benign": sum(not each.scenario.is_attack for each in recordings),
        "events": sum(each.events for each in recordings),
        "as_recorded": as_recorded.figures(),
        "mutated": mutated.figures(),
        "by_mutation": {name: table.attacks() for name, table in by_mutation.items()},
        "attacks_no_rule_told": dict(missed),
        "not_told_by_its_rule": dict(not_by),
        "slow": _slow([each for each in recordings if each.scenario.name in _CALLS]),
    }


def _judgements(recording: Recording) -> Iterator[tuple[str, set[str]]]:
    for name, mutation in MUTATIONS.items():
        for seed in range(SEEDS if name != _AS_RECORDED else 1):
            changed = mutation(recording, random.Random(seed))
            yield name, rules_of(alerts_of(in_time(changed, recording.scenario.slower)))


def _slow(recordings: Sequence[Recording]) -> dict[str, dict[str, str]]:
    """By scenario and period: how many of so many were told as a beacon, by jitter."""
    found: dict[str, dict[str, str]] = {}
    for recording in recordings:
        real_s = _period_s(recording)
        table = found.setdefault(recording.scenario.name, {})
        for period in PERIODS_MIN:
            counts = []
            for jitter in JITTERS:
                told = 0
                for seed in range(BEACON_SEEDS):
                    changed = in_time(recording, period * 60 / real_s, random.Random(seed), jitter)
                    told += BEACON in rules_of(alerts_of(changed))
                counts.append(f"{jitter:.0%} {told}/{BEACON_SEEDS}")
            table[f"{period} min"] = ", ".join(counts)
    return found


def _period_s(recording: Recording) -> float:
    """The median gap between connections to the outside, as they were."""
    times = [
        event["ktime_ns"]
        for batch in recording.batches
        for kind, event in batch["events"]
        if kind == _CONNECTED and event["remote_address"].startswith("203.")
    ]
    return float(median(later - earlier for earlier, later in pairwise(times))) / 1e9


class _Table:
    """Hits, misses and wrong alerts by rule."""

    def __init__(self) -> None:
        self._hits: Counter[str] = Counter()
        self._misses: Counter[str] = Counter()
        self._false: Counter[str] = Counter()
        self._beside: Counter[str] = Counter()
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
        self._beside.update(told - {*scenario.expects, *scenario.beside})
        for rule in scenario.expects:
            (self._hits if rule in told else self._misses)[rule] += 1

    def figures(self) -> dict[str, dict[str, float | int | None]]:
        """By rule: precision and recall, with what they are of."""
        rules = sorted({*self._hits, *self._misses, *self._false, *self._beside})
        return {rule: self._row(rule) for rule in rules}

    def attacks(self) -> dict[str, int]:
        """How many attacks any rule told, and false alerts."""
        return {
            "told": self._found[True],
            "attacks": sum(self._found.values()),
            "false": sum(self._false.values()),
            "benign": self._benign,
        }

    def _row(self, rule: str) -> dict[str, float | int | None]:
        hits, misses = self._hits[rule], self._misses[rule]
        false, beside = self._false[rule], self._beside[rule]
        wrong = false + beside
        return {
            "precision": round(hits / (hits + wrong), 3) if hits + wrong else None,
            "recall": round(hits / (hits + misses), 3) if hits + misses else None,
            "told": hits,
            "missed": misses,
            "false": false,
            "beside": beside,
        }
