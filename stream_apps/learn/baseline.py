# SPDX-License-Identifier: Apache-2.0
"""Answers what a workload is known to do, by what was learned of it; for detectors of drift.

Input: the learner's state, as it was before the batch that is judged. Output: True for what was learned,
False for what was not of a workload that is stable, None while nobody can say. What came after a workload
was stable stays unknown to it: an intruder's second connection is as strange as the first. A behaviour is
known if any program of the workload showed it on any node. Failure: none; indexes are bounded and rebuilt.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from stream_apps.learn.folding import Net, host, network

if TYPE_CHECKING:
    from stream_apps.learn.learner import Learner
    from stream_apps.learn.shard import Shard

# Of shards that detectors have asked about; each is as large as its shard.
MAX_INDEXES: Final = 4096

_Ports = list[tuple[int, int]]


@dataclass(slots=True)
class _Index:
    """What one shard knows, by what is asked."""

    behaviours: int = -1
    executables: set[str] = field(default_factory=set)
    listens: set[str] = field(default_factory=set)
    names: dict[str, _Ports] = field(default_factory=dict)
    nets: dict[Net, _Ports] = field(default_factory=dict)
    prefixes: set[int] = field(default_factory=set)

    def has(self, kind: str, value: str) -> bool:
        """Whether a behaviour is there."""
        if kind == "executable":
            return value in self.executables
        if kind == "listen":
            return value in self.listens
        peer, _, port = value.rpartition(":")
        return self._reaches(peer.strip("[]"), int(port) if port.isascii() and port.isdigit() else -1)

    def _reaches(self, peer: str, port: int) -> bool:
        address = host(peer)
        if address is None:
            found = [self.names.get(peer, [])]
        else:
            around = (address.at(each) for each in self.prefixes if each <= address.prefix)
            found = [self.nets[each] for each in around if each in self.nets]
        return any(first <= port <= last for ports in found for first, last in ports)


class LearnedBaseline:
    """What workloads did while they were learned."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._indexes: dict[tuple[str, str], _Index] = {}

    def known(self, workload: str, kind: str, value: str) -> bool | None:
        """Whether a behaviour is known.

        Args:
            workload: Id of a ``Workload``.
            kind: executable, destination, or listen.
            value: A path; ``name:port``, ``address:port`` or ``[address]:port``; a port.
        """
        key = self._learner.key_of(workload)
        shards = self._learner.shards_of(key) if key else {}
        if any(self._index_of(each).has(kind, value) for each in shards.values()):
            return True
        if not shards or not all(each.stable_ns for each in shards.values()):
            return None
        return False

    def _index_of(self, shard: Shard) -> _Index:
        """The index of a shard, made anew when its behaviours have changed."""
        index = self._indexes.get(shard.place)
        if index is None or index.behaviours != len(shard.behaviours):
            if len(self._indexes) >= MAX_INDEXES:
                self._indexes.clear()
            index = self._indexes[shard.place] = _index(shard)
        return index


def _index(shard: Shard) -> _Index:
    found = _Index(len(shard.behaviours))
    for key, each in shard.behaviours.items():
        if key.standing != "LEARNED" or each.drift:
            continue
        found.executables.add(key.path)
        if key.kind == "LISTEN":
            found.listens.add(str(key.port))
        elif key.kind == "EGRESS":
            net = network(key.peer)
            ports = found.names.setdefault(key.peer, []) if net is None else found.nets.setdefault(net, [])
            ports.append((key.port, key.last_port))
            if net is not None:
                found.prefixes.add(net.prefix)
    return found
