# SPDX-License-Identifier: Apache-2.0
"""The names of what is pinned for interfaces: they alone say what runs where.

Apart from hooks.py, because the long-lived sensor reads them and must not import pyroute2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

FOLDER: Final = "interfaces"
_LINK: Final = "link"
_FILTER: Final = "filter"
_PARTS: Final = 4


@dataclass(frozen=True, slots=True)
class HookPin:
    """One program on one interface: ``<netns>_<ifindex>_<ingress|egress>_<link|filter>``."""

    netns: int
    ifindex: int
    direction: str
    sort: str = _LINK

    @property
    def name(self) -> str:
        """Of the pin; bpffs allows no dots."""
        return f"{self.netns}_{self.ifindex}_{self.direction}_{self.sort}"

    @property
    def is_filter(self) -> bool:
        """Whether it only marks a classifier, which does not go with the pin."""
        return self.sort == _FILTER

    def as_filter(self) -> HookPin:
        """The same place, with a classifier."""
        return replace(self, sort=_FILTER)

    def as_link(self) -> HookPin:
        """The same place, with a link."""
        return replace(self, sort=_LINK)

    @classmethod
    def parse(cls, name: str) -> HookPin | None:
        """Of a pin's name; None when it is none of ours (one that was being replaced, for instance)."""
        parts = name.split("_")
        if len(parts) != _PARTS or not (parts[0].isdigit() and parts[1].isdigit()):
            return None
        if parts[3] not in {_LINK, _FILTER}:
            return None
        return cls(int(parts[0]), int(parts[1]), parts[2], parts[3])
