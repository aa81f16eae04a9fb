# SPDX-License-Identifier: Apache-2.0
"""Kafka for the commands: short-lived clients with an end to their patience.

Whoever types a command wants an answer, so a broker that does not answer is an error here, with the address
that was tried.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from nsp.errors import MISUSED, CommandError
from schemas.topics import PROFILE_BATCH_MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from schemas.letters import Headers

Brokers = Annotated[
    str, typer.Option("--brokers", envvar="NSP_BROKERS", help="host:port[,host:port...] of Kafka")
]
BrokersIfAny = Annotated[
    str, typer.Option("--brokers", envvar="NSP_BROKERS", help="host:port[,host:port...] of Kafka, if any")
]
KafkaOptions = Annotated[
    list[str] | None,
    typer.Option("--kafka-option", help="librdkafka setting as name=value, e.g. for TLS; repeatable"),
]

# A reachable broker answers in milliseconds; a new producer id may take a second more.
ANSWER_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.2
_OPTION_VARIABLE: Final = "NSP_KAFKA_OPTION"


class Cluster:
    """Where the commands send to and read from."""

    def __init__(self, brokers: str, options: Sequence[str] | None = None) -> None:
        self._config: dict[str, Any] = {
            "bootstrap.servers": brokers,
            "log_level": 0,  # our errors say it in one line
            **_parsed(options or list(filter(None, os.environ.get(_OPTION_VARIABLE, "").split(",")))),
        }
        self._brokers = brokers

    def admin(self) -> AdminClient:
        """A client for topics."""
        return AdminClient(self._config)

    def partitions(self) -> dict[str, int]:
        """Every topic and how many partitions it has.

        Raises:
            CommandError: No broker answers.
        """
        try:
            found = self.admin().list_topics(timeout=ANSWER_TIMEOUT_S).topics
        except KafkaException as error:
            raise self._unreachable(error) from error
        return {name: len(each.partitions) for name, each in found.items()}

    def partitions_of(self, topic: str) -> int:
        """How many partitions a topic has.

        Raises:
            CommandError: No broker answers, or there is no such topic.
        """
        count = self.partitions().get(topic, 0)
        if not count:
            raise CommandError(f"Kafka at {self._brokers} has no topic {topic}", "run `nsp topics create`")
        return count

    def publish(
        self,
        topic: str,
        messages: Sequence[tuple[bytes | None, bytes | None, int]],
        headers: Sequence[Headers] | None = None,
    ) -> None:
        """Write messages (key, value, partition or -1) and wait for the broker.

        Args:
            topic: Topic.
            messages: The messages.
            headers: The headers of each, in the same order; None: none has any.

        Raises:
            CommandError: One was not acknowledged.
        """
        producer = Producer(
            self._config
            | {
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "message.max.bytes": PROFILE_BATCH_MAX_BYTES,
                "message.timeout.ms": int(ANSWER_TIMEOUT_S * 1000),
            }
        )
        self._introduce(producer, topic)
        refused: list[str] = []

        def delivered(error: KafkaError | None, _message: Any) -> None:
            if error:
                refused.append(error.str())

        for number, (key, value, partition) in enumerate(messages):
            extra: Any = {"headers": list(headers[number])} if headers else {}
            while True:
                try:
                    producer.produce(topic, value, key, partition=partition, on_delivery=delivered, **extra)
                    break
                except BufferError:
                    producer.poll(_POLL_S)
                except KafkaException as error:
                    raise CommandError(f"{topic}: {error.args[0].str()}") from error
        left = producer.flush(ANSWER_TIMEOUT_S + 1)
        if refused or left:
            reason = refused[0] if refused else "no answer"
            raise CommandError(
                f"{len(refused) + left} of {len(messages)} messages to {topic} at {self._brokers} "
                f"were not acknowledged: {reason}"
            )

    def read_all(self, topic: str, partitions: Sequence[int]) -> Iterator[Any]:
        """Each message from the beginning to the end as it is now.

        Raises:
            CommandError: The broker stopped answering.
        """
        left = set(partitions)
        patience = time.monotonic() + ANSWER_TIMEOUT_S
        for message in self.follow(topic, dict.fromkeys(partitions, OFFSET_BEGINNING)):
            if message is None:
                if time.monotonic() > patience:
                    raise CommandError(f"Kafka at {self._brokers} does not deliver {topic}")
                continue
            patience = time.monotonic() + ANSWER_TIMEOUT_S
            if message.error() is None:
                yield message
            elif message.error().code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's name
                left.discard(message.partition())
            if not left:
                return

    def follow(self, topic: str, offsets: Mapping[int, int]) -> Iterator[Any]:
        """Messages from these offsets on, without end; None when there is none just now.

        Ends of partitions are told as messages with that error.

        Raises:
            CommandError: The topic must not be read, or is gone.
        """
        consumer = Consumer(
            self._config
            | {
                "group.id": "nsp-command",  # required by the client; no group is joined
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
            }
        )
        try:
            self._introduce(consumer, topic)
            consumer.assign([TopicPartition(topic, each, offset) for each, offset in offsets.items()])
            while True:
                message: Any = consumer.poll(_POLL_S)
                if message is not None and _is_final(message.error()):
                    raise CommandError(f"{topic}: {message.error().str()}")
                yield message
        finally:
            consumer.close()

    def reader(self, topic: str, more: Mapping[str, Any]) -> Consumer:
        """A consumer that joins no group and commits nothing, not assigned yet; whoever has it closes it.

        Args:
            topic: Which it will read.
            more: Further librdkafka settings.

        Raises:
            CommandError: No broker answers.
        """
        consumer = Consumer(
            self._config
            | {"group.id": "nsp-command", "enable.auto.commit": False, "enable.partition.eof": True, **more}
        )
        try:
            self._introduce(consumer, topic)
        except CommandError:
            consumer.close()
            raise
        return consumer

    def unanswered(self, topic: str) -> CommandError:
        """The error of a broker that was there and delivers no more."""
        return CommandError(f"Kafka at {self._brokers} does not deliver {topic}")

    def _introduce(self, client: Producer | Consumer, topic: str) -> None:
        """Let a client ask where a topic is; it would wait half a second to do so by itself.

        Raises:
            CommandError: No broker answers.
        """
        try:
            client.list_topics(topic, timeout=ANSWER_TIMEOUT_S)
        except KafkaException as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: KafkaException) -> CommandError:
        return CommandError(
            f"no Kafka broker answers at {self._brokers} ({error.args[0].str()})",
            "check --brokers or NSP_BROKERS",
        )


def _is_final(error: KafkaError | None) -> bool:
    if error is None:
        return False
    return error.code() in {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 - the client's name
    }


def _parsed(options: Sequence[str]) -> dict[str, str]:
    parsed = {}
    for each in options:
        name, separator, value = each.partition("=")
        if not separator or not name:
            raise CommandError(f"--kafka-option {each}", "write it as name=value", MISUSED)
        parsed[name] = value
    return parsed
