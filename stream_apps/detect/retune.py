# SPDX-License-Identifier: Apache-2.0
"""Detectors go over to another configuration and keep what they remember.

Input: those that run, and those that another configuration wants, freshly built. Output: those that run from
now on, in the order of the new ones. One that runs already stays, with its windows and what it has told, and
takes the settings of the new one; a new one begins with an empty memory; the others are dropped with theirs.
Failure: none; assignments only, so a configuration is never taken over by half.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_apps.detect.rule import Rule


class Retunable(Protocol):
    """What has settings and, beside them, a memory."""

    @property
    def settings(self) -> Sequence[str]:
        """Names of the attributes that come from the configuration."""

    @property
    def rule(self) -> Rule:
        """Whose it is."""


Kind = TypeVar("Kind", bound=Retunable)


def retuned(running: Iterable[Kind], wanted: Iterable[Kind]) -> list[Kind]:
    """Those that run from now on."""
    known = {each.rule.id: each for each in running}
    return [retune(known[each.rule.id], each) if each.rule.id in known else each for each in wanted]


def retune(running: Kind, wanted: Kind) -> Kind:
    """Give one the settings of another; its memory stays."""
    for name in wanted.settings:
        setattr(running, name, getattr(wanted, name))
    return running
