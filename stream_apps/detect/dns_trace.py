# SPDX-License-Identifier: Apache-2.0
"""``nsp.dns-trace``: each resolution of a workload whose profile asks for it (``actions: [trace-dns]``).

Input: DNS answers. Output: informational alerts, one for each answer, up to a rate for each workload: what is
beyond it is counted and left out, since it is on ``nsp.events`` anyway. Nothing is done about them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from stream_apps.detect.rule import Rule, Severity, Sighting, Suspect
from stream_apps.detect.scene import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.detect.exclusions import Exclusion
    from stream_apps.detect.scene import Scene
    from stream_apps.profiles.desk import ProfileDesk

RULE: Final = Rule(
    id="nsp.dns-trace",
    title="A workload under DNS tracing resolved a name",
    severity="INFORMATIONAL",
    attack=(),
)
ANSWER: Final = "nsp.DnsAnswer"

# Of one workload: a busy service resolves a few names a second, and 20 a second are a page nobody reads.
MAX_ANSWERS: Final = 200
WINDOW_NS: Final = 10_000_000_000
# Workloads whose answers are counted; one forgotten begins a new window.
MAX_WORKLOADS: Final = 4096
# Addresses told of one answer.
_SHOWN_ADDRESSES: Final = 8
_RCODES: Final = {0: "no record", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


class DnsTrace:
    """The detector.

    Args:
        profiles: Knows who is traced.
        exclusions: What need not be told.
        severity: Its severity.
    """

    kinds: Sequence[str] = (ANSWER,)
    settings: Sequence[str] = ("rule", "_exclusions")

    def __init__(
        self,
        profiles: ProfileDesk,
        exclusions: Sequence[Exclusion] = (),
        severity: Severity = RULE.severity,
    ) -> None:
        self.rule = Rule(RULE.id, RULE.title, severity, RULE.attack)
        self._profiles = profiles
        self._exclusions = tuple(exclusions)
        self._windows: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()

    def watch(self, scene: Scene) -> Mapping[int, Suspect]:
        """See :class:`stream_apps.detect.rule.Detector`: images of traced workloads."""
        if not self._profiles.traces_anything():
            return {}
        view = scene.view
        traced = [self._profiles.traces(view.node, workload) for workload in view.workloads]
        return {index: Suspect(index) for index, workload in enumerate(view.workload_of) if traced[workload]}

    def judge(self, scene: Scene, suspect: Suspect, kind: str, event: Mapping[str, Any]) -> Sighting | None:
        """See :class:`stream_apps.detect.rule.Detector`."""
        del kind
        name: str = event["name"]
        server: str = event["server_address"]
        trusted = name if scene.names.is_trusted(server) else None
        if any(
            each.covers(scene, suspect) and each.covers_destination(server, trusted)
            for each in self._exclusions
        ):
            return None
        if not self._admits(scene, suspect, event["ktime_ns"]):
            self._profiles.counts["dns_trace_limited"] += 1
            return None
        return Sighting(
            self.rule.severity,
            summary=f"{server} answered {shown(name)}: {_answer(event)}",
            says=f"resolved {shown(name)} at {server}: {_answer(event)}",
            dns_name=name or None,
        )

    def _admits(self, scene: Scene, suspect: Suspect, at_ns: int) -> bool:
        key = scene.view.node, scene.view.workload_ids[suspect.actor]
        since_ns, count = self._windows.get(key, (at_ns, 0))
        if not 0 <= at_ns - since_ns < WINDOW_NS:
            since_ns, count = at_ns, 0
        self._windows[key] = since_ns, count + 1
        self._windows.move_to_end(key)
        if len(self._windows) > MAX_WORKLOADS:
            self._windows.popitem(last=False)
        return count < MAX_ANSWERS


def _answer(event: Mapping[str, Any]) -> str:
    addresses = [each["data"] for each in event["records"] if each["data"]]
    if not addresses or event["rcode"]:
        return _RCODES.get(event["rcode"], f"code {event['rcode']}")
    more = len(addresses) - _SHOWN_ADDRESSES
    text = ", ".join(map(shown, addresses[:_SHOWN_ADDRESSES]))
    return f"{text} and {more} more" if more > 0 else text
