# SPDX-License-Identifier: Apache-2.0
"""``nsp responses``: what waits for a person, what is in force, and a person's word on it.

Approving signs the order here, with the person's key, and sends it to the sensor itself: it counts even when
no stream app runs. The stream apps learn of it from ``nsp.responses``, and tell it as an audit event.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from nsp import orders
from nsp.errors import CommandError
from nsp.kafka import Brokers, Cluster, KafkaOptions
from nsp.override import KeyFile, Reason, Wait
from schemas.codec import decode_as, encode
from schemas.errors import SchemaError
from schemas.signing import SigningKey, VerifyingKeys
from schemas.topics import ENFORCEMENT_STATUS, RESPONSES

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer(help="Responses: what waits, what is in force.", no_args_is_help=True)

_NS_PER_S: Final = 1_000_000_000
_SUMMARY_CHARACTERS: Final = 100

Id = Annotated[str, typer.Argument(help="id that `nsp responses pending` shows")]


@app.callback()
def responses() -> None:
    """Responses: what waits, what is in force."""


@app.command("pending")
def pending(key: KeyFile, brokers: Brokers, kafka_option: KafkaOptions = None) -> None:
    """Show what waits for a person or, for some seconds, for the disarmer."""
    now_ns = time.time_ns()
    waiting = [
        each for each in _all(Cluster(brokers, kafka_option), orders.key_of(key)) if _waits(each, now_ns)
    ]
    for each in sorted(waiting, key=lambda one: one["requested_at_ns"]):
        for_whom = "a person" if each["state"] == "PENDING" else "the disarmer"
        print(f"{each['id']}  {each['action']} {each['subject']} on {each['node']}")
        print(f"    {each['severity']} {each['rule_id']} (policy {each['policy']}), alert {each['alert_id']}")
        print(f"    {each['summary'][:_SUMMARY_CHARACTERS]}")
        print(f"    waits for {for_whom}, {_seconds(each['due_at_ns'] - now_ns)} left")
    if not waiting:
        print("nothing waits")


@app.command("list")
def in_force(brokers: Brokers, kafka_option: KafkaOptions = None) -> None:
    """Show the orders in force, and what the sensors say of them."""
    from stream_apps.respond.undo import closed  # noqa: PLC0415 - other commands need none of it

    cluster, now_ns = Cluster(brokers, kafka_option), time.time_ns()
    answers = _answers(cluster)
    found = False
    for (node, subject), record in sorted(orders.standing(cluster).items()):
        lines = closed(record)
        if record["expires_at_ns"] <= now_ns or not lines:
            continue
        found = True
        by = f"alert {record['alert_id']}" if record["alert_id"] else "a person"
        left = _seconds(record["expires_at_ns"] - now_ns)
        print(f"{subject} on {node}: by {by}, generation {record['generation']}, {left} left")
        print(f"    {record['reason'][:_SUMMARY_CHARACTERS]}")
        for line in lines:
            print(f"    - {line}")
        print(f"    {_said(answers.get((node, subject)), record)}")
    if not found:
        print("nothing is in force")


@app.command("approve")
def approve(
    which: Id, key: KeyFile, brokers: Brokers, reason: Reason = "", wait: Wait = 5.0,
    kafka_option: KafkaOptions = None,
) -> None:  # fmt: skip
    """Order what waits, now."""
    cluster, signing_key, now_ns = Cluster(brokers, kafka_option), orders.key_of(key), time.time_ns()
    waiting = _one(cluster, signing_key, which, now_ns)
    record = order_of(waiting, orders.current(cluster, waiting["node"], waiting["subject"]), now_ns)
    # The decision first: whoever reads the order then knows whose it is.
    _decide(cluster, signing_key, waiting, "APPROVED", reason)
    orders.send(cluster, signing_key, record, wait)


@app.command("reject")
def reject(
    which: Id, key: KeyFile, brokers: Brokers, reason: Reason = "", kafka_option: KafkaOptions = None
) -> None:
    """Do not do what waits; the rule does not ask again until the response would have ended."""
    cluster, signing_key = Cluster(brokers, kafka_option), orders.key_of(key)
    waiting = _one(cluster, signing_key, which, time.time_ns())
    _decide(cluster, signing_key, waiting, "REJECTED", reason or f"rejected by {orders.who()}")
    print(f"rejected: {waiting['action']} {waiting['subject']} on {waiting['node']}")


def order_of(waiting: dict[str, Any], current: dict[str, Any] | None, now_ns: int) -> dict[str, Any]:
    """The desired state an approval makes of what stands on the topic: what is in force stays."""
    before = current if current and current["expires_at_ns"] > now_ns else None
    cuts = waiting["action"] != "block-destination"
    blocked = list(before["blocked_destinations"]) if before else []
    blocked += [each for each in waiting["destinations"] if each not in blocked]
    return {
        "node": waiting["node"],
        "subject": waiting["subject"],
        "generation": max(now_ns, current["generation"] + 1) if current else now_ns,
        "issued_at_ns": now_ns,
        "expires_at_ns": max(waiting["expires_at_ns"], before["expires_at_ns"] if before else 0),
        "quarantined": cuts or bool(before and before["quarantined"]),
        "blocked_destinations": blocked,
        "alert_id": waiting["alert_id"],
        "reason": f"approved by {orders.who()}: {waiting['summary']}",
        "evidence_boot_ns": waiting["observed_boot_ns"],
        "allowed": list(waiting["allowed"] or (before["allowed"] if before else ())),
        "killed": waiting["action"] == "kill" or bool(before and before["killed"]),
    }


def _waits(record: dict[str, Any], now_ns: int) -> bool:
    return record["state"] in {"QUEUED", "PENDING"} and record["due_at_ns"] > now_ns


def _all(cluster: Cluster, key: SigningKey) -> Iterator[dict[str, Any]]:
    """The newest record of each response, signed with this key: others could be anybody's."""
    trusted = VerifyingKeys.from_pems([key.public_pem()])
    newest: dict[bytes, dict[str, Any]] = {}
    for message in cluster.read_all(RESPONSES.name, range(cluster.partitions_of(RESPONSES.name))):
        if message.value() is None:
            newest.pop(message.key(), None)
            continue
        try:
            newest[message.key()] = decode_as("PendingResponse", trusted.verify(message.value()))
        except SchemaError:
            continue
    yield from newest.values()


