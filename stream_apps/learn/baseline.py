# SPDX-License-Identifier: Apache-2.0
"""Answers what a workload is known to do, by what was learned: :class:`stream_apps.detect.baseline.Baseline`.

Input: the learner's state, as it was before the batch that is judged. Output: True for what was learned,
False for what was not of a workload that is stable, None while nobody can say. What came after a workload
was stable stays unknown to it: an intruder's second connection is as strange as the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_apps.learn.folding import host

if TYPE_CHECKING:
    from stream_apps.learn.learner import Learner
    from stream_apps.learn.shard import Shard

# Of workloads that detectors have asked about; each is as large as its shard.
MAX_INDEXES: Final = 4096
_Index = dict[tuple[str, str], list[tuple[int, int]]]


class LearnedBaseline:
    """What workloads did while they were learned."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        # Of shards by workload and node: how many behaviours it was made of, and the index.
        self._indexes: dict[tuple[str, str], tuple[int, _Index]] = {}

    def known(self, workload: str, kind: str, value: str) -> bool | None:
        """Whether a behaviour is known.

        Args:
            workload: Id of a ``Workload``.
            kind: executable, destination, or listen.
            value: A path; ``name:port`` or ``address:port``; a port.
        """
        key = self._learner.key_of(workload)
        shards = self._learner.shards_of(key) if key else {}
        if any(_has(self._index_of(each), kind, value) for each in shards.values()):
            return True
        if not shards or not all(each.stable_ns for each in shards.values()):
            return None
        return False

    def _index_of(self, shard: Shard) -> _Index:
        place = shard.identity.key, shard.node
        size, index = self._indexes.get(place, (-1, {}))
        if size != len(shard.behaviours):
            if len(self._indexes) > MAX_INDEXES:
                self._indexes.clear()  # of workloads that are gone
            index = _index(shard)
            self._indexes[place] = len(shard.behaviours), index
        return index


def _has(index: _Index, kind: str, value: str) -> bool:
    if kind != "destination":
        return (kind, value) in index
    peer, _, port = value.rpartition(":")
    return _reaches(index, peer.strip("[]"), int(port) if port.isascii() and port.isdigit() else -1)


def _reaches(index: _Index, peer: str, port: int) -> bool:
    net = host(peer)
    places = [("destination", peer)]
    if net is not None:
        prefixes = range(129) if ":" in peer else range(33)
        places = [("destination", str(net.at(each))) for each in prefixes]
    return any(first <= port <= last for place in places for first, last in index.get(place, ()))


def _index(shard: Shard) -> _Index:
    found: _Index = {}
    for key, each in shard.behaviours.items():
        if key.standing != "LEARNED" or each.drift:
            continue
        found.setdefault(("executable", key.path), [])
        if key.kind == "EGRESS":
            found.setdefault(("destination", key.peer), []).append((key.port, key.last_port))
        elif key.kind == "LISTEN":
            found.setdefault(("listen", str(key.port)), [])
    return found
