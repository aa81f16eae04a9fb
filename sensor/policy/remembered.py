# SPDX-License-Identifier: Apache-2.0
"""What workloads were answered lately, for the moment a profile comes to them.

The kernel learns addresses for workloads that have a profile. One that gets its first has resolved its names
before, keeps connections open and addresses cached: without this they would be cut, though the profile allows
their names. Input: questions and answers as they are decoded. Output: the answers of a workload that a listed
resolver gave to a question it had asked, which the kernel then holds against the profile's names itself.
Failure: the oldest are forgotten first; whoever was answered longer ago resolves again.

The drain's thread writes, the enforcement's reads.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

# About half a megabyte: what a busy node resolves in some minutes, a quiet one in a day.
MAX_ANSWERS: Final = 1024
# Questions wait for milliseconds; one that is never answered makes room when so many came after it.
MAX_QUESTIONS: Final = 512
# Of one answer; more than these no client tries.
_MAX_ADDRESSES: Final = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered name.

    Attributes:
        cgroup_id: Of the process that asked.
        server: Who answered, as text.
        name: What was asked.
        addresses: What came back, as text.
    """

    cgroup_id: int
    server: str
    name: str
    addresses: tuple[str, ...]


class RememberedAnswers:
    """The last answers of the node."""

    def __init__(self) -> None:
        self._asked: OrderedDict[tuple[int, int], str] = OrderedDict()
        self._answers: deque[Answer] = deque(maxlen=MAX_ANSWERS)
        self._lock = threading.Lock()

    def asked(self, cookie: int, transaction_id: int, name: str) -> None:
        """A question left a socket."""
        self._asked[cookie, transaction_id] = name
        if len(self._asked) > MAX_QUESTIONS:
            self._asked.popitem(last=False)

    def answered(self, cookie: int, transaction_id: int, answer: Answer) -> None:
        """An answer came to it; what nobody asked for is not remembered."""
        asked = self._asked.pop((cookie, transaction_id), None)
        if asked is None or asked.lower() != answer.name.lower() or not answer.addresses:
            return
        kept = Answer(answer.cgroup_id, answer.server, answer.name, answer.addresses[:_MAX_ADDRESSES])
        with self._lock:
            self._answers.append(kept)

    def of(self, cgroup_ids: Collection[int]) -> list[Answer]:
        """What processes in these cgroups were answered, each once, the newest last."""
        with self._lock:
            answers = list(self._answers)
        return list(dict.fromkeys(each for each in answers if each.cgroup_id in cgroup_ids))
