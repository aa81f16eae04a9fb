# SPDX-License-Identifier: Apache-2.0
"""What each node was told of each profile: the newest order on ``nsp.enforcement``, as this process knows it.

Input: orders read from the topic (whoever of us wrote them) and orders sent. Output: whether a node was told
something already, and the generation its next order must have. Pure.

The topic decides, not memory: whoever publishes next, after a restart or a rebalance, compares what is wanted
with what is there, says only what differs, and always with a higher generation than any seen. An order of
another process that comes between ours (two of us believed the node theirs) makes us say ours again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stream_apps.profiles.book import AnySubject

# Profiles times nodes that were ever told of them; 150 bytes each. Beyond it, what is on the topic is not
# remembered: it is said once more by each process that comes to it, and costs nothing else.
MAX_SUBJECTS: Final = 1_000_000
_DIGEST_BYTES: Final = 16
REMOVED: Final = b"removed"

Content = bytes
"""What an order wants, without when: equal contents need no new order."""


def profile_content(digest: bytes | None, uids: Iterable[str]) -> Content:
    """The content of a ProfileOrder; without a profile's digest, of one that removes it."""
    return REMOVED if digest is None else _digest(digest, uids)


def workloads_content(uids: Iterable[str]) -> Content:
    """The content of a NodeWorkloads."""
    return _digest(b"workloads", uids)


def _digest(what: bytes, uids: Iterable[str]) -> Content:
    digest = hashlib.blake2b(what, digest_size=_DIGEST_BYTES)
    for uid in uids:
        digest.update(b"\0" + uid.encode())
    return digest.digest()


@dataclass(slots=True)
class _Told:
    """Of one subject on one node.

    Attributes:
        content: Of the newest order; empty when it is not sure which one a sensor obeys.
        highest: The highest generation seen or sent.
        obeyed: The order that sensors obey: of those read the highest, of equal ones the first.
        pending: Orders sent that were not read from the topic yet.
    """

    content: Content
    highest: int
    obeyed: tuple[int, Content] = (0, b"")
    pending: list[tuple[int, Content]] = field(default_factory=list)


class Orders:
    """By node and subject.

    Attributes:
        forgotten: Orders not remembered because of the bound.
    """

    def __init__(self, max_subjects: int = MAX_SUBJECTS) -> None:
        self.forgotten = 0
        self._max_subjects = max_subjects
        self._told: dict[str, dict[AnySubject, _Told]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def nodes(self) -> Iterator[str]:
        """Nodes that were told anything."""
        return iter(self._told)

    def subjects(self, node: str) -> Iterator[AnySubject]:
        """What a node was told of."""
        return iter(self._told.get(node, ()))

    def content(self, node: str, subject: AnySubject) -> Content | None:
        """What a node was told last; None: nothing."""
        told = self._told.get(node, {}).get(subject)
        return told.content if told else None

    def next_generation(self, node: str, subject: AnySubject, evidence_ns: int) -> int:
        """The generation of the next order: that of its evidence, and above all before it."""
        told = self._told.get(node, {}).get(subject)
        return max(evidence_ns, told.highest + 1 if told else 1)

    def sent(self, node: str, subject: AnySubject, generation: int, content: Content) -> None:
        """An order is on its way to the topic."""
        told = self._get(node, subject)
        if told is not None:
            told.content = content
            told.highest = max(told.highest, generation)
            told.pending.append((generation, content))

    def read(self, node: str, subject: AnySubject, generation: int, content: Content) -> bool:
        """An order was read from the topic; True when it is not what we said last."""
        told = self._get(node, subject)
        if told is None:
            return False
        order = generation, content
        told.highest = max(told.highest, generation)
        late = generation <= told.obeyed[0] and order != told.obeyed
        if not late:
            told.obeyed = order
            if order in told.pending:
                del told.pending[: told.pending.index(order) + 1]
                return False
        told.pending.clear()
        # No sensor obeys a late one, but one that starts after compaction finds no other.
        told.content = b"" if late else content
        return True

    def _get(self, node: str, subject: AnySubject) -> _Told | None:
        of_node = self._told.setdefault(node, {})
        told = of_node.get(subject)
        if told is None:
            if self._count >= self._max_subjects:
                self.forgotten += 1
                return None
            self._count += 1
            told = of_node[subject] = _Told(b"", 0)
        return told
