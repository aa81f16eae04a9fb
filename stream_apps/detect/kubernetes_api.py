# SPDX-License-Identifier: Apache-2.0
"""``nsp.kubernetes-api``: somebody who should not talks to the cluster's API, with the pod's own account.

Input: connects to the API's addresses, which are configured or what ``kubernetes.default.svc`` is answered by
a trusted or private resolver. Controllers and operators do so all day and are silent: told are processes out
of character (:mod:`stream_apps.detect.character`) in containers, and workloads that were learned without. The
cluster's own clients (``kubectl``, ``helm``) may, unless a service started them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from stream_apps.correlate.programs import program_name
from stream_apps.detect.character import CLIENTS
from stream_apps.detect.contact import ContactObserver
from stream_apps.detect.networks import INSIDE
from stream_apps.detect.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.detect.baseline import Baseline
    from stream_apps.detect.exclusions import Exclusion
    from stream_apps.detect.observer import Frame, Handler
    from stream_apps.detect.rule import Severity

RULE: Final = Rule(
    id="nsp.kubernetes-api",
    title="An unexpected process talks to the Kubernetes API",
    severity="HIGH",
    attack=("T1552.007", "T1613"),
)
ANSWER: Final = "nsp.DnsAnswer"

# The first address of the service network, as kubeadm, k3s, EKS (two), and MicroK8s choose it.
ADDRESSES: Final = ("10.96.0.1", "10.43.0.1", "10.100.0.1", "172.20.0.1", "10.152.183.1")
PORTS: Final = (443, 6443)
_NAMES: Final = ("kubernetes.default.svc", "kubernetes.default")
# Addresses learned from answers; a cluster has one or two.
MAX_LEARNED: Final = 256


class KubernetesApi(ContactObserver):
    """The detector.

    Args:
        exclusions: What is known and wanted.
        severity: The highest it gives.
        addresses: Of the API, beside what is learned.
        ports: Of the API.
        baseline: What workloads did before, where that is known.
    """

    settings: ClassVar[tuple[str, ...]] = (*ContactObserver.settings, "_addresses", "_ports")

    def __init__(
        self,
        exclusions: Sequence[Exclusion] = (),
        severity: Severity | None = None,
        *,
        addresses: Sequence[str] = ADDRESSES,
        ports: Sequence[int] = PORTS,
        baseline: Baseline | None = None,
    ) -> None:
        super().__init__(RULE, exclusions, severity, baseline)
        self._addresses = set(addresses)
        self._ports = frozenset(ports)
        self._learned: set[str] = set()
        self._private = INSIDE

    def handlers(self) -> Mapping[str, Handler]:
        """See :class:`Observer`."""
        return {**super().handlers(), ANSWER: self._answer}

    def target(self, frame: Frame, index: int, event: Mapping[str, Any]) -> str:
        """See :class:`ContactObserver`."""
        address = event["remote_address"]
        if event["remote_port"] not in self._ports or not frame.contained(index):
            return ""
        return "the Kubernetes API" if address in self._addresses or address in self._learned else ""

    def may(self, frame: Frame, index: int, event: Mapping[str, Any]) -> bool:
        """See :class:`ContactObserver`."""
        del event
        return program_name(frame.scene.view.processes[index]["executable"]) in CLIENTS

    def _answer(self, frame: Frame, index: int, event: Mapping[str, Any]) -> None:
        del index
        name: str = event["name"]
        if not name.startswith(_NAMES):
            return
        if event["server_address"] not in self._private and not self.trusts_names(frame, event):
            return
        for each in event["records"]:
            if each["data"] in self._private and len(self._learned) < MAX_LEARNED:
                self._learned.add(each["data"])
