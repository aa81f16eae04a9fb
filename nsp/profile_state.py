# SPDX-License-Identifier: Apache-2.0
"""How each published profile stands: in force, a dry run, or how far its canary is.

Input: profiles with the times of their messages; for canaries also the orders on ``nsp.enforcement`` (a
trial is passed when an order enforces it) and the alerts of rule ``nsp.canary`` (held). Output: a word each.
Failure: what is on these topics and cannot be read says nothing about any profile.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from schemas.codec import decode, decode_as
from schemas.errors import SchemaError
from schemas.topics import ALERTS, ENFORCEMENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from nsp.kafka import Cluster

_NS_PER_S: Final = 1_000_000_000


def states(
    cluster: Cluster, profiles: Mapping[str, Mapping[str, Any]], published_ns: Mapping[str, int]
) -> dict[str, str]:
    """A word for each profile, by key.

    Args:
        cluster: Asked only when there is a canary.
        profiles: ``SecurityProfile`` records.
        published_ns: Wall times of their messages.
    """
    found = {key: "dry-run" if each["dry_run"] else "in-force" for key, each in profiles.items()}
    trials = {key: each for key, each in profiles.items() if each["canary_for_ns"] and not each["dry_run"]}
    if not trials:
        return found
    from stream_apps.profiles.canary import alert_id, passed_by  # noqa: PLC0415 - for canaries only

    held = set(_alert_ids(cluster))
    passed = {
        f"{profile['namespace']}/{profile['name']}"
        for profile in _ordered(cluster)
        if (trial := trials.get(f"{profile['namespace']}/{profile['name']}"))
        and passed_by(profile, trial["generation"])
    }
    for key, each in trials.items():
        if key in passed:
            found[key] = "canary-passed"
        elif alert_id(key, each["generation"], "held") in held:
            found[key] = "canary-held"
        else:
            found[key] = f"canary-until-{_minute(published_ns[key] + each['canary_for_ns'])}"
    return found


def _minute(wall_ns: int) -> str:
    return datetime.fromtimestamp(wall_ns // _NS_PER_S, UTC).strftime("%Y-%m-%dT%H:%MZ")


def _ordered(cluster: Cluster) -> Iterator[Mapping[str, Any]]:
    """The profiles in the newest orders to each node; unsigned ones are not told apart, sensors do that."""
    newest: dict[bytes, bytes | None] = {}
    for message in cluster.read_all(ENFORCEMENT.name, range(cluster.partitions_of(ENFORCEMENT.name))):
        newest[message.key() or b""] = message.value()
    for value in newest.values():
        try:
            name, record = decode(decode_as(ENFORCEMENT.value, value or b"")["payload"])
        except SchemaError:
            continue
        if name == "ProfileOrder" and record["profile"]:
            yield record["profile"]


def _alert_ids(cluster: Cluster) -> Iterator[str]:
    for message in cluster.read_all(ALERTS.name, range(cluster.partitions_of(ALERTS.name))):
        try:
            yield decode_as(ALERTS.value, message.value() or b"")["id"]
        except SchemaError:
            continue
