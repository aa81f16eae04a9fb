# SPDX-License-Identifier: Apache-2.0
"""Signs and publishes what nodes are to be told about profiles.

Input: the desk, which knows what differs. Output: ``nsp.enforcement``, partition by node, as all orders to
sensors. Failure: an order that cannot be written is counted and logged; an output the broker refuses is
raised and ends the process, as everywhere.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from schemas.codec import encode
from schemas.errors import SchemaError
from schemas.partition import partition_for
from schemas.subject import enforcement_key
from schemas.topics import ENFORCEMENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from schemas.signing import SigningKey
    from stream_apps.profiles.desk import Draft, ProfileDesk
    from stream_apps.streaming.metrics import Metrics
    from stream_apps.streaming.worker import Sender

_log = structlog.get_logger(__name__)


class ProfilePublisher:
    """Publishes; used on one event loop, by several tasks."""

    def __init__(
        self,
        desk: ProfileDesk,
        outputs: Sender,
        signing_key: SigningKey,
        enforcement_partitions: int,
        metrics: Metrics,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Wire it.

        Args:
            desk: What is due.
            outputs: Where it goes.
            signing_key: What it is signed with.
            enforcement_partitions: Partitions of ``nsp.enforcement``.
            metrics: Figures.
            now_ns: Wall clock.
        """
        self._desk = desk
        self._outputs = outputs
        self._signing_key = signing_key
        self._enforcement_partitions = enforcement_partitions
        self._metrics = metrics
        self._now_ns = now_ns
        # Two tasks at once could write one subject's orders in the wrong order.
        self._one = asyncio.Lock()

    async def publish(self) -> int:
        """Publish all that is due; how many orders.

        Raises:
            StreamError: An output is refused for good.
        """
        async with self._one:
            self._desk.tick(self._now_ns())
            count = 0
            for draft in self._desk.drafts(self._now_ns()):
                count += await self._send(draft)
                await asyncio.sleep(0)  # a thousand nodes are told between two batches, not before the next
            return count

    async def _send(self, draft: Draft) -> bool:
        record = draft.record
        node = record["node"]
        try:
            key = enforcement_key(node, record["subject"])
            value = self._signing_key.sign(encode(draft.name, record))
        except SchemaError as error:
            self._desk.counts["orders_unwritable"] += 1
            _log.error("an order cannot be written", subject=record["subject"], node=node, reason=str(error))
            return False
        partition = partition_for(node.encode(), self._enforcement_partitions)
        await self._outputs.send(ENFORCEMENT.name, key, value, partition)
        self._desk.sent(draft)
        self._metrics.enforcements.inc()
        _log.info(
            "node told",
            node=node,
            subject=record["subject"],
            generation=record["generation"],
            removed=record.get("removed", False),
            workloads=len(record["workloads"]),
        )
        return True
