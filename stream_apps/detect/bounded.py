# SPDX-License-Identifier: Apache-2.0
"""Memory that stays small: the least recently used goes when there is no room, and is counted.

Input: keys and what is kept for each, by the time of the events. Output: the entry of a key, made when it
was not there. Failure: what was forgotten begins anew; a detector then needs its evidence once more.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")


class Bounded(Generic[K, V]):
    """At most so many entries.

    Attributes:
        evicted: Entries forgotten because of the bound.
    """

    def __init__(self, most: int, make: Callable[[], V]) -> None:
        self.evicted = 0
        self._most = most
        self._make = make
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def peek(self, key: K) -> V | None:
        """The entry of a key, if there is one; it is no use of it."""
        return self._entries.get(key)

    def at(self, key: K) -> V:
        """The entry of a key, made when it was not there."""
        entries = self._entries
        found = entries.get(key)
        if found is None:
            found = entries[key] = self._make()
            if len(entries) > self._most:
                entries.popitem(last=False)
                self.evicted += 1
        else:
            entries.move_to_end(key)
        return found

    def put(self, key: K, value: V) -> None:
        """Set an entry."""
        entries = self._entries
        entries[key] = value
        entries.move_to_end(key)
        if len(entries) > self._most:
            entries.popitem(last=False)
            self.evicted += 1

    def drop(self, key: K) -> V | None:
        """Forget an entry; what it was."""
        return self._entries.pop(key, None)

    def drop_oldest(self) -> V | None:
        """Forget the entry unused for longest, counted; what it was."""
        if not self._entries:
            return None
        self.evicted += 1
        return self._entries.popitem(last=False)[1]
