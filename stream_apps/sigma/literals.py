# SPDX-License-Identifier: Apache-2.0
"""The longest text that every match of an expression contains, for the index.

Only what stands outside of groups, classes and alternatives is looked at; what is not understood ends a
literal or gives none. A literal that is missed costs time; one that is wrong would cost matches, and a test
holds this to what RE2 finds.
"""

from __future__ import annotations

import re
from typing import Final

# What ends a literal before it, whatever it means; a quantifier takes the last character along.
_ENDS: Final = "^$."
_OPTIONAL: Final = "?*{"
_QUANTIFIER: Final = re.compile(r"[?*]|\{\d+(?:,\d*)?\}")
# Flags that may stand for a whole expression.
_FLAGS: Final = "imsU-"


def required_literal(expression: str) -> str:
    """The literal, case-folded; empty where none is known."""
    runs: list[str] = [""]
    place = _after_flags(expression)
    while place < len(expression):
        character = expression[place]
        if character == "|":
            return ""
        if character in "([":
            place = _after_group(expression, place)
            runs.append("")
        elif character == "\\":
            escaped = expression[place + 1 : place + 2]
            if escaped in ("Q", "x", "p", "P", ""):
                return ""
            runs[-1:] = [runs[-1], ""] if escaped.isalnum() else [runs[-1] + escaped]
            place += 2
        elif character in _OPTIONAL:
            # x{2} is taken for optional too: it need not be understood.
            quantifier = _QUANTIFIER.match(expression, place)
            if quantifier is None:
                return ""
            runs[-1:] = [runs[-1][:-1], ""]
            place = quantifier.end()
        elif character in _ENDS or character == "+":
            runs.append("")
            place += 1
        else:
            runs[-1] += character
            place += 1
    return max(runs, key=len).casefold()


def _after_flags(expression: str) -> int:
    """Past flags for the whole expression, such as (?i)."""
    place = 0
    while expression.startswith("(?", place):
        end = expression.find(")", place)
        if end < 0 or any(each not in _FLAGS for each in expression[place + 2 : end]):
            break
        place = end + 1
    return place


def _after_group(expression: str, place: int) -> int:
    """Past a group or class that begins here; past the end where it does not end."""
    depth = 0
    while place < len(expression):
        character = expression[place]
        if character == "\\":
            place += 1
        elif character == "[":
            place = _end_of_class(expression, place)
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        place += 1
        if depth == 0:
            break
    return place


def _end_of_class(expression: str, place: int) -> int:
    """Where the ] of a class is; a ] right behind [ or [^ is one of its members."""
    place += 2 if expression.startswith("[^", place) else 1
    if expression.startswith("]", place):
        place += 1
    while place < len(expression) and expression[place] != "]":
        if expression[place] == "\\":
            place += 1
        elif expression.startswith("[:", place):
            end = expression.find(":]", place)
            place = end + 1 if end >= 0 else place
        place += 1
    return place
