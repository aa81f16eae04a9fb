# SPDX-License-Identifier: Apache-2.0
"""Sigma rules and events written by hand, and what our engine says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import NAMESPACE_URL, uuid5

import yaml

from stream_apps.sigma.cases import facts_of
from stream_apps.sigma.loading import Loaded, load
from stream_apps.sigma.translate import Surroundings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_apps.sigma.ruleset import EventRule

AROUND: Final = Surroundings(
    {"admins": ["root", "toor"], "tools": ["nmap", "mass*can"]}, {0: "root", 33: "www-data"}
)
_KIND_OF: Final = {
    "process_creation": "nsp.ProcessExec", "network_connection": "nsp.SocketConnect",
    "dns_query": "nsp.DnsQuestion", "dns": "nsp.DnsQuestion",
}  # fmt: skip


def identity(name: str) -> str:
    """A rule's UUID that is always the same for a name."""
    return str(uuid5(NAMESPACE_URL, name))


def rule_id(name: str) -> str:
    """The id in alerts of the rule of a name."""
    return f"sigma.{identity(name)}"


def document(
    detection: Mapping[str, Any], category: str = "process_creation", **fields: Any
) -> dict[str, Any]:
    """A rule's document."""
    return {
        "title": "A rule", "id": identity("a rule"), "status": "test", "level": "high",
        "logsource": {"category": category, "product": "linux"}, "detection": dict(detection), **fields,
    }  # fmt: skip


def loaded(*documents: Mapping[str, Any]) -> Loaded:
    """Load documents, each as a text of its own."""
    texts = [(f"rule-{number}.yml", yaml.safe_dump(dict(each))) for number, each in enumerate(documents)]
    return load(texts, AROUND)


def one(detection: Mapping[str, Any], category: str = "process_creation") -> EventRule:
    """The rule of a detection, which must be loaded."""
    found = loaded(document(detection, category))
    assert [each.reason for each in found.verdicts] == [""]
    return found.rules.rules[0]


facts = facts_of


def matches(
    detection: Mapping[str, Any], event: Mapping[str, Any], category: str = "process_creation"
) -> bool:
    """Whether a detection matches, by way of the index as in service."""
    found = loaded(document(detection, category))
    assert [each.reason for each in found.verdicts] == [""]
    index = found.rules.indexes.get(_KIND_OF[category]) or next(iter(found.rules.indexes.values()))
    hit = bool(index.matches(facts(event)))
    assert not index.errors
    return hit


def selects(item: Mapping[str, Any], event: Mapping[str, Any], category: str = "process_creation") -> bool:
    """Whether one selection matches."""
    return matches({"selection": dict(item), "condition": "selection"}, event, category)


def refusal(detection: Mapping[str, Any], category: str = "process_creation") -> str:
    """Why a detection is refused."""
    (verdict,) = loaded(document(detection, category)).verdicts
    assert verdict.status == "refused"
    return verdict.reason
