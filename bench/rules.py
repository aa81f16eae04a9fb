# SPDX-License-Identifier: Apache-2.0
"""How many process events a second one core judges by Sigma rules: 10, 150 and 3,000 of them.

From an event and its dictionary to the rules that match: fields, index, closures; without decoding and
without what comes before and after in the pipeline (``bench stream`` has all of it). The rules are made up in
the shapes of SigmaHQ's; NSP_SIGMA_RULES names a directory of real ones to measure beside them.
"""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import rule_sets
from bench.statistics import median, spread
from stream_apps.correlate.names import NameLimits, NameTable
from stream_apps.correlate.pods import PodTable
from stream_apps.correlate.programs import ProgramLists, Programs
from stream_apps.correlate.view import BatchView
from stream_apps.detect.scene import Scene
from stream_apps.sigma.book import RuleBook
from stream_apps.sigma.detector import SigmaDetector
from stream_apps.sigma.facts import FactMaker
from stream_apps.sigma.loading import files_of
from stream_apps.sigma.translate import Surroundings

if TYPE_CHECKING:
    from collections.abc import Iterable

COUNTS = (10, 150, 3000)
BATCHES = 100
RUNS = 5
DIRECTORY = "NSP_SIGMA_RULES"


def run() -> dict[str, Any]:
    """Measure and return figures by number of rules, and how the largest set compares with the smallest."""
    batches = [(_scene(each), each["events"]) for each in rule_sets.batches(BATCHES)]
    result: dict[str, Any] = {"programs": sum(len(events) for _, events in batches), "runs": RUNS}
    for count in COUNTS:
        result[f"{count}_rules"] = _measure(rule_sets.rules(count), batches)
    result["cost_of_150_over_10"] = round(
        result["10_rules"]["events_per_s_per_core"] / result["150_rules"]["events_per_s_per_core"], 2
    )
    if directory := os.environ.get(DIRECTORY):
        result["directory"] = _measure(files_of(Path(directory)), batches)
    return result


def _measure(texts: Iterable[tuple[str, bytes | str]], batches: list[tuple[Scene, Any]]) -> dict[str, Any]:
    book = RuleBook(Surroundings({}, {0: "root"}))
    began = time.process_time()
    book.base(texts)
    loading_s = time.process_time() - began
    detector = SigmaDetector(book)
    rates = [_one_run(detector, batches) for _ in range(RUNS)]
    index = book.rules.indexes["nsp.ProcessExec"]
    asked, events = _asked(book, batches)
    return {
        "events_per_s_per_core": round(median(rates)),
        "events_per_s_per_core_runs": spread(rates),
        "rules_on_programs": len(index.rules),
        "rules_asked_of_each_event": round(asked / events, 2),
        "rules_asked_always": index.unindexed,
        "matches": detector.counts["matches"] // RUNS,
        "loading_s": round(loading_s, 2),
    }


def _one_run(detector: SigmaDetector, batches: list[tuple[Scene, Any]]) -> float:
    """Events a second of CPU time."""
    count = 0
    gc.collect()
    began = time.process_time()
    for scene, events in batches:
        detector.begin(scene)
        see = detector.see
        for kind, event in events:
            see(kind, event["process"], event)
        count += len(events)
    return count / (time.process_time() - began)


def _asked(book: RuleBook, batches: list[tuple[Scene, Any]]) -> tuple[int, int]:
    """How many rules were asked over all events, and how many events."""
    maker = FactMaker(book.users, book.rules.needed)
    asked = events = 0
    for scene, members in batches:
        maker.begin()
        for kind, event in members:
            facts = maker.make(scene, kind, event["process"], event)
            asked += len(list(book.rules.indexes[kind].candidates(facts)))
            events += 1
    return asked, events


def _scene(batch: dict[str, Any]) -> Scene:
    view = BatchView(batch, Programs(ProgramLists((), (), (), ())))
    return Scene(view, [None] * len(view.processes), NameTable(NameLimits()), PodTable())
