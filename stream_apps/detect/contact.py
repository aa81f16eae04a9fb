# SPDX-License-Identifier: Apache-2.0
"""Contacts that count by who makes them: what the detectors of such contacts share.

Input: connects and refused attempts. Output: for a process out of character, or one whose workload was
learned without that contact, a :class:`Sighting`; each workload and destination once a day. A subclass says
which destinations are meant and who may. Bounded; what is forgotten is told again, under suppression.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_apps.detect.bounded import Bounded
from stream_apps.detect.character import DROPPED, TOOL, and_so, character
from stream_apps.detect.egress import CONNECT, REFUSAL
from stream_apps.detect.observer import Frame, Observer
from stream_apps.detect.rule import Destination, Sighting
from stream_apps.detect.scene import endpoint, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.detect.baseline import Baseline
    from stream_apps.detect.exclusions import Exclusion
    from stream_apps.detect.observer import Handler
    from stream_apps.detect.rule import Rule, Severity

# Contacts told, of all workloads: an attacker makes some hundred.
MAX_TOLD: Final = 50_000
_TOLD_NS: Final = 86_400_000_000_000


class ContactObserver(Observer):
    """Base of detectors of contacts.

    Args:
        rule: The rule.
        exclusions: What is known and wanted.
        severity: The highest it gives.
        baseline: What workloads did before, where that is known.
    """

    def __init__(
        self,
        rule: Rule,
        exclusions: Sequence[Exclusion] = (),
        severity: Severity | None = None,
        baseline: Baseline | None = None,
    ) -> None:
        super().__init__(rule, exclusions, severity)
        self._baseline = baseline
        self._told: Bounded[tuple[str, str, int], int] = Bounded(MAX_TOLD, int)

    def firsts(self) -> Mapping[str, Handler]:
        """See :class:`Observer`."""
        return {CONNECT: self._contact}

    def handlers(self) -> Mapping[str, Handler]:
        """See :class:`Observer`."""
        return {REFUSAL: self._refusal}

    def metrics(self) -> Mapping[str, int]:
        """See :class:`Observer`."""
        return {"evicted": self._told.evicted, "contacts_now": len(self._told)}

    def target(self, frame: Frame, index: int, event: Mapping[str, Any]) -> str:
        """What a contact is with, in words; empty when it is none of this detector's."""
        raise NotImplementedError

    def may(self, frame: Frame, index: int, event: Mapping[str, Any]) -> bool:
        """Whether a tool that no service started may do this."""
        raise NotImplementedError

    def _refusal(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        if event["hook"] != "CONNECT" or event["reason"].startswith("QUARANTINED"):
            return None
        return self._contact(frame, index, event)

    def _contact(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        level, why = character(frame, index)
        if level < TOOL and self._baseline is None:
            return None
        what = self.target(frame, index, event)
        if not what:
            return None
        if level >= DROPPED:
            severity: Severity = "HIGH"
        elif level == TOOL and not self.may(frame, index, event):
            severity = "MEDIUM"
        elif self._is_new(frame, index, event):
            severity, why = "MEDIUM", "never did so while its workload was learned"
        else:
            return None
        address, port = event["remote_address"], event["remote_port"]
        now_ns = event["ktime_ns"] + frame.offset_ns
        key = frame.workload_ids[index], address, port
        if (self._told.peek(key) or 0) > now_ns:
            return None
        self._told.put(key, now_ns + _TOLD_NS)
        where = endpoint(address, port)
        return Sighting(
            self.capped(severity),
            f"contact with {what} at {where}",
            and_so(why, f"contacts {what} at {where}"),
            Destination(address, port, event["protocol"]),
            weight=level,
        )

    def _is_new(self, frame: Frame, index: int, event: Mapping[str, Any]) -> bool:
        return is_new_destination(self._baseline, frame, index, event)


def is_new_destination(baseline: Baseline | None, frame: Frame, index: int, event: Mapping[str, Any]) -> bool:
    """Whether a workload was learned without a destination; by name where a trusted one is behind it."""
    if baseline is None:
        return False
    value = destination_value(frame, index, event)
    return baseline.known(frame.workload_ids[index], "destination", value) is False


def destination_value(frame: Frame, index: int, event: Mapping[str, Any]) -> str:
    """A destination as baselines know it (:mod:`stream_apps.detect.baseline`)."""
    address, port = event["remote_address"], event["remote_port"]
    known = frame.scene.name_behind(index, address, event["ktime_ns"])
    if known is not None and known.trusted:
        return f"{shown(known.name)}:{port}"
    return endpoint(address, port)
