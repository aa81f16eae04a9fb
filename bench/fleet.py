# SPDX-License-Identifier: Apache-2.0
"""Memory of one stream app that sees a whole fleet: 1,000 nodes with 10,000 processes each.

Every process is in a batch with its lineage, connects once and, one in ten, is born there too. A node has
thirty pods, each with a service and forty peers by name; no two nodes share a workload. The batches of one
node are made once and told again as another's, so what is measured is the pipeline, with every detector, the
rules of examples/rules and learning on. Resident memory is read from the kernel before the first and after
the last batch; sizes and evictions are the pipeline's own metrics.
"""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream_apps.config.document import parse
from stream_apps.correlate.pods import PodTable
from stream_apps.pipeline import Pipeline
from tests.support.batches import EVENTS_PER_BATCH, HOST, Node, workload

if TYPE_CHECKING:
    from collections.abc import Iterator

    Record = dict[str, Any]

NODES = 1_000
PROCESSES = 10_000
PODS = 30
PEERS = 40
CONFIGURATION = "detect: {sigma: {directories: [examples/rules]}}"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MB = 1 << 20
_BORN_EACH = 10


def run() -> dict[str, Any]:
    """Measure and return memory, rate and what was kept and evicted."""
    batches = list(_batches())
    pipeline = Pipeline(parse(CONFIGURATION), PodTable())
    gc.collect()
    before = _resident()
    start = time.process_time()
    events = 0
    for number in range(NODES):
        for batch in batches:
            told = _as_node(batch, number)
            events += pipeline.process(told, told["clock"]["wall_ns"]).events
    seconds = time.process_time() - start
    gc.collect()
    metrics = pipeline.metrics()
    return {
        "nodes": NODES,
        "processes": NODES * PROCESSES,
        "workloads": NODES * PODS,
        "events": events,
        "events_per_s_per_core": round(events / seconds),
        "memory_mb": round((_resident() - before) / _MB),
        "memory_whole_process_mb": round(_resident() / _MB),
        "kept": {
            name: value for (_, name), value in sorted(metrics.items()) if name.endswith("_now") and value
        },
        "evicted": {
            name: value for (_, name), value in sorted(metrics.items()) if "evicted" in name and value
        },
        "unaccounted": metrics["correlate", "events_unaccounted"],
    }


def _batches() -> Iterator[Record]:
    """The batches of one node."""
    node = Node(workloads=[dict(HOST), *(workload(f"pod-{each}", "POD") for each in range(PODS))])
    services = [node.service(f"/app/service-{each}", workload=each + 1) for each in range(PODS)]
    for number in range(PROCESSES):
        pod = number % PODS
        service, peer = services[pod], number // PODS % PEERS
        address, name = f"10.3.{pod}.{peer}", f"peer{peer}.shop.svc.cluster.local"
        if number < PODS * PEERS:
            node.ask(service, name)
            node.answer(service, name, [address], ttl_s=3600)
        if number % _BORN_EACH == 0:
            process = node.spawn(service, "/app/worker", ["/app/worker", str(number)])
        else:
            process = node.service(
                "/app/worker", ["/app/worker", str(number)], workload=pod + 1, parent=service
            )
        node.connect(process, address, 5432)
        if len(node.events) >= EVENTS_PER_BATCH:
            yield node.batch()
            del node.images[PODS + 1 :]
    yield node.batch()


def _as_node(batch: Record, number: int) -> Record:
    """A batch as another node would tell it."""
    name = f"worker-{number}"
    own = [
        {**each, "id": f"{name}-{each['id']}", "pod_uid": f"{name}-{each['id']}"}
        if each["kind"] == "POD"
        else {**each, "id": f"host/{name}/"}
        for each in batch["workloads"]
    ]
    return {**batch, "node": name, "boot_id": f"00000000-0000-4000-8000-{number:012x}", "workloads": own}


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
