# SPDX-License-Identifier: Apache-2.0
"""Memory that stays small: the least recently used goes when there is no room, and is counted.

Input: keys and what is kept for each, by the time of the events. Output: the entry of a key, made when it
was not there. Failure: what was forgotten begins anew; a detector then needs its evidence once more.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")


class Bounded(Generic[K, V]):
    """At most so many entries.

    Args:
        most: How many.
        make: Makes an entry.
        gone: Told of each entry that is forgotten because of the bound.

    Attributes:
        evicted: Entries forgotten because of the bound.
    """

    def __init__(self, most: int, make: Callable[[], V], gone: Callable[[V], None] | None = None) -> None:
        self.evicted = 0
        self._most = most
        self._make = make
        self._gone = gone
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
                self.drop_oldest()
        else:
            entries.move_to_end(key)
        return found

    def put(self, key: K, value: V) -> None:
        """Set an entry."""
        entries = self._entries
        entries[key] = value
        entries.move_to_end(key)
        if len(entries) > self._most:
            self.drop_oldest()

    def values(self) -> Iterable[V]:
        """All entries, the least recently used first."""
        return self._entries.values()

    def items(self) -> Iterable[tuple[K, V]]:
        """All keys with their entries, the least recently used first."""
        return self._entries.items()

    def drop(self, key: K) -> V | None:
        """Forget an entry; what it was."""
        return self._entries.pop(key, None)

    def drop_oldest(self) -> None:
        """Forget the entry unused for longest, counted."""
        if self._entries:
            self.evicted += 1
            _, dropped = self._entries.popitem(last=False)
            if self._gone is not None:
                self._gone(dropped)
