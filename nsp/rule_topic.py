# SPDX-License-Identifier: Apache-2.0
"""Rules on ``nsp.rules``: one YAML document a message, keyed by the rule's id. For ``nsp rules``."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from schemas.codec import decode_as, encode
from schemas.errors import CodecError
from schemas.topics import RULES
from stream_apps.sigma.loading import files_of
from stream_apps.sigma.parsing import documents

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from nsp.kafka import Cluster

_NS_PER_S: Final = 1_000_000_000

Record = dict[str, Any]


def records(directory: Path, ids: set[str]) -> list[Record]:
    """The records of all rules below a directory whose ids are wanted."""
    now_ns = time.time_ns()
    return [
        {"id": each.rule_id.lower(), "title": each.title, "text": text, "published_at_ns": now_ns}
        for source, content in files_of(directory)
        for each, text in _documents(source, content)
        if each.rule_id in ids
    ]


def published(cluster: Cluster) -> dict[str, Record]:
    """What is on the topic, by id; what cannot be read is said and left out."""
    found: dict[str, Record] = {}
    for message in cluster.read_all(RULES.name, range(cluster.partitions_of(RULES.name))):
        key = (message.key() or b"").decode(errors="replace")
        if message.value() is None:
            found.pop(key, None)
            continue
        try:
            found[key] = decode_as(RULES.value, message.value())
        except CodecError as error:
            print(f"nsp: {RULES.name} offset {message.offset()}: {error}", file=sys.stderr)
    return dict(sorted(found.items()))


def publish(cluster: Cluster, wanted: Iterable[Record]) -> None:
    """Write rules and wait for the broker."""
    cluster.publish(RULES.name, [(each["id"].encode(), encode(RULES.value, each), -1) for each in wanted])


def withdraw(cluster: Cluster, ids: Iterable[str]) -> None:
    """Write tombstones and wait for the broker."""
    cluster.publish(RULES.name, [(each.encode(), None, -1) for each in ids])


def when(record: Record) -> str:
    """When a rule was published, for people."""
    return datetime.fromtimestamp(record["published_at_ns"] / _NS_PER_S, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _documents(source: str, content: bytes) -> list[tuple[Any, str]]:
    """Each document with its text as it stands in the file, without what separates it from the next."""
    found = documents(source, content)
    lines = content.decode(errors="replace").splitlines(keepends=True)
    ends = [each.line - 1 for each in found[1:]] + [len(lines)]
    texts = ["".join(lines[each.line - 1 : end]) for each, end in zip(found, ends, strict=True)]
    return [
        (each, text.rstrip().removesuffix("---").rstrip() + "\n")
        for each, text in zip(found, texts, strict=True)
    ]
