# SPDX-License-Identifier: Apache-2.0
"""``nsp tail``: a topic as lines of JSON, for people and for jq."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError

from nsp.errors import MISUSED, CommandError
from nsp.kafka import Brokers, Cluster, KafkaOptions
from schemas.codec import decode
from schemas.documents import to_document
from schemas.errors import SchemaError
from schemas.topics import topic as topic_named


def tail(
    topic: Annotated[str, typer.Argument(help="e.g. nsp.alerts; `nsp topics list` shows all")],
    brokers: Brokers,
    *,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="also what is there already")
    ] = False,
    until_end: Annotated[bool, typer.Option("--until-end", help="stop where the topic ends now")] = False,
    limit: Annotated[int, typer.Option(min=0, help="stop after so many messages; 0: never")] = 0,
    kafka_option: KafkaOptions = None,
) -> None:
    """Print the messages of a topic as they come, decoded, one JSON object a line."""
    try:
        name = topic_named(topic).name
    except SchemaError as error:
        raise CommandError(str(error), exit_code=MISUSED) from error
    cluster = Cluster(brokers, kafka_option)
    start = OFFSET_BEGINNING if from_beginning else OFFSET_END
    left = set(range(cluster.partitions_of(name)))
    count = 0
    for message in cluster.follow(name, dict.fromkeys(left, start)):
        if message is None:
            continue
        trouble = message.error()
        if trouble is None:
            print(json.dumps(readable(message)), flush=True)
            count += 1
        elif trouble.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's name
            left.discard(message.partition())
        if (limit and count >= limit) or (until_end and not left):
            return


def readable(message: Any) -> dict[str, Any]:
    """A Kafka message as a JSON object; what cannot be decoded is named as such."""
    key, value = message.key(), message.value()
    line: dict[str, Any] = {
        "partition": message.partition(),
        "offset": message.offset(),
        "key": key.decode(errors="backslashreplace") if key is not None else None,
    }
    if value is None:
        return line | {"tombstone": True}
    try:
        name, record = decode(value)
        if name == "SignedEnforcement":
            line |= {"key_id": record["key_id"]}
            name, record = decode(record["payload"])
    except SchemaError as error:
        return line | {"undecodable": str(error), "bytes": len(value)}
    return line | {"record": name, "value": to_document(record)}
