# SPDX-License-Identifier: Apache-2.0
"""Reads back what an earlier sensor left in the kernel, so that nothing is built twice.

Input: the maps. Output: :class:`~sensor.policy.tables.Tables`. What is complete is recognised by its content;
what was begun and not finished, or leads to something that is not there, is not taken for anything and is
freed like all that no slot leads to. Failure: KernelError, as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensor.kernel.policy_state import CONTENT_BYTES
from sensor.policy import layout
from sensor.policy.tables import POLICY_OF_TAG, TAG_NUMBER_SHIFT, HeldPolicy, HeldRuleset, Tables

if TYPE_CHECKING:
    from sensor.kernel.policy_state import GrantsValue, PolicyValue, ProgramKey
    from sensor.policy.ports import PolicyMaps

_NO_CONTENT = bytes(CONTENT_BYTES)


def read_tables(maps: PolicyMaps) -> Tables:
    """What the kernel holds."""
    tables = Tables()
    for index, value in maps.rulesets():
        # An unfinished one holds its place until it is removed like whatever no slot leads to.
        content = b"" if value.content == _NO_CONTENT else value.content
        # One of which only the index is kept may have learned.
        named = not content or bool(value.flags & layout.NAMES)
        tables.add_ruleset(index, HeldRuleset(content, named, value.previous))
    for previous in {held.previous for held in tables.rulesets.values()} - tables.rulesets.keys() - {0}:
        # Killed while it was being emptied: what was learned under it is still there.
        tables.add_ruleset(previous, HeldRuleset(b"", named=True))
    tables.programs = dict(maps.program_ids())
    for slot, tag in maps.policy_slots():
        tables.tag_number = max(tables.tag_number, tag >> TAG_NUMBER_SHIFT)
        if tag & POLICY_OF_TAG:
            tables.slots[slot] = tag & POLICY_OF_TAG
    _read_policies(maps, tables)
    return tables


def _read_policies(maps: PolicyMaps, tables: Tables) -> None:
    values = dict(maps.policies())
    rules: dict[int, dict[ProgramKey, GrantsValue]] = {}
    for key, grants in list(maps.program_rules()):
        if key.policy in values:
            rules.setdefault(key.policy, {})[key] = grants
        else:
            maps.drop_program_rule(key)  # of a policy that was being built, or removed
    for index, value in values.items():
        held = HeldPolicy(value.content, value.grants, rules.get(index, {}))
        if not _is_complete(tables, value, held):
            # Without a content nothing is ever found to be it, so it is replaced.
            held = HeldPolicy(b"", held.default, held.programs)
        tables.add_policy(index, held)


def _is_complete(tables: Tables, value: PolicyValue, held: HeldPolicy) -> bool:
    ids = {0, *tables.programs.values()}
    rulesets = [tables.rulesets.get(index) for index in held.rulesets()]
    return (
        value.content != _NO_CONTENT
        and all(each and each.content for each in rulesets)
        and all(key.program in ids and key.script in ids for key in held.programs)
    )
