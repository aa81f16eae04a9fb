# SPDX-License-Identifier: Apache-2.0
"""What the sections of the stream apps' configuration are made of: texts, addresses, and what each rule has.

Input and output: none of its own; :mod:`stream_apps.config.sections` and
:mod:`stream_apps.config.detectors` build on it.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from stream_apps.detect.rule import Severity

_ADDRESS: Final = re.compile(r"(?:\[[0-9a-fA-F:.%]+\]|[^\s:\[\]]+):\d{1,5}")


def _network(text: str) -> str:
    ip_network(text, strict=False)
    return text


def _address(text: str) -> str:
    if _ADDRESS.fullmatch(text) is None or int(text.rpartition(":")[2]) > 65535:  # noqa: PLR2004 - highest port
        raise ValueError("must be host:port, e.g. 127.0.0.1:9465 or [::1]:9465")
    return text


Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Network = Annotated[str, AfterValidator(_network)]
Address = Annotated[str, AfterValidator(_address)]
Texts = tuple[Text, ...]


class Section(BaseModel):
    """Common to all: nothing unknown, nothing converted, nothing changed later."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True)


class ExclusionItem(Section):
    """What a rule must not alert on. All conditions given must hold; * in a pattern matches slashes too."""

    reason: Text
    """Why, for the next person."""
    services: Texts = ()
    """Patterns of the service's executable path."""
    actors: Texts = ()
    """Patterns of the executable path of the process that acts."""
    launchers: Texts = ()
    """Patterns of the executable path of the process that started the shell or tool."""
    argv_prefix: Texts = ()
    """First arguments of the process that acts, argv[0] included."""
    workloads: Texts = ()
    """Patterns of workload ids (pod uid, or host/<node>/<unit>)."""
    namespaces: Texts = ()
    """Patterns of pod namespaces."""
    labels: dict[Text, Text] = Field(default_factory=dict)
    """Labels the pod must have; * is any value."""
    destinations: tuple[Network, ...] = ()
    """Networks."""
    dns_names: Texts = ()
    """Patterns of the name asked or behind the destination, as a trusted resolver gave it."""

    @model_validator(mode="after")
    def _says_something(self) -> ExclusionItem:
        if not any(getattr(self, name) for name in type(self).model_fields if name != "reason"):
            raise ValueError("an exclusion without a condition would switch the rule off; set enabled: false")
        return self


class RuleItem(Section):
    """One detector."""

    enabled: bool = True
    """Whether it runs."""
    severity: Severity | None = None
    """Highest severity it gives, where the detector's own is too high here."""
    default_exclusions: bool = True
    """Whether the exclusions that come with the detector apply."""
    exclusions: tuple[ExclusionItem, ...] = ()
    """Your own."""
