# SPDX-License-Identifier: Apache-2.0
"""``nsp quarantine`` and ``nsp release``: a person's word, signed, newer than the stream apps'.

A stream app's generation is the wall time of its evidence; a person's is the time of the order, and in any
case above what stands on the topic: reprocessing old evidence cannot undo it.
"""

from __future__ import annotations

import getpass
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from confluent_kafka import OFFSET_END

from nsp.errors import MISUSED, CommandError
from nsp.kafka import Brokers, Cluster, KafkaOptions
from schemas.codec import decode_as, encode
from schemas.errors import SchemaError
from schemas.partition import partition_for
from schemas.signing import SigningKey
from schemas.subject import enforcement_key, parse_subject
from schemas.topics import ENFORCEMENT, ENFORCEMENT_STATUS

_NS_PER_S: Final = 1_000_000_000
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])")

SubjectArgument = Annotated[
    str,
    typer.Argument(help="process/<boot id>/<tgid>/<start ns> or workload/<id>, as an alert names it"),
]
Node = Annotated[str, typer.Option("--node", help="node the subject is on")]
KeyFile = Annotated[
    Path, typer.Option("--key", envvar="NSP_SIGNING_KEY", help="private key of `nsp keys generate`")
]
Reason = Annotated[str, typer.Option("--reason", help="why, for whoever looks later")]
Wait = Annotated[
    float, typer.Option("--wait", min=0, help="seconds to wait for the sensor's answer; 0: do not wait")
]


@dataclass(frozen=True, slots=True)
class Order:
    """What a person wants.

    Attributes:
        subject: Subject text.
        node: Node it is on.
        quarantined: Cut, or released.
        seconds: For how long.
        reason: Why.
    """

    subject: str
    node: str
    quarantined: bool
    seconds: int
    reason: str

    def record(self, now_ns: int, current: dict[str, Any] | None) -> dict[str, Any]:
        """The desired state, given what stands on the topic now.

        Destinations that are blocked stay blocked under a quarantine; a release lifts them too.
        """
        generation = max(now_ns, current["generation"] + 1) if current else now_ns
        in_force = current is not None and current["expires_at_ns"] > now_ns
        blocked = current["blocked_destinations"] if current and in_force and self.quarantined else []
        return {
            "node": self.node,
            "subject": self.subject,
            "generation": generation,
            "issued_at_ns": now_ns,
            "expires_at_ns": now_ns + self.seconds * _NS_PER_S,
            "quarantined": self.quarantined,
            "blocked_destinations": blocked,
            "alert_id": "",
            "reason": self.reason,
            "evidence_boot_ns": 0,
            "allowed": list(current["allowed"]) if current and in_force and self.quarantined else [],
            "killed": False,
        }


def quarantine(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    subject: SubjectArgument,
    node: Node,
    key: KeyFile,
    brokers: Brokers,
    duration: Annotated[str, typer.Option("--for", help="how long: 90s, 10m, 2h, 1d")] = "1h",
    reason: Reason = "",
    wait: Wait = 5.0,
    kafka_option: KafkaOptions = None,
) -> None:
    """Cut a process tree or a workload off the network."""
    why = reason or f"quarantined by {_who()}"
    order = Order(subject, node, quarantined=True, seconds=seconds_of(duration), reason=why)
    _carry_out(order, key, Cluster(brokers, kafka_option), wait)


def release(  # noqa: PLR0913, PLR0917 - same
    subject: SubjectArgument,
    node: Node,
    key: KeyFile,
    brokers: Brokers,
    duration: Annotated[
        str, typer.Option("--for", help="how long older evidence cannot cut it again: 90s, 10m, 2h, 1d")
    ] = "1d",
    reason: Reason = "",
    wait: Wait = 5.0,
    kafka_option: KafkaOptions = None,
) -> None:
    """Lift whatever is in force against a process tree or a workload."""
    why = reason or f"released by {_who()}"
    order = Order(subject, node, quarantined=False, seconds=seconds_of(duration), reason=why)
    _carry_out(order, key, Cluster(brokers, kafka_option), wait)


def seconds_of(text: str) -> int:
    """Read a duration.

    Raises:
        CommandError: It is none.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise CommandError(f"--for {text} is no duration", "write it like 90s, 10m, 2h or 1d", MISUSED)
    return int(match[1]) * _UNITS[match[2]]


def _carry_out(order: Order, key_file: Path, cluster: Cluster, wait_s: float) -> None:
    try:
        parse_subject(order.subject)
        if not order.node or "/" in order.node:
            raise CommandError(f"--node {order.node!r} is no node name", exit_code=MISUSED)
        signing_key = SigningKey.from_file(key_file)
    except SchemaError as error:
        raise CommandError(str(error), exit_code=MISUSED) from error
    partition = partition_for(order.node.encode(), cluster.partitions_of(ENFORCEMENT.name))
    message_key = enforcement_key(order.node, order.subject)
    record = order.record(time.time_ns(), _current(cluster, partition, message_key))
    answers = _Answers(cluster, message_key, record["generation"]) if wait_s else None
    signed = signing_key.sign(encode("Enforcement", record))
    cluster.publish(ENFORCEMENT.name, [(message_key, signed, partition)])
    print(f"ordered: {order.subject} on {order.node}, generation {record['generation']}")
    if answers:
        print(answers.wait(wait_s))


def _current(cluster: Cluster, partition: int, key: bytes) -> dict[str, Any] | None:
    """What stands on the topic for this key, whoever signed it: only to be above its generation."""
    newest: dict[str, Any] | None = None
    for message in cluster.read_all(ENFORCEMENT.name, [partition]):
        if message.key() != key or message.value() is None:
            continue
        try:
            signed = decode_as(ENFORCEMENT.value, message.value())
            record = decode_as("Enforcement", signed["payload"])
        except SchemaError:
            continue  # a sensor refuses and reports it; it holds no generation
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
            return (
                f"the sensor answers {status['outcome'].lower()}: "
                f"{status['processes']} processes, {status['sockets']} open sockets"
            )
        raise CommandError(
            f"no sensor has answered within {seconds:g} s",
            "the order stands and will be obeyed when that sensor reads it",
        )


# A reader of quiet partitions is told of their ends at once; on a broker under load, within seconds.
_SUBSCRIBED_WITHIN_S: Final = 5.0


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "a person without a name on this system"
