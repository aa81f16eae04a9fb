# SPDX-License-Identifier: Apache-2.0
"""``nsp.metadata-service``: somebody who should not asks the cloud for the machine's credentials.

Input: connects, datagrams and refusals to the metadata addresses, questions for their names, and who did it
(:mod:`stream_apps.detect.character`). A workload's own program asks with the SDK all day and is silent here,
unless a learned profile says that it never did before: that is what a forged request (SSRF) looks like.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from stream_apps.detect.character import DROPPED, INTRUDER, TOOL, and_so, character
from stream_apps.detect.contact import is_new_destination
from stream_apps.detect.egress import CONNECT, DATAGRAM, QUESTION, REFUSAL
from stream_apps.detect.observer import Frame, Observer
from stream_apps.detect.rule import Destination, Rule, Sighting
from stream_apps.detect.scene import endpoint, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.detect.baseline import Baseline
    from stream_apps.detect.exclusions import Exclusion
    from stream_apps.detect.observer import Handler
    from stream_apps.detect.rule import Severity

RULE: Final = Rule(
    id="nsp.metadata-service",
    title="An unexpected process asks the cloud's metadata service",
    severity="HIGH",
    attack=("T1552.005",),
)

# AWS, Google, Azure, OpenStack, Oracle, DigitalOcean; AWS over IPv6; ECS tasks; Azure's wire server; Alibaba.
ADDRESSES: Final = (
    "169.254.169.254", "fd00:ec2::254", "169.254.170.2", "168.63.129.16", "100.100.100.200",
    "fd20:ce::254", "169.254.170.23", "fd00:ec2::23",
)  # fmt: skip
NAMES: Final = (
    "metadata.google.internal", "metadata.goog", "metadata", "instance-data", "instance-data.ec2.internal",
    "metadata.azure.internal", "metadata.tencentyun.com",
)  # fmt: skip
_DNS_PORT: Final = 53


class MetadataService(Observer):
    """The detector.

    Args:
        exclusions: What is known and wanted.
        severity: The highest it gives.
        addresses: Of metadata services.
        names: Of metadata services.
        baseline: What workloads did before, where that is known.
    """

    settings: ClassVar[tuple[str, ...]] = (*Observer.settings, "_addresses", "_names")

    def __init__(
        self,
        exclusions: Sequence[Exclusion] = (),
        severity: Severity | None = None,
        *,
        addresses: Sequence[str] = ADDRESSES,
        names: Sequence[str] = NAMES,
        baseline: Baseline | None = None,
    ) -> None:
        super().__init__(RULE, exclusions, severity)
        self._addresses = frozenset(addresses)
        self._names = frozenset(names)
        self._baseline = baseline

    def firsts(self) -> Mapping[str, Handler]:
        """See :class:`Observer`."""
        return {CONNECT: self._contact, DATAGRAM: self._contact}

    def handlers(self) -> Mapping[str, Handler]:
        """See :class:`Observer`."""
        return {QUESTION: self._question, REFUSAL: self._refusal}

    def _contact(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        address: str = event["remote_address"]
        # Port 53 there is the cloud's resolver.
        if address not in self._addresses or event["remote_port"] == _DNS_PORT:
            return None
        where = endpoint(address, event["remote_port"])
        destination = Destination(address, event["remote_port"], event["protocol"])
        found = self._sighting(
            frame, index, f"connect to {where}", f"asks the metadata service {where}", destination
        )
        if found is None and is_new_destination(self._baseline, frame, index, event):
            says = f"never did so while its workload was learned and asks the metadata service {where}"
            return Sighting(self.capped("MEDIUM"), f"connect to {where}", says, destination)
        return found

    def _refusal(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        if event["hook"] not in ("CONNECT", "SENDMSG") or event["reason"].startswith("QUARANTINED"):
            return None
        return self._contact(frame, index, event)

    def _question(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        name: str = event["name"]
        if name not in self._names:
            return None
        return self._sighting(
            frame, index, f"asked for {shown(name)}", f"asks for the metadata service's name {shown(name)}"
        )

    def _sighting(
        self, frame: Frame, index: int, summary: str, says: str, destination: Destination | None = None
    ) -> Sighting | None:
        level, why = character(frame, index)
        if level >= DROPPED:
            severity: Severity = "HIGH"
        elif level == TOOL:
            severity = "MEDIUM" if frame.contained(index) else "LOW"
        else:
            return None
        attack = ("T1190",) if level == INTRUDER else ()
        return Sighting(
            self.capped(severity), summary, and_so(why, says), destination, attack=attack, weight=level
        )