def _one(cluster: Cluster, key: SigningKey, which: str, now_ns: int) -> dict[str, Any]:
    found = [each for each in _all(cluster, key) if each["id"] == which]
    if not found:
        raise CommandError(f"nothing waits as {which}", "see `nsp responses pending`")
    if not _waits(found[0], now_ns):
        state = "given up" if found[0]["state"] in {"QUEUED", "PENDING"} else found[0]["state"].lower()
        by = f" by {found[0]['decided_by']}" if found[0]["decided_by"] else ""
        raise CommandError(f"{which} waits no more: {state}{by}", found[0]["reason"])
    return found[0]


def _decide(cluster: Cluster, key: SigningKey, waiting: dict[str, Any], state: str, reason: str) -> None:
    decided = {**waiting, "state": state, "decided_by": orders.who(), "reason": reason}
    value = key.sign(encode("PendingResponse", decided))
    cluster.publish(RESPONSES.name, [(waiting["id"].encode(), value, -1)])


def _answers(cluster: Cluster) -> dict[tuple[str, str], dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    partitions = range(cluster.partitions_of(ENFORCEMENT_STATUS.name))
    for message in cluster.read_all(ENFORCEMENT_STATUS.name, partitions):
        if message.value():
            try:
                status = decode_as(ENFORCEMENT_STATUS.value, message.value())
            except SchemaError:
                continue
            found[status["node"], status["subject"]] = status
    return found


def _said(status: dict[str, Any] | None, record: dict[str, Any]) -> str:
    if status is None or status["generation"] < record["generation"]:
        return "no sensor has answered yet"
    text = f"the sensor says {status['outcome'].lower()}"
    if status["refused_calls"] or status["refused_packets"]:
        text += f": {status['refused_calls']} calls and {status['refused_packets']} packets refused"
    return text + "".join(f"; {each}" for each in (status["reason"], status["kill_refused"]) if each)


def _seconds(nanoseconds: int) -> str:
    return f"{max(nanoseconds, 0) // _NS_PER_S} s"
