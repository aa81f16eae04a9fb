# SPDX-License-Identifier: Apache-2.0
"""What is kept of a scenario: the batches of its workload alone, as its sensor would have sent them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.scenarios.scenario import Scenario

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Recording:
    """One scenario as it was seen."""

    scenario: Scenario
    workload_id: str
    batches: tuple[Record, ...]

    @property
    def events(self) -> int:
        """How many."""
        return sum(len(each["events"]) for each in self.batches)


def cut_out(scenario: Scenario, cgroup_path: str, batches: Iterable[Record]) -> Recording:
    """The batches with the events of one workload, without gaps: the rest of the machine is not there."""
    kept: list[Record] = []
    workload_id = ""
    seq = 0
    end = 0
    for batch in batches:
        paths = [each["cgroup_path"] for each in batch["workloads"]]
        owners = [paths[each["workload"]] for each in batch["processes"]]
        events = [each for each in batch["events"] if owners[each[1]["process"]] == cgroup_path]
        if not events:
            continue
        workload_id = batch["workloads"][paths.index(cgroup_path)]["id"]
        cpus = [{"cpu": 0, "first_seq": seq + 1, "last_seq": seq + len(events), "events": len(events)}]
        start = end or batch["ring_start"]
        end, seq = batch["ring_end"], seq + len(events)
        own = {"events": events, "cpus": cpus, "losses": [], "ring_start": start, "sequence": len(kept) + 1}
        kept.append({**batch, **own})
    return Recording(scenario, workload_id, tuple(kept))
