# SPDX-License-Identifier: Apache-2.0
"""``nsp topics``: make the topics of the contract, and show them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import NewTopic
from rich.console import Console
from rich.table import Table

from nsp.errors import CommandError
from nsp.kafka import ANSWER_TIMEOUT_S, Brokers, Cluster, KafkaOptions
from schemas.topics import TOPICS, creation_config

if TYPE_CHECKING:
    from schemas.topics import Topic

app = typer.Typer(help="The topics of the contract.", no_args_is_help=True)

# Lets the cluster decide (default.replication.factor).
_CLUSTER_DEFAULT: Final = -1


@app.command("create")
def create(
    brokers: Brokers,
    replication: Annotated[
        int, typer.Option(min=-1, help="copies of each partition; -1: as the cluster has it")
    ] = _CLUSTER_DEFAULT,
    min_insync: Annotated[
        int | None, typer.Option(min=1, help="copies that must exist before a write is acknowledged")
    ] = None,
    kafka_option: KafkaOptions = None,
) -> None:
    """Create what is missing; what is there stays as it is."""
    cluster = Cluster(brokers, kafka_option)
    present = cluster.partitions()
    missing = [each for each in TOPICS.values() if each.name not in present]
    _create(cluster, missing, replication, min_insync)
    for each in TOPICS.values():
        print(f"{each.name}: {'created' if each in missing else 'was there'}")
    wrong = [
        f"{name} has {present[name]} partitions, not {each.partitions}"
        for name, each in TOPICS.items()
        if present.get(name, each.partitions) != each.partitions
    ]
    if wrong:
        raise CommandError(", ".join(wrong), "delete the topic and create it again, if it is not in use")


@app.command("list")
def list_topics(
    brokers: Annotated[
        str | None, typer.Option("--brokers", envvar="NSP_BROKERS", help="also say where this Kafka differs")
    ] = None,
    kafka_option: KafkaOptions = None,
) -> None:
    """Show the topics: what they hold, and how long."""
    present = Cluster(brokers, kafka_option).partitions() if brokers else None
    table = Table(box=None, pad_edge=False)
    for title in ("topic", "value", "partitions", "kept", "key"):
        table.add_column(title, no_wrap=title in {"topic", "value"}, overflow="fold")
    for each in TOPICS.values():
        partitions = str(each.partitions)
        if present is not None and present.get(each.name) != each.partitions:
            found = present.get(each.name)
            partitions += f" (here {found})" if found else " (missing here)"
        table.add_row(each.name, each.value, partitions, _kept(each), each.key)
    Console(highlight=False).print(table)


def _create(cluster: Cluster, topics: list[Topic], replication: int, min_insync: int | None) -> None:
    if not topics:
        return
    admin = cluster.admin()
    futures = admin.create_topics(
        [
            NewTopic(
                each.name,
                each.partitions,
                replication_factor=replication,
                config=creation_config(each, min_insync),
            )
            for each in topics
        ],
        operation_timeout=ANSWER_TIMEOUT_S,
    )
    for name, future in futures.items():
        try:
            future.result(ANSWER_TIMEOUT_S + 1)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # somebody else was faster
                raise CommandError(f"{name} was not created: {error.args[0].str()}") from error


def _kept(topic: Topic) -> str:
    if topic.retention_ms is None:
        return "the newest of each key"
    return f"{timedelta(milliseconds=topic.retention_ms).days} days"
