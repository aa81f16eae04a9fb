# SPDX-License-Identifier: Apache-2.0
"""What an event must have for a rule to be worth asking.

Input: a condition's tree. Output: a few atoms of which one must be there if the condition holds; None when
nothing of the kind is known (a rule of negations). Of conditions that must all hold, the one whose atoms are
expected in the fewest events is taken. The expectation is a rough guess: a wrong one costs time, never a
match.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from stream_apps.sigma import taxonomy
from stream_apps.sigma.tree import All, Either, KeywordLeaf, Negation, OtherLeaf, TextLeaf

if TYPE_CHECKING:
    from stream_apps.sigma.tree import Node

# Programs that start often, so that their name alone tells little.
_FREQUENT_NAMES: Final = frozenset(
    {
        "sh", "bash", "dash", "ash", "busybox", "zsh", "python", "python3", "perl", "node", "java",
        "php", "cat", "grep", "sed", "awk", "ls", "cp", "mv", "rm", "date", "sleep", "env", "curl",
        "systemctl", "ps", "find", "id", "tr", "cut", "head", "tail", "test", "stat", "mkdir", "chmod",
        "uname", "git", "runc",
    }
)  # fmt: skip
# Texts whose parts are in many command lines and paths.
_FREQUENT_TEXTS: Final = (
    "/usr/local/bin/", "/usr/sbin/", "/usr/lib/", "/etc/", "/var/log/", "/var/lib/", "/opt/", "/home/",
    "/var/tmp/",  # noqa: S108 - text in events
    "http://", "https://", "/bin/bash -c ", "/bin/sh -c ", "python3 ", " --", ".com", ".sh",
    "/proc/", "/dev/null",
    " -rf ", " -la ", "localhost", "127.0.0.1", "echo ", "grep ", ".exe", "\\windows\\system32\\", "root",
)  # fmt: skip
_FREQUENT_PORTS: Final = frozenset({53, 80, 443, 5432, 6379, 8080, 9092})
# Fields of few values.
_FREQUENT_SLOTS: Final = frozenset(
    {
        taxonomy.PROTOCOL, taxonomy.INITIATED, taxonomy.DESTINATION_IPV6, taxonomy.SOURCE_IPV6, taxonomy.USER,
        taxonomy.PARENT_USER, taxonomy.RECORD_TYPE, taxonomy.QUERY_STATUS, taxonomy.COMPUTER,
        taxonomy.NAMESPACE,
    }
)  # fmt: skip
_FREQUENT: Final = 0.2
# Each further character of a literal makes it rarer by about this.
_RARER: Final = 0.6
_RARE_NAME: Final = 0.004
_RARE_NUMBER: Final = 0.01


class Atom(NamedTuple):
    """Something that can be looked up.

    Attributes:
        way: How: an equal name or number, or a text contained.
        slot: Where.
        literal: What, case-folded; a number in decimals.
    """

    way: Literal["name", "number", "text"]
    slot: int
    literal: str


class Required(NamedTuple):
    """Atoms of which an event must have one, and the share of events expected to."""

    atoms: frozenset[Atom]
    share: float


def required(node: Node) -> Required | None:
    """The atoms of a condition; None when it has none."""
    match node:
        case TextLeaf():
            return _of_text(node)
        case OtherLeaf():
            return _of_test(node)
        case KeywordLeaf():
            return _contained(taxonomy.EVERYTHING, node.needs) if node.needs else None
        case Negation():
            return None
        case All() | Either():
            return _of_several(node)


def _of_several(node: All | Either) -> Required | None:
    known = [each for each in map(required, node.parts) if each is not None]
    if isinstance(node, All):
        return min(known, key=lambda each: each.share, default=None)
    if len(known) < len(node.parts):
        return None
    atoms: frozenset[Atom] = frozenset().union(*(each.atoms for each in known))
    return Required(atoms, sum(each.share for each in known))


def _of_text(leaf: TextLeaf) -> Required:
    literal = leaf.literal.casefold()
    name_slot = taxonomy.NAME_SLOTS.get(leaf.slot)
    if name_slot is not None and leaf.shape in ("equals", "suffix") and "/" in literal:
        name = literal.rpartition("/")[2]
        share = _FREQUENT if name in _FREQUENT_NAMES else _RARE_NAME
        return Required(frozenset({Atom("name", name_slot, name)}), share)
    return _contained(leaf.slot, literal)


def _of_test(leaf: OtherLeaf) -> Required | None:
    if leaf.number is not None:
        share = _FREQUENT if leaf.number in _FREQUENT_PORTS else _RARE_NUMBER
        return Required(frozenset({Atom("number", leaf.slot, str(leaf.number))}), share)
    return _contained(leaf.slot, leaf.needs) if leaf.needs else None


def _contained(slot: int, literal: str) -> Required:
    share = _RARER ** len(literal)
    if slot in _FREQUENT_SLOTS or any(literal in each for each in _FREQUENT_TEXTS):
        share = max(share, _FREQUENT)
    return Required(frozenset({Atom("text", slot, literal)}), share)
