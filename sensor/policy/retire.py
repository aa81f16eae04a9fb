# SPDX-License-Identifier: Apache-2.0
"""Frees what no slot leads to any more, once nobody can still be looking at it.

A packet may have read a slot a moment before it was switched, so what a slot led to stays whole for some
seconds. Of a replaced rule set that has learned addresses, the index is kept longer: they count on under it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sensor.policy.limits import QUARANTINE_NS

if TYPE_CHECKING:
    from sensor.policy.build import Builder
    from sensor.policy.ports import PolicyMaps
    from sensor.policy.tables import Live, Tables

# A removal of tries waits for the kernel once for each kind: so many at a time keep the sensor responsive.
_AT_ONCE: Final = 256


class Retirement:
    """When each thing was first seen unused, and its removal."""

    def __init__(self, maps: PolicyMaps, tables: Tables, builder: Builder) -> None:
        self._maps = maps
        self._tables = tables
        self._builder = builder
        self._unused_since: dict[tuple[str, int | bytes], int] = {}

    def collect(self, now_ns: int) -> int:
        """Free what has been unused long enough; how many entries.

        Raises:
            KernelError: As it is; the rest is tried again.
        """
        live = self._tables.live()
        due = self._due(self._unused(live), now_ns)
        for kind, item in due:
            if kind == "policy" and isinstance(item, int):
                self._builder.remove_policy(item)
            elif kind == "program" and isinstance(item, bytes):
                self._builder.remove_program(item)
        # Rule sets of a policy that is being freed go after it, never before.
        held = {index for policy in self._tables.policies.values() for index in policy.rulesets()}
        rulesets = [item for kind, item in due if kind == "ruleset" and isinstance(item, int)]
        self._remove([index for index in rulesets if index not in held][:_AT_ONCE], live)
        return len(due)

    def hurry(self) -> None:
        """Rule sets that no policy ever led to need not wait: the next call frees them."""
        held = {index for policy in self._tables.policies.values() for index in policy.rulesets()}
        for index, ruleset in self._tables.rulesets.items():
            if index not in held and ruleset.content and ("ruleset", index) not in self._unused_since:
                self._unused_since["ruleset", index] = -QUARANTINE_NS

    def _unused(self, live: Live) -> set[tuple[str, int | bytes]]:
        tables = self._tables
        unused: set[tuple[str, int | bytes]] = {
            ("policy", index) for index in tables.policies.keys() - live.policies
        }
        for index, held in tables.rulesets.items():
            # Of those before, only the index is wanted.
            if index not in live.rulesets and (held.content or index not in live.history):
                unused.add(("ruleset", index))
        unused.update(
            ("program", path) for path, number in tables.programs.items() if number not in live.programs
        )
        return unused

    def _due(self, unused: set[tuple[str, int | bytes]], now_ns: int) -> list[tuple[str, int | bytes]]:
        self._unused_since = {item: self._unused_since.get(item, now_ns) for item in unused}
        due = [item for item, since in self._unused_since.items() if now_ns - since >= QUARANTINE_NS]
        return sorted(due, key=lambda item: item[0] != "policy")

    def _remove(self, indices: list[int], live: Live) -> None:
        if not indices:
            return
        freed = {index for index in indices if index not in live.history}
        if any(self._tables.rulesets[index].named for index in freed):
            # Or they would count for whoever gets the index next.
            for key in [key for key, _ in self._maps.learned() if key.ruleset in freed]:
                self._maps.drop_learned(key)
        self._builder.remove_rulesets(indices, live.history)
