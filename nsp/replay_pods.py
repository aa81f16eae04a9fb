# SPDX-License-Identifier: Apache-2.0
"""Pods as they were while the replayed time went by, as far as ``nsp.pods`` still has it.

Input: the topic from its beginning. Output: a table that follows the time of the messages. The topic is
compacted: of a pod that changed later only that later record may be left, so a pod that is first told of
later is there from the start; what changes or ends after that does so when its time has come. Failure: a
record that cannot be used is left out and counted.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.codec import decode_as
from schemas.errors import SchemaError
from schemas.topics import PODS
from stream_apps.correlate.pods import PodTable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nsp.kafka import Cluster

_NS_PER_MS = 1_000_000


class Change(NamedTuple):
    """A pod is there or another (a ``Pod`` record), or gone (None), from a wall time on."""

    wall_ns: int
    uid: str
    record: dict[str, Any] | None


class PodHistory:
    """Pods and their changes.

    Attributes:
        pods: As they are at the time reached.
        unusable: Records left out.
    """

    def __init__(self, changes: Iterable[Change], since_ns: int, unusable: int = 0) -> None:
        """Begin at a time.

        Args:
            changes: In the order of the topic.
            since_ns: Wall time at which the replay begins.
            unusable: How many could not be read.
        """
        self.pods = PodTable()
        self.unusable = unusable
        self._later: deque[Change] = deque()
        met: set[str] = set()
        for change in changes:
            first = change.uid not in met
            met.add(change.uid)
            if change.wall_ns <= since_ns or (first and change.record is not None):
                self._apply(change)
            else:
                self._later.append(change)

    @classmethod
    def read(cls, cluster: Cluster, since_ns: int) -> PodHistory:
        """Read the topic.

        Raises:
            CommandError: No broker answers, or there is no topic.
        """
        changes: list[Change] = []
        unusable = 0
        for message in cluster.read_all(PODS.name, range(cluster.partitions_of(PODS.name))):
            wall_ns = max(message.timestamp()[1], 0) * _NS_PER_MS
            value = message.value()
            try:
                record = None if value is None else decode_as(PODS.value, value)
            except SchemaError:
                unusable += 1
                continue
            uid = record["uid"] if record else (message.key() or b"").decode(errors="replace")
            changes.append(Change(wall_ns, uid, record))
        return cls(changes, since_ns, unusable)

    def until(self, wall_ns: int) -> None:
        """Let time pass."""
        while self._later and self._later[0].wall_ns <= wall_ns:
            self._apply(self._later.popleft())

    def _apply(self, change: Change) -> None:
        if change.record is None:
            self.pods.remove(change.uid)
        else:
            self.pods.put(change.record)
