# SPDX-License-Identifier: Apache-2.0
"""How many events a second one core takes through decode, correlate, detect, respond and learn.

A realistic mix in encoded batches, as they come from Kafka, in one process without Kafka: CPU time of
decoding and of the pipeline. Faust and the consumer are paid per message, not per event (see
docs/adr/0012), and are left out here; ``bench loop`` has them in. Learning has its worst case here: each
connection goes to another of 65,536 addresses, so that half of the events are something new.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from typing import Any

from bench.statistics import median, spread
from schemas.codec import decode_as, encode
from stream_apps.config import StreamConfig, parse
from stream_apps.correlate.pods import PodTable
from stream_apps.pipeline import Pipeline
from tests.support.batches import load, pod_record

BATCHES = 300
RUNS = 7
MIX = {
    "connect/close": ("SocketConnect", "SocketClose", "SocketAccept", "DatagramSend"),
    "DNS": ("DnsQuestion", "DnsAnswer"),
    "process": ("ProcessExec", "ProcessFork", "ProcessExit", "SocketListen"),
}


def run() -> dict[str, Any]:
    """Measure and return ``{"events_per_s_per_core", "mix", ...}``."""
    messages = [encode("EventBatch", batch) for batch in load(BATCHES)]
    mix = _mix(messages)
    rates, decode_us, pipeline_us, learning_us = [], [], [], []
    without_learning = parse("learn: {enabled: false}")
    for _ in range(RUNS):
        decoding, deciding, events = _one_run(messages, StreamConfig())
        _, unlearned, _ = _one_run(messages, without_learning)
        rates.append(events / (decoding + deciding))
        decode_us.append(1e6 * decoding / events)
        pipeline_us.append(1e6 * deciding / events)
        learning_us.append(1e6 * (deciding - unlearned) / events)
    return {
        "events_per_s_per_core": round(median(rates)),
        "events_per_s_per_core_runs": spread(rates),
        "mix": mix,
        "decode_us_per_event": round(median(decode_us), 2),
        "pipeline_us_per_event": round(median(pipeline_us), 2),
        "of_which_learning_us": round(median(learning_us), 2),
        "batches": BATCHES,
        "runs": RUNS,
    }


def _one_run(messages: list[bytes], config: StreamConfig) -> tuple[float, float, int]:
    """Return CPU seconds of decoding, of the pipeline, and the number of events."""
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
    return decoding, deciding, events


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
