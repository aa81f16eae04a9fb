# SPDX-License-Identifier: Apache-2.0
"""The configuration of Sigma rules, with what each field means.

Part of :class:`stream_apps.config.sections.Detect`. The descriptions are the documentation, as there. What is
done about an alert of a rule is said where it is said for all: by patterns of rule ids, ``sigma.<UUID>``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, StringConstraints

from stream_apps.config.basis import ExclusionItem, Section, Text, Texts
from stream_apps.detect.rule import Severity

# A value is put into a rule as many times as there are combinations; pySigma stops at 200.
_MOST_VALUES: Final = 200

UserId = Annotated[str, StringConstraints(pattern=r"^\d{1,10}$")]


class SigmaExclusionItem(ExclusionItem):
    """What rules must not alert on."""

    rules: Annotated[Texts, Field(min_length=1)]
    """Patterns of rule ids, e.g. sigma.5c5e2c52-* or sigma.*."""


class SigmaItem(Section):
    """Rules in Sigma's format."""

    enabled: bool = True
    """Whether they are judged, those of `nsp rules push` too."""
    directories: tuple[Annotated[Path, Field(strict=False)], ...] = ()
    """Directories (or single files) of rules, with all below; `nsp rules lint` says what becomes of each."""
    placeholders: dict[Text, Annotated[Texts, Field(max_length=_MOST_VALUES)]] = Field(default_factory=dict)
    """Values of %name% in rules with the modifier expand. * and ? in them are wildcards."""
    users: dict[UserId, Text] = Field(default_factory=lambda: {"0": "root"})
    """Names of user ids, for rules that ask for User. Events have numbers: a rule that asks for a name that
    is not here is refused."""
    severity: Severity = "CRITICAL"
    """Highest severity a rule gives, where the authors' levels are too high here."""
    exclusions: tuple[SigmaExclusionItem, ...] = ()
    """What is known and wanted."""
