# SPDX-License-Identifier: Apache-2.0
"""How many events a second one core replays, and several processes side by side, each with its partitions.

The mix of ``bench stream`` in encoded batches, without Kafka: decode, pipeline and tally, and once more with
each flow asked of a profile. A replay is one process; the figure of several, each with nodes of its own, is
what the machine could do, not what the command does.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from typing import Any, Final

from bench.statistics import median, spread
from nsp.replay_profiles import ProfileTrial, Trial
from schemas.codec import encode
from schemas.profile.canonical import to_record
from schemas.profile.document import parse_profiles
from stream_apps.assembly import build_programs
from stream_apps.collector import spare_the_collector
from stream_apps.config.document import parse
from stream_apps.correlate.pods import PodTable
from stream_apps.pipeline import Pipeline
from stream_apps.replay.session import Received, Replay
from stream_apps.replay.tally import Tally
from tests.support.batches import Load

BATCHES: Final = 300
RUNS: Final = 7
_CONFIG: Final = "detect: {sigma: {directories: [examples/rules]}}"
_PROFILE: Final = """
apiVersion: nsp.security/v1alpha1
kind: SecurityProfile
metadata: {name: services}
spec:
  scope: Node
  actions: [enforce]
  services: [{cgroupPath: /host}]
  default:
    egress: {fqdns: ["*.shop.svc.cluster.local"], l4: {protocols: [tcp, udp]}}
"""


def run() -> dict[str, Any]:
    """Measure and return ``{"events_per_s_per_core", ...}``."""
    messages = _messages()
    spare_the_collector()
    alone = [_rate(messages, profile=False) for _ in range(RUNS)]
    judged = [_rate(messages, profile=True) for _ in range(RUNS)]
    processes = os.cpu_count() or 1
    together = [_side_by_side(processes) for _ in range(2)]
    return {
        "events_per_s_per_core": round(median(alone)),
        "events_per_s_per_core_runs": spread(alone),
        "with_profile_events_per_s_per_core": round(median(judged)),
        "with_profile_runs": spread(judged),
        "processes": processes,
        "processes_together_events_per_s": round(max(together)),
        "batches": BATCHES,
        "runs": RUNS,
    }


def _messages() -> list[Received]:
    batches = Load().batches(BATCHES)
    return [
        Received(f"nsp.events/0@{number}", encode("EventBatch", batch), batch["clock"]["wall_ns"])
        for number, batch in enumerate(batches)
    ]


def _rate(messages: list[Received], *, profile: bool) -> float:
    """Events a second of CPU."""
    config, pods, tally = parse(_CONFIG), PodTable(), Tally()
    trial = None
    if profile:
        record = to_record(parse_profiles(_PROFILE.encode())[0], 1)
        trial = ProfileTrial(
            Trial([record], ["host/services"]), pods, build_programs(config.correlate), tally
        )
    replay = Replay(Pipeline(config, pods), tally, 0, trial)
    gc.collect()
    start = time.process_time()
    for message in messages:
        replay.take(message)
    return replay.figures.events / (time.process_time() - start)


def _side_by_side(processes: int) -> float:
    """Events a second of wall time, of all processes."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        return sum(pool.map(_one_process, range(processes)))


def _one_process(_number: int) -> float:
    messages = _messages()
    spare_the_collector()
    config = parse(_CONFIG)
    replay = Replay(Pipeline(config), Tally(), 0)
    start = time.perf_counter()
    for message in messages:
        replay.take(message)
    return replay.figures.events / (time.perf_counter() - start)
