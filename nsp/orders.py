# SPDX-License-Identifier: Apache-2.0
"""A person's order on its way: what stands on the topic, the order signed and sent, the sensor's answer.

Used by ``nsp quarantine``, ``nsp release`` and ``nsp responses approve``. Failure: CommandError with what to
do about it.
"""

from __future__ import annotations

import getpass
import time
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import OFFSET_END

from nsp.errors import MISUSED, CommandError
from schemas.codec import decode_as, encode
from schemas.errors import SchemaError
from schemas.partition import partition_for
from schemas.signing import SigningKey
from schemas.subject import Subject, WorkloadSubject, enforcement_key, parse_subject, split_enforcement_key
from schemas.topics import ENFORCEMENT, ENFORCEMENT_STATUS, PODS

if TYPE_CHECKING:
    from pathlib import Path

    from nsp.kafka import Cluster


def who() -> str:
    """The name of whoever types."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "a person without a name on this system"


def key_of(path: Path) -> SigningKey:
    """The private key of a file.

    Raises:
        CommandError: There is none in it.
    """
    try:
        return SigningKey.from_file(path)
    except SchemaError as error:
        raise CommandError(str(error), exit_code=MISUSED) from error


def check_subject(subject: str) -> Subject:
    """Read a subject.

    Raises:
        CommandError: It is none.
    """
    try:
        found: Subject = parse_subject(subject)
    except SchemaError as error:
        raise CommandError(str(error), exit_code=MISUSED) from error
    return found


def node_of(cluster: Cluster, subject: str, node: str) -> str:
    """The node a subject is on: as given, or as the orders on the topic and the pods say.

    Raises:
        CommandError: It is no subject or no node name, or nobody or more than one node knows it.
    """
    parsed = check_subject(subject)
    if node:
        if "/" in node:
            raise CommandError(f"--node {node!r} is no node name", exit_code=MISUSED)
        return node
    found: set[str] = {each["node"] for each in standing(cluster).values() if each["subject"] == subject}
    if not found and isinstance(parsed, WorkloadSubject):
        found = _nodes_of_pod(cluster, parsed.workload_id)
    if len(found) == 1:
        return found.pop()
    names = ", ".join(sorted(found)) if found else "none"
    raise CommandError(f"nodes that are known to have {subject}: {names}", "say which: --node NAME", MISUSED)


def _nodes_of_pod(cluster: Cluster, uid: str) -> set[str]:
    nodes: dict[bytes, str] = {}
    for message in cluster.read_all(PODS.name, range(cluster.partitions_of(PODS.name))):
        if message.key() == uid.encode():
            nodes.pop(message.key(), None)
            if message.value():
                nodes[message.key()] = str(decode_as(PODS.value, message.value())["node"])
    return set(nodes.values())


def standing(cluster: Cluster) -> dict[tuple[str, str], dict[str, Any]]:
    """The newest order of each node and subject, whoever signed it; profiles are not among them."""
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for message in cluster.read_all(ENFORCEMENT.name, range(cluster.partitions_of(ENFORCEMENT.name))):
        record = _order_in(message.value())
        if record is None:
            continue
        try:
            key = split_enforcement_key(message.key() or b"")
        except SchemaError:
            continue  # a sensor refuses and reports it
        if key not in newest or record["generation"] > newest[key]["generation"]:
            newest[key] = record
    return newest


def _order_in(value: bytes | None) -> dict[str, Any] | None:
    if value is None:
        return None
    try:
        return decode_as("Enforcement", decode_as(ENFORCEMENT.value, value)["payload"])
    except SchemaError:
        return None  # a sensor refuses and reports it, or it is about profiles


def send(cluster: Cluster, key: SigningKey, record: dict[str, Any], wait_s: float) -> None:
    """Sign an order, publish it, and tell what the sensor answers.

    Raises:
        CommandError: The broker or the sensor does not take it.
    """
    node, subject = record["node"], record["subject"]
    partition = partition_for(node.encode(), cluster.partitions_of(ENFORCEMENT.name))
    message_key = enforcement_key(node, subject)
    answers = _Answers(cluster, message_key, record["generation"]) if wait_s else None
    cluster.publish(ENFORCEMENT.name, [(message_key, key.sign(encode("Enforcement", record)), partition)])
    print(f"ordered: {subject} on {node}, generation {record['generation']}")
    if answers:
        print(answers.wait(wait_s))


def current(cluster: Cluster, node: str, subject: str) -> dict[str, Any] | None:
    """What stands on the topic for this key, whoever signed it: only to be above its generation."""
    key = enforcement_key(node, subject)
    partition = partition_for(node.encode(), cluster.partitions_of(ENFORCEMENT.name))
    newest: dict[str, Any] | None = None
    for message in cluster.read_all(ENFORCEMENT.name, [partition]):
        if message.key() != key or message.value() is None:
            continue
        record = _order_in(message.value())
        if record is None:
            continue
        if newest is None or record["generation"] > newest["generation"]:
            newest = record
    return newest


class _Answers:
    """What the sensor says to an order. Made before the order is sent, so that no answer is missed."""

    def __init__(self, cluster: Cluster, key: bytes, generation: int) -> None:
        self._key = key
        self._generation = generation
        partitions = cluster.partitions_of(ENFORCEMENT_STATUS.name)
        self._messages = cluster.follow(ENFORCEMENT_STATUS.name, dict.fromkeys(range(partitions), OFFSET_END))
        ready = set(range(partitions))
        deadline = time.monotonic() + _SUBSCRIBED_WITHIN_S
        while ready and time.monotonic() < deadline:
            message = next(self._messages)
            if message is not None:
                ready.discard(message.partition())  # its end was reached: what comes now is seen

    def wait(self, seconds: float) -> str:
        """The answer in words.

        Raises:
            CommandError: The sensor refused, could not, or said nothing.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            message = next(self._messages)
            if message is None or message.error() or message.key() != self._key or not message.value():
                continue
            status = decode_as(ENFORCEMENT_STATUS.value, message.value())
            if status["generation"] != self._generation:
                continue
            if status["outcome"] in {"REFUSED", "FAILED"}:
                raise CommandError(f"the sensor answers {status['outcome'].lower()}: {status['reason']}")
            return _words(status)
        raise CommandError(
            f"no sensor has answered within {seconds:g} s",
            "the order stands and will be obeyed when that sensor reads it",
        )


# A reader of quiet partitions is told of their ends at once; on a broker under load, within seconds.
_SUBSCRIBED_WITHIN_S: Final = 5.0


def _words(status: dict[str, Any]) -> str:
    text = (
        f"the sensor answers {status['outcome'].lower()}: "
        f"{status['processes']} processes, {status['sockets']} open sockets"
    )
    if status["killed"]:
        text += f", {status['killed']} ended"
    return text + (f"; not ended: {status['kill_refused']}" if status["kill_refused"] else "")
