# SPDX-License-Identifier: Apache-2.0
"""What a detector is, and what it says.

A detector works in two steps, because a batch has hundreds of events and few program images. ``watch`` looks
at the images once and names those whose events matter; ``judge`` sees just these events. Whatever no
detector watches costs one dictionary look-up.

What has no suspects, because only many events show it, is an :class:`stream_apps.detect.observer.Observer`.

Detectors keep nothing from batch to batch: a batch has the lineage of all it tells. State exists for names
(``correlate.names``) and for not repeating an alert (``detect.suppression``), and both can be lost without
missing a detection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.detect.exclusions import Exclusion
    from stream_apps.detect.scene import Scene

Severity = Literal["INFORMATIONAL", "LOW", "MEDIUM", "HIGH", "CRITICAL"]
RANK: Final[dict[Severity, int]] = {"INFORMATIONAL": 0, "LOW": 1, "MEDIUM": 2, "HIGH": 3, "CRITICAL": 4}


def level(severity: Severity) -> int:
    """The rank up to HIGH. From there on an alert means "act", and more severe means no other act.

    So an attack that shows more and more of itself is one alert, not one a step.
    """
    return min(RANK[severity], RANK["HIGH"])


@dataclass(frozen=True, slots=True)
class Rule:
    """What is the same for all alerts of a detector.

    Attributes:
        id: Stable id.
        title: One line for people.
        severity: The highest it gives.
        attack: ATT&CK technique ids that always apply.
    """

    id: str
    title: str
    severity: Severity
    attack: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Suspect:
    """An image whose events are judged.

    Attributes:
        actor: Its index; 0 for what no process did.
        cut_root: Index of the image whose process would be cut; 0 for none.
        service: Index of the service above it; 0 for none.
        tool: Index of the shell, interpreter, downloader or relay that gives it away; 0 for none.
        trait: What gives it away, in the detector's own terms.
        why: The same in words that follow the program's name.
        exclusions: Exclusions that apply if the destination is theirs too.
    """

    actor: int
    cut_root: int = 0
    service: int = 0
    tool: int = 0
    trait: str = ""
    why: str = ""
    exclusions: tuple[Exclusion, ...] = ()


@dataclass(frozen=True, slots=True)
class Destination:
    """Where something went."""

    address: str
    port: int
    protocol: int


@dataclass(frozen=True, slots=True)
class ProfileVerdict:
    """What a profile made of it, and what it would make of it once its dry run is over.

    Attributes:
        in_force: ``allowed`` or ``refused``: what happened.
        pending: ``refused`` under a profile that runs dry or is on trial; empty: there is none.
        profile: ``namespace/name``, several separated by commas; empty when it is not known any more.
        generation: Of the profile.
        reason: The layer that nothing passed, as in ``Refusal``.
        place: Where in the profile a rule would have to be; empty when it is not known.
    """

    in_force: Literal["allowed", "refused"]
    pending: Literal["", "refused"]
    profile: str
    generation: int
    reason: str
    place: str


@dataclass(frozen=True, slots=True)
class Sighting:
    """One event that is evidence.

    Attributes:
        severity: How bad, by this event.
        summary: The event in a line, hostile input escaped.
        says: What happened, continuing a sentence that begins with the actor.
        destination: Where it went, when it went somewhere.
        dns_name: Name asked, or the name behind the destination.
        attack: ATT&CK ids beside the rule's.
        weight: How much it tells, of all sightings of a finding: the heaviest describes it.
        workload: Index of the workload it happened to, where that is not the actor's; None: the actor's.
        group: Where no process is behind it: what is one finding with it; 0: each event is one.
        verdict: What a profile made of it, where one did.
    """

    severity: Severity
    summary: str
    says: str
    destination: Destination | None = None
    dns_name: str | None = None
    attack: tuple[str, ...] = ()
    weight: int = 0
    workload: int | None = None
    group: int = 0
    verdict: ProfileVerdict | None = None


class Detector(Protocol):
    """One detector. An error it raises is counted and reported with the event; other detectors go on."""

    @property
    def rule(self) -> Rule:
        """What is the same for all its alerts."""

    @property
    def kinds(self) -> Sequence[str]:
        """Full names of the event records it judges."""

    @property
    def settings(self) -> Sequence[str]:
        """Names of its attributes that come from the configuration (:mod:`stream_apps.detect.retune`)."""

    def watch(self, scene: Scene) -> Mapping[int, Suspect]:
        """The images to judge events of, by index. Called once a batch."""

    def judge(self, scene: Scene, suspect: Suspect, kind: str, event: Mapping[str, Any]) -> Sighting | None:
        """Judge one event of a suspect; None when it is no evidence."""
