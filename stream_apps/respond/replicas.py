# SPDX-License-Identifier: Apache-2.0
"""Who else does the work of a pod: no response may take the last healthy one of an owner.

Input: the pods of ``nsp.pods`` and what is in force against them. A pod counts as healthy unless the
Kubernetes API says that it is not ready, or it is quarantined by us. A pod that is not known, or that
nothing owns, has no replicas. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.subject import WorkloadSubject

if TYPE_CHECKING:
    from stream_apps.correlate.pods import Pod, PodTable
    from stream_apps.respond.desired import DesiredStates


class Replicas:
    """Counts the healthy pods of an owner."""

    def __init__(self, pods: PodTable, states: DesiredStates) -> None:
        self._pods = pods
        self._states = states

    def too_few(self, pod: Pod | None, wanted: int, now_ns: int) -> str | None:
        """Why a pod must not be touched if so many must be left, or None."""
        if pod is None or pod.owner is None:
            what = "the pod is not known" if pod is None else f"nothing owns pod {pod.name}"
            return f"{what}, and {wanted} healthy replicas must be left"
        left = sum(self._healthy(each, now_ns) for each in self._pods.of_owner(pod) if each.uid != pod.uid)
        if left >= wanted:
            return None
        return f"{left} healthy replicas of {pod.owner} would be left, {wanted} must be"

    def _healthy(self, pod: Pod, now_ns: int) -> bool:
        if pod.ready is False:
            return False
        state = self._states.get(pod.node, str(WorkloadSubject(pod.uid)), now_ns)
        return state is None or not state.quarantined_ns
