# SPDX-License-Identifier: Apache-2.0
"""The one table of topics: what each is keyed by, holds, and keeps.

Topics are created from it (``nsp topics create``), clients take names and limits from it, and nothing is
created by accident (brokers should run with ``auto.create.topics.enable=false``). Replication is the
cluster's affair and is given when topics are created, not here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from schemas.codec import MAX_MESSAGE_BYTES, MAX_PROFILE_BYTES
from schemas.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Mapping

_HOUR_MS: Final = 60 * 60 * 1000
_DAY_MS: Final = 24 * _HOUR_MS

# max.message.bytes of every topic, also of those with small values: the broker checks whole record batches,
# which a client fills with as many values as are waiting. librdkafka's message.max.bytes (1 MB unless set)
# checks the same on the producer's side. The margin is for keys, headers and framing.
BATCH_MAX_BYTES: Final = MAX_MESSAGE_BYTES + 64 * 1024
# The same where a value may be a whole profile.
PROFILE_BATCH_MAX_BYTES: Final = MAX_PROFILE_BYTES + 64 * 1024

# A dead letter carries what failed and must itself fit: a longer value is cut to this.
DEAD_LETTER_VALUE_MAX_BYTES: Final = MAX_MESSAGE_BYTES // 2
# The same of its key; ours are shorter.
DEAD_LETTER_KEY_MAX_BYTES: Final = 4096

# Segments roll by time on compacted topics, else a quiet topic is never cleaned: the active segment is not.
_COMPACT: Final[Mapping[str, str]] = {
    "min.cleanable.dirty.ratio": "0.1",
    "segment.ms": str(6 * _HOUR_MS),
}


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic.

    Attributes:
        name: Topic name.
        key: What the key is, for people.
        value: Record name of the value schema.
        partitions: How many; more can be added only where nothing depends on the partition.
        cleanup: ``delete`` or ``compact``.
        retention_ms: How long records are kept (``delete``); None for a compacted topic.
        why: The reason behind partitions and retention.
        config: Further topic configuration.
    """

    name: str
    key: str
    value: str
    partitions: int
    cleanup: Literal["delete", "compact"]
    retention_ms: int | None
    why: str
    config: Mapping[str, str] = field(default_factory=dict)


