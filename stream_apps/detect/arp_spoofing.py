# SPDX-License-Identifier: Apache-2.0
"""``nsp.arp-spoofing``: somebody claims an address on the wire that is not his.

Input: ArpSpoofing events, which the kernel makes on interfaces of workloads (and of the host) whose profile
lists ``arp-spoofing``. What the kernel judged is taken as it is; that a profile allows no ARP at all is no
spoofing and left out.

Who is behind a frame that came in nobody on this node knows: the alert is then about the interface and the
address claimed. A frame sent by a packet socket here names its process. No response is bound to the rule:
what is to be dropped the kernel has dropped, by the profile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_apps.detect.exclusions import has_labels, matches
from stream_apps.detect.rule import RANK, Rule, Severity, Sighting, Suspect
from stream_apps.detect.scene import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.detect.exclusions import Exclusion
    from stream_apps.detect.scene import Scene

RULE: Final = Rule(
    id="nsp.arp-spoofing",
    title="Somebody claims another's address on the wire",
    severity="HIGH",
    attack=("T1557.002",),
)
ARP_SPOOFING: Final = "nsp.ArpSpoofing"

# What a finding of the kernel's is worth, and how it goes on after "claims <address> for <mac>".
_FINDINGS: Final[dict[str, tuple[Severity, str]]] = {
    "GATEWAY": ("HIGH", "which is the gateway's address, known at {known}"),
    "OWN_ADDRESS": ("HIGH", "which is the interface's own address"),
    "CONTRADICTION": ("HIGH", "which is known at {known}"),
    "FOREIGN_ADDRESS": ("HIGH", "which is not its own"),
    "SENDER_MISMATCH": ("MEDIUM", "in a frame from {source}"),
    "UNSOLICITED": ("MEDIUM", "which nobody asked for"),
    "MALFORMED": ("LOW", "in a frame that cannot be read"),
}
# What claims to be the gateway tells more than a frame that merely looks odd.
_WEIGHTS: Final = {"GATEWAY": 3, "OWN_ADDRESS": 2, "CONTRADICTION": 2, "FOREIGN_ADDRESS": 2}
_GROUP_BITS: Final = 48


class ArpSpoofing:
    """The detector.

    Args:
        exclusions: What is known and wanted.
        severity: The highest it gives.
    """

    kinds: Sequence[str] = (ARP_SPOOFING,)
    settings: Sequence[str] = ("rule", "_exclusions")

    def __init__(self, exclusions: Sequence[Exclusion] = (), severity: Severity = RULE.severity) -> None:
        self.rule = Rule(RULE.id, RULE.title, severity, RULE.attack)
        self._exclusions = tuple(exclusions)

    def watch(self, scene: Scene) -> Mapping[int, Suspect]:
        """See :class:`stream_apps.detect.rule.Detector`: anybody, and nobody."""
        return {index: Suspect(index, cut_root=index) for index in range(len(scene.view.processes))}

    def judge(self, scene: Scene, suspect: Suspect, kind: str, event: Mapping[str, Any]) -> Sighting | None:
        """See :class:`stream_apps.detect.rule.Detector`."""
        del kind
        known = _FINDINGS.get(event["finding"])
        if known is None or any(_covers(each, scene, suspect, event) for each in self._exclusions):
            return None
        severity, words = known
        claim = f"{event['sender_address']} for {event['sender_mac']}"
        behind = words.format(known=event["known_mac"] or "another MAC", source=event["source_mac"])
        done = "reported" if event["alerted_only"] else "dropped"
        where = _where(scene, event)
        says = f"claims {claim}, {behind} ({done}, on {where})"
        if not suspect.actor:
            says = f"saw a claim of {claim}, {behind} ({done}, on {where})"
        return Sighting(
            min(severity, self.rule.severity, key=RANK.__getitem__),
            summary=f"{event['finding'].lower()}: {event['protocol']} {claim}, from {event['source_mac']}",
            says=says,
            weight=_WEIGHTS.get(event["finding"], 1),
            workload=event["workload"],
            group=_group(event),
        )


def _where(scene: Scene, event: Mapping[str, Any]) -> str:
    workload = shown(_workload(scene, event)["id"])
    return f"interface {event['interface_index']} of {workload}"


def _workload(scene: Scene, event: Mapping[str, Any]) -> Mapping[str, Any]:
    workloads = scene.view.workloads
    if not 0 <= event["workload"] < len(workloads):
        raise IndexError(f"workload {event['workload']} is not in the dictionary of {len(workloads)}")
    found: Mapping[str, Any] = workloads[event["workload"]]
    return found


def _group(event: Mapping[str, Any]) -> int:
    """One finding an interface, however many frames and addresses: an attack sends many of both."""
    number: int = event["network_namespace"] << 16 ^ event["interface_index"]
    return 1 + number % (1 << _GROUP_BITS)


def _covers(exclusion: Exclusion, scene: Scene, suspect: Suspect, event: Mapping[str, Any]) -> bool:
    """As :meth:`Exclusion.covers`, about the interface's workload; what names programs needs a process."""
    if exclusion.dns_names:
        return False
    if not exclusion.covers_destination(event["sender_address"], None):
        return False
    if exclusion.actors or exclusion.services or exclusion.launchers or exclusion.argv_prefix:
        return bool(suspect.actor) and exclusion.covers(scene, suspect)
    workload = _workload(scene, event)
    if not matches(exclusion.workloads, workload["id"]):
        return False
    if not exclusion.namespaces and not exclusion.labels:
        return True
    pod = scene.pods.of_workload(workload)
    return (
        pod is not None
        and matches(exclusion.namespaces, pod.namespace)
        and has_labels(pod.labels, exclusion.labels)
    )
