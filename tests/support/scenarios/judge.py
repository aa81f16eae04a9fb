# SPDX-License-Identifier: Apache-2.0
"""The pipeline's judgement of a recording: real events, the real pipeline, a time that may be slower."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_apps.config.document import parse
from stream_apps.correlate.pods import PodTable
from stream_apps.pipeline import Pipeline
from tests.support.scenarios.world import DNS, INSIDE, PEER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.scenarios.recording import Record, Recording

# Services of the scenarios are exploited seconds after their start, which is when entry points work. Learned
# is what one replica does in two days, so what is done only at its start weighs more than in a cluster.
CONFIGURATION: Final = f"""
correlate: {{start_grace_s: 1, names: {{trusted_resolvers: ["{DNS}/32"]}}}}
learn: {{gate: {{min_pods: 1, min_coverage: 0.8, max_disagreement: 0.3}}}}
"""
_PEER_UID: Final = "5b1f0c52-7a0e-4c57-8a59-3d0c5be8f1aa"


def alerts_of(recording: Recording) -> list[Record]:
    """The alerts of a pipeline that sees nothing else."""
    return judge(recording.batches, recording.workload_id)


def judge(batches: Sequence[Record], workload_id: str) -> list[Record]:
    """The alerts of a pipeline that sees these batches, with the pods of the scene known."""
    pods = PodTable()
    pods.put(pod(workload_id, "inside", INSIDE))
    pods.put(pod(_PEER_UID, "peer", PEER))
    pipeline = Pipeline(parse(CONFIGURATION), pods)
    found: list[Record] = []
    for batch in batches:
        outcome = pipeline.process(batch, batch["clock"]["wall_ns"])
        assert outcome.errors == [], outcome.errors
        found += outcome.alerts
        if (
            pipeline.learner is not None
        ):  # what a stream app publishes meanwhile; a workload becomes stable by it
            list(pipeline.learner.due(batch["clock"]["wall_ns"]))
    return found


def rules_of(alerts: Sequence[Record]) -> set[str]:
    """The rules that told something."""
    return {each["rule_id"] for each in alerts}


def pod(uid: str, name: str, address: str) -> dict[str, Any]:
    """A ``Pod`` record."""
    return {
        "uid": uid, "namespace": "shop", "name": f"{name}-0", "labels": {"app": name}, "owner_kind":
        "Deployment", "owner_name": name, "service_account": "default", "node": "test-node", "ips": [address],
        "containers": [],
    }  # fmt: skip