EVENTS: Final = Topic(
    name="nsp.events",
    key="node name",
    value="EventBatch",
    partitions=12,
    cleanup="delete",
    retention_ms=7 * _DAY_MS,
    why="12 stream app processes at most share the work; a node's events stay in order. Seven days to replay "
    "a new rule over, and to find out after a weekend what happened.",
    config={"max.message.bytes": str(BATCH_MAX_BYTES)},
)
PODS: Final = Topic(
    name="nsp.pods",
    key="pod UID",
    value="Pod",
    partitions=1,
    cleanup="compact",
    retention_ms=None,
    why="Every stream app reads all of it at start; one partition is read fastest and keeps one order. A "
    "tombstone stays three days, longer than any app is away before it reads from the start anyway.",
    config={
        **_COMPACT,
        "max.message.bytes": str(BATCH_MAX_BYTES),
        "delete.retention.ms": str(3 * _DAY_MS),
    },
)
ALERTS: Final = Topic(
    name="nsp.alerts",
    key="workload id",
    value="Alert",
    partitions=6,
    cleanup="delete",
    retention_ms=30 * _DAY_MS,
    why="Few records; six readers at most. A month for the one who investigates.",
    config={"max.message.bytes": str(BATCH_MAX_BYTES)},
)
ENFORCEMENT: Final = Topic(
    name="nsp.enforcement",
    key="node name/subject; partitioned by murmur2(node name), not by the key",
    value="SignedEnforcement",
    partitions=6,
    cleanup="compact",
    retention_ms=None,
    why="A sensor reads the one partition of its node from the start, so the number cannot change without "
    "all producers and sensors starting anew. What is cut is freed by a signed order that wants nothing, "
    "never by a tombstone, which carries no signature: a tombstone only clears the topic of an order that "
    "has ended. It must outlive the time a sensor needs to read the topic (minutes); seven days let a "
    "person see what was there.",
    config={
        **_COMPACT,
        "max.message.bytes": str(PROFILE_BATCH_MAX_BYTES),
        "delete.retention.ms": str(7 * _DAY_MS),
    },
)
PROFILES: Final = Topic(
    name="nsp.profiles",
    key="namespace/name",
    value="SecurityProfile",
    partitions=1,
    cleanup="compact",
    retention_ms=None,
    why="Every stream app reads all of it at start, and one order is what people expect of two applies. A "
    "tombstone deletes a profile; it stays three days, longer than any app is away before it reads from the "
    "start anyway.",
    config={
        **_COMPACT,
        "max.message.bytes": str(PROFILE_BATCH_MAX_BYTES),
        "delete.retention.ms": str(3 * _DAY_MS),
    },
)
ENFORCEMENT_STATUS: Final = Topic(
    name="nsp.enforcement-status",
    key="node name/subject",
    value="EnforcementStatus",
    partitions=6,
    cleanup="compact",
    retention_ms=None,
    why="The newest word on each subject stays. Nothing is compacted for an hour, so that a reader who is "
    "there sees each step: applied, first refusal, ended.",
    config={
        **_COMPACT,
        "max.message.bytes": str(BATCH_MAX_BYTES),
        "min.compaction.lag.ms": str(_HOUR_MS),
        "delete.retention.ms": str(_DAY_MS),
    },
)
OBSERVATIONS: Final = Topic(
    name="nsp.observations",
    key="workload/node",
    value="Observations",
    partitions=6,
    cleanup="compact",
    retention_ms=None,
    why="Every stream app reads all of it at start, and goes on learning where the one before it was. Each "
    "record is written by the app that reads its node's events, so two never write one key. A tombstone "
    "makes a workload learn anew; it stays three days, longer than any app is away before it reads from the "
    "start anyway.",
    config={
        **_COMPACT,
        "max.message.bytes": str(BATCH_MAX_BYTES),
        "delete.retention.ms": str(3 * _DAY_MS),
    },
)
RULES: Final = Topic(
    name="nsp.rules",
    key="rule id",
    value="SigmaRule",
    partitions=1,
    cleanup="compact",
    retention_ms=None,
    why="Every stream app reads all of it at start, and one order is what people expect of two pushes. A "
    "tombstone withdraws a rule; it stays three days, longer than any app is away before it reads from the "
    "start anyway.",
    config={
        **_COMPACT,
        "max.message.bytes": str(BATCH_MAX_BYTES),
        "delete.retention.ms": str(3 * _DAY_MS),
    },
)
RESPONSES: Final = Topic(
    name="nsp.responses",
    key="id of the response",
    value="SignedEnforcement",
    partitions=1,
    cleanup="compact",
    retention_ms=None,
    why="Responses that wait, and what persons decided: few, and every stream app reads all of it at start. "
    "Signed like orders, else whoever may write could reject them in a person's name.",
    config={
        **_COMPACT,
        "max.message.bytes": str(PROFILE_BATCH_MAX_BYTES),
        "delete.retention.ms": str(3 * _DAY_MS),
    },
)
DEAD_LETTER: Final = Topic(
    name="nsp.dead-letter",
    key="source topic",
    value="DeadLetter",
    partitions=1,
    cleanup="delete",
    retention_ms=30 * _DAY_MS,
    why="Empty when all is well; a month for the one who looks. "
    "DEAD_LETTER_VALUE_MAX_BYTES of the message are kept.",
    config={"max.message.bytes": str(BATCH_MAX_BYTES)},
)

_ALL: Final = (
    EVENTS, PODS, PROFILES, RULES, OBSERVATIONS, ALERTS, ENFORCEMENT, ENFORCEMENT_STATUS, RESPONSES,
    DEAD_LETTER,
)  # fmt: skip
TOPICS: Final[Mapping[str, Topic]] = {each.name: each for each in _ALL}


def topic(name: str) -> Topic:
    """The topic of a name.

    Raises:
        SchemaError: The contract has no such topic.
    """
    found = TOPICS.get(name)
    if found is None:
        raise SchemaError(f"no topic is named {name!r}; there are {', '.join(TOPICS)}")
    return found


def creation_config(wanted: Topic, min_insync_replicas: int | None = None) -> dict[str, str]:
    """The configuration to create a topic with.

    Args:
        wanted: The topic.
        min_insync_replicas: How many replicas must have a record before a producer with ``acks=all`` is
            told so; the cluster's default when None. One less than the replication factor survives the
            loss of one broker without stopping.
    """
    config = {
        "cleanup.policy": wanted.cleanup,
        # What the producer compressed stays so: recompressing would cost the broker CPU for nothing.
        "compression.type": "producer",
        **wanted.config,
    }
    if wanted.retention_ms is not None:
        config["retention.ms"] = str(wanted.retention_ms)
    if min_insync_replicas is not None:
        config["min.insync.replicas"] = str(min_insync_replicas)
    return config
