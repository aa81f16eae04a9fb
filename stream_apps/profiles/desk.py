# SPDX-License-Identifier: Apache-2.0
"""Compares what each node is to be told with what it was told, and words the difference as orders. Pure.

Input: profiles, pods, nodes and orders as they are read from their topics, and which nodes are this process's
to tell. Output: ``ProfileOrder`` and ``NodeWorkloads`` records, not signed yet, each newer than what is on
the topic and only where something differs. Failure: an order that could not be written is told again when
something changes.

Each profile and pod is known to every process; a node is told by the one that has its partition of
``nsp.events``. Generations come from the evidence (the profile's own, the newest change of a pod it selects),
so two processes that say the same say it with the same number.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from schemas.codec import MAX_PUBLISHED_PROFILE_BYTES
from schemas.subject import NodeSubject, ProfileSubject, parse_profile_subject
from stream_apps.errors import ProfileError
from stream_apps.profiles.book import ProfileBook, digest_of
from stream_apps.profiles.canary import Canaries
from stream_apps.profiles.orders import Content, Orders, profile_content, workloads_content
from stream_apps.profiles.record import problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stream_apps.correlate.pods import Pod
    from stream_apps.profiles.book import AnySubject
    from stream_apps.profiles.canary import Change, Watched

PROFILE_ORDER: Final = "ProfileOrder"
NODE_WORKLOADS: Final = "NodeWorkloads"


@dataclass(frozen=True, slots=True)
class Draft:
    """An order to be signed and sent.

    Attributes:
        name: Its record.
        record: The record.
        subject: Whom it is about.
        content: What it wants.
    """

    name: str
    record: Mapping[str, Any]
    subject: AnySubject
    content: Content


class ProfileDesk:
    """Profiles in, orders out.

    Attributes:
        book: Profiles, pods, nodes.
        counts: By reason.
        canaries: Profiles on trial.
    """

    def __init__(self, book: ProfileBook | None = None) -> None:
        self.book = book or ProfileBook()
        self.counts: Counter[str] = Counter()
        self.canaries = Canaries()
        self._orders = Orders()
        self._mine: Callable[[str], bool] = lambda _: False

    def profile(self, key: str, record: Mapping[str, Any], size: int, published_ns: int = 0) -> None:
        """A profile was published.

        Args:
            key: Key of its message.
            record: The decoded ``SecurityProfile``.
            size: Its encoded size, bytes.
            published_ns: Wall time of its message; a canary begins then.

        Raises:
            ProfileError: It cannot be used; the one before it stays.
        """
        wrong = problem(key, record)
        if wrong is None and size > MAX_PUBLISHED_PROFILE_BYTES:
            wrong = f"{size} bytes are more than {MAX_PUBLISHED_PROFILE_BYTES}; split it by workload"
        wrong = wrong or self.book.put_profile(key, record, size)
        if wrong:
            raise ProfileError(f"profile {key}: {wrong}")
        self.canaries.put(key, record, published_ns)

    def profile_gone(self, key: str, changed_ns: int) -> None:
        """A profile was deleted."""
        self.book.remove_profile(key, changed_ns)
        self.canaries.drop(key)

    def pod(self, uid: str, pod: Pod | None, changed_ns: int) -> None:
        """A pod was published, or (None) is gone."""
        if pod is None:
            self.book.remove_pod(uid, changed_ns)
        else:
            self.book.put_pod(pod, changed_ns)

    def node(self, name: str) -> None:
        """A node has spoken."""
        self.book.node(name)

    def order_read(self, name: str, record: Mapping[str, Any]) -> None:
        """A verified ``ProfileOrder`` or ``NodeWorkloads`` was read from its topic."""
        node = record["node"]
        self.book.node(node)
        subject: AnySubject
        if name == NODE_WORKLOADS:
            subject, content = NodeSubject(node), workloads_content(record["workloads"])
        else:
            subject = parse_profile_subject(record["subject"])
            profile = record["profile"]
            content = profile_content(digest_of(profile) if profile else None, record["workloads"])
            key = f"{subject.namespace}/{subject.name}"
            if self.canaries.order_read(key, profile):
                self._tell_anew(key)
        if self._orders.read(node, subject, record["generation"], content):
            self.book.touch(node, subject)

    def takes(self, mine: Callable[[str], bool]) -> None:
        """From now on these nodes are told by this process."""
        self._mine = mine
        for node in {*self.book.nodes(), *self._orders.nodes()}:
            if mine(node):
                for subject in {*self.book.subjects(node), *self._orders.subjects(node)}:
                    self.book.touch(node, subject)

    def is_mine(self, name: str) -> bool:
        """Whether this process speaks for a node, or for whatever else is spread like nodes are."""
        return self._mine(name)

    def tick(self, now_ns: int) -> None:
        """Let time pass: profiles end."""
        self.book.tick(now_ns)

    def drafts(self, now_ns: int) -> Iterator[Draft]:
        """The orders that are due. Whoever sends one says so (:meth:`sent`) before the next is taken."""
        for (node, subject), changed_ns in self.book.take_changed().items():
            if self._mine(node):
                draft = self._draft(node, subject, changed_ns, now_ns)
                if draft is not None:
                    yield draft

    def sent(self, draft: Draft) -> None:
        """An order is on its way."""
        record = draft.record
        self.counts["orders"] += 1
        self._orders.sent(record["node"], draft.subject, record["generation"], draft.content)

    def _draft(self, node: str, subject: AnySubject, changed_ns: int, now_ns: int) -> Draft | None:
        if isinstance(subject, NodeSubject):
            return self._workloads(subject, changed_ns, now_ns)
        return self._profile(node, subject, changed_ns, now_ns)

    def _workloads(self, subject: NodeSubject, changed_ns: int, now_ns: int) -> Draft | None:
        node = subject.node
        uids = self.book.pods_on(node)
        content = workloads_content(uids)
        told = self._orders.content(node, subject)
        if content == told or (told is None and not uids):
            return None
        evidence_ns = max(changed_ns, self.book.newest_ns(uids))
        record = {
            "node": node,
            "subject": str(subject),
            "generation": self._orders.next_generation(node, subject, evidence_ns),
            "issued_at_ns": now_ns,
            "workloads": uids,
        }
        return Draft(NODE_WORKLOADS, record, subject, content)

    def _profile(self, node: str, subject: ProfileSubject, changed_ns: int, now_ns: int) -> Draft | None:
        held, uids = self.book.wanted(node, subject) or (None, [])
        profile, digest = None, None
        if held:
            key = f"{subject.namespace}/{subject.name}"
            profile, digest = self.canaries.told_as(key, held.record, held.digest)
        content = profile_content(digest, uids)
        told = self._orders.content(node, subject)
        if content == told or (told is None and profile is None):
            return None
        evidence_ns = max(changed_ns, self.book.newest_ns(uids), profile["generation"] if profile else 0)
        record = {
            "node": node,
            "subject": str(subject),
            "generation": self._orders.next_generation(node, subject, evidence_ns),
            "issued_at_ns": now_ns,
            "removed": profile is None,
            "profile": profile,
            "workloads": uids,
        }
        return Draft(PROFILE_ORDER, record, subject, content)

    def profiles_at(self, generation: int) -> tuple[str, ...]:
        """The profiles, ``<namespace>/<name>``, that have a generation now."""
        return self.book.at_generation(generation)

    def is_pending(self, key: str) -> bool:
        """Whether a profile that would refuse only tells for now: a dry run, or a canary on trial."""
        record = self.book.record(key)
        if record is None or "ENFORCE" not in {
            record["mode"],
            *(each["mode"] for each in record["processes"]),
        }:
            return False
        return bool(record["dry_run"]) or self.canaries.is_dry(key)

    def try_canaries(self, now_ns: int, watched: Watched | None) -> list[Change]:
        """Judge the profiles on trial; those that passed are told to their nodes as they were applied.

        Returns:
            What changed, of the profiles this process speaks for.
        """
        changes = self.canaries.judge(now_ns, watched, self.book.places)
        for change in changes:
            self.counts[f"canaries_{change.state}"] += 1
            if change.state == "passed":
                self._tell_anew(change.key)
        return [each for each in changes if self.is_mine(each.key)]

    def _tell_anew(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        for node in self.book.places(key):
            self.book.touch(node, ProfileSubject(namespace, name))

    def traces_anything(self) -> bool:
        """Whether any profile asks for DNS tracing."""
        return self.book.traces_anything()

    def traces(self, node: str, workload: Mapping[str, Any]) -> bool:
        """Whether a profile that selects a ``Workload`` asks for DNS tracing."""
        return self.book.traces(node, workload)

    def metrics(self) -> Mapping[tuple[str, str], int]:
        """Counters and sizes for the page of the stream app, stage ``profiles``."""
        figures = {
            **self.counts,
            **self.book.counts,
            **self.book.sizes(),
            **self.canaries.metrics(),
            "subjects_now": len(self._orders),
            "subjects_forgotten": self._orders.forgotten,
        }
        return {("profiles", name): value for name, value in figures.items()}
