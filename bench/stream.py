# SPDX-License-Identifier: Apache-2.0
"""How many events a second one core takes through decode, correlate, detect, respond and learn.

A realistic mix in encoded batches, as they come from Kafka, in one process without Kafka: CPU time of
decoding and of the pipeline, with every detector, the rules of examples/rules and learning on. Faust and the
consumer are paid per message, not per event (see docs/adr/0012), and are left out here; ``bench loop`` has
them in. ``strangers`` is the worst case of all that remembers: each connection goes to another of 65,536
addresses, so that half of the events are something new.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.statistics import median, spread
from schemas.codec import decode_as, encode
from stream_apps.collector import spare_the_collector
from stream_apps.config.document import parse
from stream_apps.correlate.pods import PodTable
from stream_apps.pipeline import Pipeline
from tests.support.batches import Load, pod_record

if TYPE_CHECKING:
    from stream_apps.config.document import StreamConfig

BATCHES = 300
RUNS = 7
MIX = {
    "connect/close": ("SocketConnect", "SocketClose", "SocketAccept", "DatagramSend"),
    "DNS": ("DnsQuestion", "DnsAnswer"),
    "process": ("ProcessExec", "ProcessFork", "ProcessExit", "SocketListen"),
}


_RULES = "detect: {sigma: {directories: [examples/rules]}}"
_CONFIGURATIONS = {
    "all": _RULES,
    "without learning": f"{_RULES}\nlearn: {{enabled: false}}",
    "without rules": "",
}


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds of one run."""

    events: int
    decoding_s: float
    deciding_s: float

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / (self.decoding_s + self.deciding_s)

    @property
    def decode_us(self) -> float:
        """Of one event."""
        return 1e6 * self.decoding_s / self.events

    @property
    def pipeline_us(self) -> float:
        """Of one event."""
        return 1e6 * self.deciding_s / self.events


def run() -> dict[str, Any]:
    """Measure and return ``{"events_per_s_per_core", "mix", ...}``."""
    everyday = [encode("EventBatch", batch) for batch in Load().batches(BATCHES)]
    strangers = [encode("EventBatch", batch) for batch in Load(strangers=True).batches(BATCHES)]
    configurations = {name: parse(text) for name, text in _CONFIGURATIONS.items()}
    spare_the_collector()
    costs: dict[str, list[Cost]] = {name: [] for name in (*configurations, "strangers")}
    for _ in range(RUNS):
        for name, config in configurations.items():
            costs[name].append(_one_run(everyday, config))
        costs["strangers"].append(_one_run(strangers, configurations["all"]))
    rates = [each.rate for each in costs["all"]]
    strange = [each.rate for each in costs["strangers"]]
    return {
        "events_per_s_per_core": round(median(rates)),
        "events_per_s_per_core_runs": spread(rates),
        "strangers_events_per_s_per_core": round(median(strange)),
        "strangers_runs": spread(strange),
        "mix": _mix(everyday),
        "decode_us_per_event": round(median([each.decode_us for each in costs["all"]]), 2),
        "pipeline_us_per_event": round(median([each.pipeline_us for each in costs["all"]]), 2),
        "of_which_learning_us": _difference(costs["all"], costs["without learning"]),
        "of_which_rules_us": _difference(costs["all"], costs["without rules"]),
        "batches": BATCHES,
        "runs": RUNS,
    }


def _difference(dearer: list[Cost], cheaper: list[Cost]) -> float:
    pairs = zip(dearer, cheaper, strict=True)
    return round(median([one.pipeline_us - other.pipeline_us for one, other in pairs]), 2)


def _one_run(messages: list[bytes], config: StreamConfig) -> Cost:
    pods = PodTable()
    pods.put(pod_record())
    pipeline = Pipeline(config, pods)
    decoding = deciding = 0.0
    events = 0
    gc.collect()
    for message in messages:
        start = time.process_time()
        batch = decode_as("EventBatch", message)
        middle = time.process_time()
        events += pipeline.process(batch, batch["clock"]["wall_ns"]).events
        deciding += time.process_time() - middle
        decoding += middle - start
    return Cost(events, decoding, deciding)


def _mix(messages: list[bytes]) -> dict[str, str]:
    kinds = Counter(
        name.rpartition(".")[2]
        for message in messages
        for name, _ in decode_as("EventBatch", message)["events"]
    )
    total = sum(kinds.values())
    return {
        group: f"{100 * sum(kinds[kind] for kind in members) / total:.0f} %" for group, members in MIX.items()
    }
