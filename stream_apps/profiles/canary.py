# SPDX-License-Identifier: Apache-2.0
"""Profiles on trial: a dry run for ``canaryFor``, then enforced by itself, or held for a person. Pure.

Input: profiles with the time of their message, orders as they are read, and what the learner knows: what the
kernel would have stopped of what is learned, up to when each node was heard, and when it lost events. Output:
whether a profile is to be told to nodes as a dry run, and each change of a trial as an alert.

Nothing is kept here that is not on a topic: the beginning of a trial is the time of the profile's message,
what would have been stopped is marked on the behaviours of ``nsp.observations``, and that a trial was passed
stands in the signed orders themselves. So every process comes to the same end, and a restart begins nothing
anew. Failure: whatever is not known keeps a profile on trial or holds it, and never lets it pass.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from schemas.profile.selector import selects_pod
from stream_apps.detect.scene import shown
from stream_apps.learn.evidence import deed, moment
from stream_apps.profiles.book import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from stream_apps.learn.behaviour import Behaviour, Key
    from stream_apps.learn.shard import Shard

RULE_ID: Final = "nsp.canary"
TITLE: Final = "A profile's trial is over, or held"
# Trials are judged this often, and their end this much later: by then what was learned up to the end is on
# the topic (learn.publish_s is a minute) and has reached every process.
JUDGE_EVERY_NS: Final = 10_000_000_000
SETTLE_NS: Final = 150_000_000_000
# Of what would have been stopped, told in the alert.
MAX_TOLD: Final = 10
_ID_DIGITS: Final = 32

State = Literal["running", "held", "passed"]


class Watched(Protocol):
    """What the learner knows."""

    def heard_of(self, node: str) -> tuple[int, int]:
        """Wall ns up to which a node was heard, and of its last loss; 0: never."""

    def would_stop(self) -> Iterator[tuple[Shard, Key, Behaviour]]:
        """What is learned, and would have been stopped by a profile that only told."""


@dataclass(slots=True)
class _Trial:
    """One profile's.

    Attributes:
        record: The profile as it was published.
        dry: The same as a dry run.
        digest: Of ``dry``.
        began_ns: Wall time of its message.
        state: How it stands.
        reasons: Why it is held.
        nodes: Where it had a place while it ran.
        told: Its state has been said.
    """

    record: Mapping[str, Any]
    dry: Mapping[str, Any]
    digest: bytes
    began_ns: int
    state: State = "running"
    reasons: tuple[str, ...] = ()
    nodes: set[str] = field(default_factory=set)
    told: bool = False

    @property
    def ends_ns(self) -> int:
        """When it may pass."""
        return self.began_ns + int(self.record["canary_for_ns"])


@dataclass(frozen=True, slots=True)
class Change:
    """A trial is over or held.

    Attributes:
        key: The profile.
        generation: Its generation.
        state: ``held`` or ``passed``.
        reasons: Why it is held.
        began_ns: When it began.
        at_ns: When this was found.
    """

    key: str
    generation: int
    state: State
    reasons: tuple[str, ...]
    began_ns: int
    at_ns: int

    def alert(self) -> dict[str, Any]:
        """The ``Alert`` record: of no node and no process."""
        held = self.state == "held"
        said = (
            f"Profile {shown(self.key)} stays a dry run and waits for a person: {'; '.join(self.reasons)}. "
            "Apply it with other rules for a new trial, or without canaryFor to enforce it as it is."
            if held
            else f"Profile {shown(self.key)} is enforced: since {moment(self.began_ns)} it would have "
            "stopped nothing that was learned, and no event was lost."
        )
        return {
            "id": alert_id(self.key, self.generation, self.state),
            "rule_id": RULE_ID,
            "title": TITLE,
            "description": said,
            "severity": "MEDIUM" if held else "INFORMATIONAL",
            "attack": [],
            "node": "",
            "boot_id": "",
            "observed_at_ns": self.at_ns,
            "observed_boot_ns": 0,
            "detected_at_ns": self.at_ns,
            "workload": {
                "id": f"profile/{self.key}", "kind": "PROFILE", "cgroup_path": "",
                "namespace": self.key.partition("/")[0], "pod": None, "pod_uid": None, "container": None,
                "container_id": None, "image": None, "owner": None, "service_account": None, "labels": {},
            },
            "lineage": [],
            "evidence": [
                {"position": 0, "ktime_ns": 0, "kind": "ProfileTrial", "summary": each}
                for each in self.reasons
            ],
            "remote_address": None,
            "remote_port": None,
            "dns_name": None,
            "response": {
                "action": "alert", "decision": "none", "subject": f"profile/{self.key}",
                "generation": self.generation, "expires_at_ns": 0, "reason": self.state,
            },
            "audit": None,
            "verdict": None,
        }  # fmt: skip


def alert_id(key: str, generation: int, state: State) -> str:
    """32 hex digits: what several processes find, or one finds again, is one alert."""
    text = f"{RULE_ID}\n{key}\n{generation}\n{state}"
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]


def on_trial(record: Mapping[str, Any]) -> bool:
    """Whether a profile asks for a trial; one that refuses nothing anyway needs none."""
    return record["canary_for_ns"] > 0 and not record["dry_run"]


def passed_by(profile: Mapping[str, Any], generation: int) -> bool:
    """Whether a profile, as an order has it, says that its trial of a generation was passed."""
    return on_trial(profile) and bool(profile["generation"] == generation)


class Canaries:
    """All trials."""

    def __init__(self) -> None:
        self._trials: dict[str, _Trial] = {}
        # Of orders read before their profile.
        self._passed: dict[str, int] = {}
        self._judged_ns = 0

    def __bool__(self) -> bool:
        """Whether any trial runs."""
        return any(each.state == "running" for each in self._trials.values())

    def put(self, key: str, record: Mapping[str, Any], published_ns: int) -> None:
        """A profile was published."""
        if not on_trial(record):
            self.drop(key)
            return
        known = self._trials.get(key)
        if known is not None and known.record == record:
            return
        dry = {**record, "dry_run": True}
        # Without a time of the message its generation is one: the wall time of the apply.
        trial = _Trial(record, dry, digest_of(dry), published_ns or record["generation"])
        if self._passed.get(key) == record["generation"]:
            trial.state, trial.told = "passed", True
        self._trials[key] = trial

    def drop(self, key: str) -> None:
        """A profile is gone, or on trial no more."""
        self._trials.pop(key, None)
        self._passed.pop(key, None)

    def order_read(self, key: str, profile: Mapping[str, Any] | None) -> bool:
        """A verified order was read; True when it says that a trial was passed which ran here."""
        if profile is None or not on_trial(profile):
            return False
        trial = self._trials.get(key)
        if trial is None:
            self._passed[key] = max(profile["generation"], self._passed.get(key, 0))
            return False
        if not passed_by(profile, trial.record["generation"]) or trial.state == "passed":
            return False
        trial.state, trial.told, trial.reasons = "passed", True, ()
        return True

    def told_as(self, key: str, record: Mapping[str, Any], digest: bytes) -> tuple[Mapping[str, Any], bytes]:
        """A profile as nodes are told of it, with its digest."""
        trial = self._trials.get(key)
        if trial is None or trial.state == "passed":
            return record, digest
        return trial.dry, trial.digest

    def is_dry(self, key: str) -> bool:
        """Whether a profile is told as a dry run because of its trial."""
        trial = self._trials.get(key)
        return trial is not None and trial.state != "passed"

    def judge(
        self,
        now_ns: int,
        watched: Watched | None,
        places: Callable[[str], Mapping[str, Collection[str]]],
    ) -> list[Change]:
        """Look at the trials that run.

        Args:
            now_ns: Wall time.
            watched: What is known; None: nothing is learned.
            places: Nodes where a profile has a place, with its pods there.
        """
        if now_ns - self._judged_ns < JUDGE_EVERY_NS or not self._trials:
            return []
        self._judged_ns = now_ns
        changes = []
        marks = None
        for key, trial in self._trials.items():
            if trial.state == "running":
                if marks is None:
                    marks = list(watched.would_stop()) if watched is not None else []
                self._look(trial, now_ns, watched, places(key), marks)
            if trial.state != "running" and not trial.told:
                trial.told = True
                changes.append(
                    Change(
                        key, trial.record["generation"], trial.state, trial.reasons, trial.began_ns, now_ns
                    )
                )
        return changes

    def metrics(self) -> Mapping[str, int]:
        """Trials by state."""
        states = Counter(each.state for each in self._trials.values())
        return {f"canaries_{state}_now": states[state] for state in ("running", "held", "passed")}

    @staticmethod
    def _look(
        trial: _Trial,
        now_ns: int,
        watched: Watched | None,
        places: Mapping[str, Collection[str]],
        marks: Iterable[tuple[Shard, Key, Behaviour]],
    ) -> None:
        trial.nodes |= places.keys()
        if watched is None:
            trial.state, trial.reasons = (
                "held",
                ("nothing is learned here (learn.enabled), so nobody can say",),
            )
            return
        reasons = [
            f"would have stopped what is learned of {shown(shard.identity.key)}: {deed(what)}"
            for shard, what, behaviour in marks
            if _is_of(trial.record, shard, behaviour, places)
        ]
        more = [f"and {len(reasons) - MAX_TOLD} more"] if len(reasons) > MAX_TOLD else []
        reasons = [*reasons[:MAX_TOLD], *more]
        heard = {node: watched.heard_of(node) for node in sorted(trial.nodes)}
        reasons += [
            f"events of node {shown(node)} were lost at {moment(loss_ns)}"
            for node, (_, loss_ns) in heard.items()
            if loss_ns >= trial.began_ns
        ][:MAX_TOLD]
        if reasons:
            trial.state, trial.reasons = "held", tuple(reasons)
        elif (
            places
            and now_ns >= trial.ends_ns + SETTLE_NS
            and all(heard[node][0] >= trial.ends_ns for node in places)
        ):
            trial.state = "passed"


def _is_of(
    record: Mapping[str, Any], shard: Shard, behaviour: Behaviour, places: Mapping[str, Collection[str]]
) -> bool:
    """Whether it is this profile that would have stopped it.

    The kernel reports the newest profile of a workload: a newer one on the same workload stands for this one
    too, for what one of them passes is not stopped.
    """
    generation: int = record["generation"]
    if behaviour.pending_generation == generation:
        return True
    if behaviour.pending_generation < generation:
        return False
    identity = shard.identity
    if record["scope"] == "NODE":
        return identity.kind != "POD" and shard.node in places
    pods = places.get(shard.node, ())
    return any(each in pods for each in shard.instances) or selects_pod(
        record, identity.namespace, identity.labels
    )
