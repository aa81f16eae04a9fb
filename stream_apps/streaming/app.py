# SPDX-License-Identifier: Apache-2.0
"""The Faust app: ``nsp.events`` in, one message after the other to the worker.

Faust gives the group, the partitions, the buffers and the commits; it gets bytes and gives bytes. No tables
(each write would be a message on a quiet changelog), no ``topic.send`` (a hundred microseconds and no word
of failure), no leader topic, no web server.

Failure: whatever the worker raises ends the app before the message is acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import faust

from schemas.letters import bounded
from schemas.topics import EVENTS
from stream_apps.streaming.driver import Hooks, StrictTransport
from stream_apps.streaming.message import Message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from schemas.letters import Headers
    from stream_apps.streaming.connection import KafkaConnection

# Messages read ahead. Faust pauses up to a second when the buffer is full, so it must last longer than that
# (some 700 full batches a second and core); each is 25 kB, 2 MB at worst.
BUFFER_MESSAGES: Final = 1024

# At most this much is read again after a crash; each commit first waits for the outputs.
COMMIT_INTERVAL_S: Final = 1.0

# The shortest that brokers allow unless told otherwise (group.min.session.timeout.ms): the time that the
# partitions of a killed process lie idle. The heartbeat comes from a thread of its own.
SESSION_TIMEOUT_S: Final = 6.0
HEARTBEAT_INTERVAL_S: Final = 1.5


class StreamApp(faust.App):
    """A Faust app with our transport."""

    hooks: Hooks

    def _new_transport(self) -> StrictTransport:
        return StrictTransport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """Make none: without tables nothing would be in them, and the file system may be read-only."""


def build_app(
    connection: KafkaConnection,
    group: str,
    instance: str | None,
    hooks: Hooks,
    handle: Callable[[Message], Awaitable[None]],
) -> StreamApp:
    """Make the app; it connects when it is started.

    Args:
        connection: Where Kafka is.
        group: Consumer group, whose committed offsets it goes on from.
        instance: A name that no other process of the group has, and that a restarted process has again
            (static membership): it then gets its partitions back at once, also after a kill. None for
            ordinary membership.
        hooks: What the driver calls.
        handle: What to do with a message; when it returns, the message may be committed once the outputs
            are delivered.
    """
    context = connection.ssl_context()
    app = StreamApp(
        group,
        broker=connection.faust_url(),
        broker_credentials=faust.SSLCredentials(context=context) if context else None,
        broker_commit_interval=COMMIT_INTERVAL_S,
        broker_session_timeout=SESSION_TIMEOUT_S,
        broker_heartbeat_interval=HEARTBEAT_INTERVAL_S,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=instance,
        key_serializer="raw",
        value_serializer="raw",
        store="memory://",
        stream_buffer_maxsize=BUFFER_MESSAGES,
        stream_wait_empty=False,
        table_standby_replicas=0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )
    app.hooks = hooks
    _add_agent(app, handle)
    return app


def _headers(received: Any) -> Headers:
    """Faust has them as the driver gave them, or as a mapping."""
    if not received:
        return ()
    return bounded(received.items() if isinstance(received, Mapping) else received)


def _add_agent(app: StreamApp, handle: Callable[[Message], Awaitable[None]]) -> None:
    topic = app.topic(EVENTS.name, key_type=bytes, value_type=bytes)

    async def events(stream: Any) -> None:
        async for event in stream.noack().events():
            received = event.message
            message = Message(
                topic=received.topic,
                partition=received.partition,
                offset=received.offset,
                key=event.key,
                value=event.value,
                headers=_headers(received.headers),
            )
            try:
                await handle(message)
            except Exception as error:  # noqa: BLE001 - Faust would restart the agent behind the message
                await app.crash(error)
                await asyncio.Event().wait()
            event.ack()

    app.agent(topic, name="events", concurrency=1)(events)
