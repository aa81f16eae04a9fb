# SPDX-License-Identifier: Apache-2.0
"""The recording of a run: its event batches in a file, reduced to the demonstration's workloads.

Format, gzipped: for each batch a 4-byte big-endian length and the EventBatch in Avro single-object encoding.
What other programs of the machine did, and the machine's own paths, are not ours to publish: their
events are left out, and the ledger is counted anew over what remains.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from typing import TYPE_CHECKING, Any

from demo.errors import DemoError
from schemas.codec import decode_as, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

LENGTH = struct.Struct(">I")
MAX_BATCH_BYTES = 8 << 20  # far above what a sensor writes; guards against a damaged file
MAX_RECORDING_BYTES = 256 << 20


def save(path: Path, batches: Iterable[Mapping[str, Any]], workload_ids: frozenset[str], root: Path) -> int:
    """Write the batches, reduced to the given workloads; return the bytes written.

    Args:
        path: file to write.
        batches: decoded EventBatch documents of one node, in order.
        workload_ids: workloads whose events are kept.
        root: directory whose name is replaced by ``/demo`` in arguments.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sequence, seq = 0, 0
    ring_end = 0
    with gzip.open(path, "wb") as file:
        for batch in batches:
            events = _kept_events(batch, workload_ids)
            if not events:
                continue
            sequence += 1
            reduced = _reduce(batch, workload_ids, root)
            reduced.update(
                node="recorded-node", events=events, sequence=sequence, losses=[],
                ring_start=ring_end or batch["ring_start"], ring_end=batch["ring_end"],
                cpus=[{"cpu": 0, "first_seq": seq + 1, "last_seq": seq + len(events), "events": len(events)}],
            )  # fmt: skip
            ring_end = batch["ring_end"]
            seq += len(events)
            data = encode("EventBatch", reduced)
            file.write(LENGTH.pack(len(data)) + data)
    return path.stat().st_size


def load(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the recorded batches.

    Raises:
        DemoError: the file is missing, cut or damaged; names the offset.
    """
    try:
        with gzip.open(path, "rb") as file:
            data = file.read(MAX_RECORDING_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        message = f"cannot read the recording {path}: {error}"
        raise DemoError(message) from error
    offset = 0
    while offset < len(data):
        if len(data) - offset < LENGTH.size:
            message = f"{path}: cut at byte {offset}"
            raise DemoError(message)
        (length,) = LENGTH.unpack_from(data, offset)
        body = data[offset + LENGTH.size : offset + LENGTH.size + length]
        if length > MAX_BATCH_BYTES or len(body) != length:
            message = f"{path}: damaged at byte {offset}: batch of {length} bytes"
            raise DemoError(message)
        yield decode_as("EventBatch", body)
        offset += LENGTH.size + length


def _kept_events(batch: Mapping[str, Any], workload_ids: frozenset[str]) -> list[tuple[str, dict[str, Any]]]:
    processes, workloads = batch["processes"], batch["workloads"]
    return [
        (name, event)
        for name, event in batch["events"]
        if workloads[processes[event["process"]]["workload"]]["id"] in workload_ids
    ]


def _reduce(batch: Mapping[str, Any], workload_ids: frozenset[str], root: Path) -> dict[str, Any]:
    """Return the batch with strangers' processes blanked and paths of this machine replaced."""
    workloads = batch["workloads"]
    ours = [workload["id"] in workload_ids for workload in workloads]
    processes = []
    for process in batch["processes"]:
        kept = dict(process)
        if ours[process["workload"]]:
            kept["argv"] = [argument.replace(str(root), "/demo") for argument in process["argv"]]
            kept["executable"] = process["executable"].replace(str(root), "/demo")
        else:
            kept.update(executable="", argv=[], comm="", parent=0, stdio_peer=None, origin="UNKNOWN")
        processes.append(kept)
    blank = {
        "unit": None,
        "cgroup_path": "",
        "container_id": None,
        "pod_uid": None,
        "id": "host/recorded-node",
    }
    return {
        **batch,
        "processes": processes,
        "workloads": [
            dict(workload) if ours[index] else {**workload, **blank}
            for index, workload in enumerate(workloads)
        ],
    }
