# SPDX-License-Identifier: Apache-2.0
"""Event batches in which a web service starts a shell that starts curl: each an attack of its own."""

from __future__ import annotations

import copy
import time
from functools import cache
from typing import Any

from schemas.samples import load_samples

# What one attack takes of ring, process numbers and boot time, so that two never share any.
RING_BYTES = 4096
TGIDS = 10
SPAN_NS = 1_000_000_000
_KEPT = ("ProcessFork", "ProcessExec", "DnsQuestion", "DnsAnswer", "SocketConnect")
_SERVICE = 4120


@cache
def _exploit() -> dict[str, Any]:
    (found,) = [each for each in load_samples("EventBatch") if each.path.stem == "exploit"]
    return found.record()


def attack_batch(node: str, number: int, wall_ns: int | None = None) -> dict[str, Any]:
    """Return the batch of attack ``number`` (from 1) on a node, seen now unless told otherwise.

    The batches of a node follow each other without gaps: sequence, ring positions, CPU counters.
    """
    batch = copy.deepcopy(_exploit())
    shift_ns = number * SPAN_NS
    start = number * RING_BYTES
    first = batch["ring_start"]
    batch |= {"node": node, "sequence": number, "ring_start": start, "ring_end": start + RING_BYTES}
    batch["losses"] = []
    batch["clock"] = {
        "boot_ns": batch["clock"]["boot_ns"] + shift_ns,
        "wall_ns": time.time_ns() if wall_ns is None else wall_ns,
    }
    events = [each for each in batch["events"] if each[0].removeprefix("nsp.") in _KEPT]
    for _, event in events:
        event["position"] += start - first
        event["ktime_ns"] += shift_ns
    count = len(events)
    batch["events"] = events
    batch["cpus"] = [
        {"cpu": 0, "first_seq": (number - 1) * count + 1, "last_seq": number * count, "events": count}
    ]
    for image in batch["processes"]:
        if image["tgid"] > _SERVICE:
            image["tgid"] += number * TGIDS
            image["start_ns"] += shift_ns
            image["image_ns"] += shift_ns
    return batch
