# SPDX-License-Identifier: Apache-2.0
"""A baseline that says what a test wants, and remembers what it was asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream_apps.detect.baseline import Kind


@dataclass(slots=True)
class Learned:
    """Knows what it is given; of everything else it says ``otherwise``."""

    otherwise: bool | None = None
    values: dict[str, bool | None] = field(default_factory=dict)
    asked: list[tuple[str, Kind, str]] = field(default_factory=list)

    def known(self, workload: str, kind: Kind, value: str) -> bool | None:
        """See :class:`stream_apps.detect.baseline.Baseline`."""
        self.asked.append((workload, kind, value))
        return self.values.get(value, self.otherwise)
