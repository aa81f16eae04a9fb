# SPDX-License-Identifier: Apache-2.0
"""The table of topics holds together."""

from __future__ import annotations

import pytest

from schemas.catalogue import current
from schemas.codec import encode, max_bytes
from schemas.errors import SchemaError
from schemas.topics import DEAD_LETTER_VALUE_MAX_BYTES, TOPICS, creation_config, topic


def test_every_topic_has_a_schema_and_every_schema_but_the_payloads_a_topic() -> None:
    payloads = {"Enforcement", "ProfileOrder", "NodeWorkloads", "PendingResponse"}
    assert {each.value for each in TOPICS.values()} == set(current()) - payloads


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_takes_the_largest_value_the_codec_writes(name: str) -> None:
    assert int(creation_config(topic(name))["max.message.bytes"]) > max_bytes(topic(name).value)


@pytest.mark.parametrize("name", TOPICS)
def test_a_deleted_topic_has_a_retention_and_a_compacted_one_keeps_tombstones(name: str) -> None:
    config = creation_config(topic(name))
    compacted = config["cleanup.policy"] == "compact"
    assert compacted == ("retention.ms" not in config) == ("delete.retention.ms" in config)


def test_replication_is_said_at_creation_only() -> None:
    assert "min.insync.replicas" not in creation_config(topic("nsp.events"))
    assert creation_config(topic("nsp.events"), 2)["min.insync.replicas"] == "2"


def test_a_dead_letter_with_the_longest_value_fits() -> None:
    letter = {
        "topic": "nsp.events", "partition": 0, "offset": 0, "key": bytes(1024), "stage": "decode",
        "value": bytes(DEAD_LETTER_VALUE_MAX_BYTES), "reason": "x" * 1024, "failed_at_ns": 0,
    }  # fmt: skip
    assert len(encode("DeadLetter", letter)) < max_bytes("DeadLetter")


def test_a_topic_nobody_knows_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"no topic is named 'nsp\.event'"):
        topic("nsp.event")
