# SPDX-License-Identifier: Apache-2.0
"""Decides whether a message on nsp.enforcement is an order to this sensor.

Input: key and value as Kafka has them. Output: an order, of processes and workloads or about
profiles, or None for another node's message. Failure: :class:`~sensor.enforce.errors.Refused` with the
reason.

The order of checks matters. The key comes first, because nodes share partitions and another node's
orders are no affair of ours. Then the signature over the bytes as they are, before anything decodes
them. Only then what the payload says: node, subject, boot. Generation and expiry need the past and the
present, and are the controller's.

A tombstone carries no signature, so it cannot lift anything: who may write to the topic but holds no
key could free an attacker with it. Orders are lifted by a signed order that wants nothing; tombstones
only clear the topic of what has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas.codec import decode
from schemas.errors import CodecError, SignatureRefused, SubjectError
from schemas.partition import partition_for
from schemas.subject import ProcessSubject, enforcement_key, split_enforcement_key
from sensor.enforce.errors import Refused
from sensor.enforce.order import Order, order_from
from sensor.enforce.profile_order import (
    ProfileOrder,
    WorkloadsOrder,
    profile_order_from,
    workloads_order_from,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from schemas.signing import VerifyingKeys

AnyOrder = Order | ProfileOrder | WorkloadsOrder

_READ: Final[Mapping[str, Callable[[Mapping[str, object]], AnyOrder]]] = {
    "Enforcement": order_from,
    "ProfileOrder": profile_order_from,
    "NodeWorkloads": workloads_order_from,
}

# Reports go into logs, notices and a topic; what they quote of a hostile message is cut.
_QUOTED_CHARACTERS: Final = 200


class Tombstone:
    """A key of this node without a value.

    Args:
        subject: Text of the subject in the key.
    """

    __slots__ = ("subject",)

    def __init__(self, subject: str) -> None:
        self.subject = subject


class Verifier:
    """Knows who this sensor is and whom it trusts.

    Args:
        keys: Public keys that may sign orders.
        node: This node's name.
        boot_id: This boot.
        partitions: Partitions of the topic, to tell a neighbour's message from a misplaced one.
    """

    def __init__(self, keys: VerifyingKeys, node: str, boot_id: str, partitions: int) -> None:
        self._keys = keys
        self._node = node
        self._boot_id = boot_id
        self._partitions = partitions
        self._partition = partition_for(node.encode(), partitions)

    def read(self, key: bytes | None, value: bytes | None) -> AnyOrder | Tombstone | None:
        """Judge one message.

        Returns:
            The order, a tombstone of this node, or None for a neighbour's message.

        Raises:
            Refused: unsigned, unknown-key, bad-signature, malformed, foreign or other-boot.
        """
        try:
            node, subject = split_enforcement_key(key or b"")
        except SubjectError as error:
            raise Refused("malformed", str(error)) from error
        if node != self._node:
            if partition_for(node.encode(), self._partitions) == self._partition:
                return None
            raise Refused("foreign", f"an order to node {_quoted(node)} does not belong on this partition")
        subject = subject[:_QUOTED_CHARACTERS]
        if value is None:
            return Tombstone(subject)
        order = self._order(value, subject)
        if key != enforcement_key(self._node, str(order.subject)):
            detail = f"the key names {_quoted(subject)}, the order another subject"
            raise Refused("malformed", detail, str(order.subject), order.generation)
        if isinstance(order.subject, ProcessSubject) and order.subject.boot_id != self._boot_id:
            raise Refused(
                "other-boot", "that process ended with its boot", str(order.subject), order.generation
            )
        return order

    def _order(self, value: bytes, subject: str) -> AnyOrder:
        try:
            payload = self._keys.verify(value)
        except SignatureRefused as error:
            raise Refused(error.reason, error.detail, subject) from error
        try:
            name, record = decode(payload)
        except CodecError as error:
            raise Refused("malformed", f"signed, but {error}", subject) from error
        if name not in _READ:
            raise Refused("malformed", f"signed, but a {name} is no order", subject)
        if record["node"] != self._node:
            detail = f"signed for node {_quoted(record['node'])}, sent to this one"
            raise Refused("foreign", detail, subject, record["generation"])
        return _READ[name](record)


def _quoted(text: str) -> str:
    return repr(text[:_QUOTED_CHARACTERS])
