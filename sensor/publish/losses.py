# SPDX-License-Identifier: Apache-2.0
"""Counters of what this process loses, cuts or has to do again, by stage and reason.

Plain ints: written by the drain thread (and the notices' callers), read by the metrics at scrape time.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Losses:
    """Each field is ``<stage>__<reason>``.

    One of ``decode`` or ``encode`` is one event that was read from the ring and is in no batch. The others
    are told for diagnosis: a batch that could not be produced is produced again.
    """

    decode__unknown_type: int = 0
    decode__malformed: int = 0
    encode__failed: int = 0
    produce__failed: int = 0
    produce__recreated: int = 0
    produce__queue_full: int = 0
    enforcement__notices_full: int = 0

    def by_stage(self) -> dict[str, dict[str, int]]:
        """Stage to reason to count."""
        found: dict[str, dict[str, int]] = {}
        for each in fields(self):
            stage, _, reason = each.name.partition("__")
            found.setdefault(stage, {})[reason] = getattr(self, each.name)
        return found
