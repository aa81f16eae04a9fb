# SPDX-License-Identifier: Apache-2.0
"""``nsp quarantine`` and ``nsp release``: a person's word, signed, newer than the stream apps'.

A stream app's generation is the wall time of its evidence; a person's is the time of the order, and in any
case above what stands on the topic: reprocessing old evidence cannot undo it.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from nsp import orders
from nsp.errors import MISUSED, CommandError
from nsp.kafka import Brokers, Cluster, KafkaOptions

_NS_PER_S: Final = 1_000_000_000
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_FLOW: Final = re.compile(
    r"(?P<protocol>tcp|udp):(?:\[(?P<ipv6>[0-9A-Fa-f:./]+)\]|(?P<ipv4>[0-9./]+)):(?P<port>\d{1,5})"
    r"\s+(?P<way>in|out)"
)
_MOST_PORT: Final = 65_535
_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])")

SubjectArgument = Annotated[
    str,
    typer.Argument(help="process/<boot id>/<tgid>/<start ns> or workload/<id>, as an alert names it"),
]
Node = Annotated[
    str, typer.Option("--node", help="node the subject is on, where neither an order nor a pod says so")
]
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
        allowed: What passes the quarantine of a workload; none given: what passes already.
    """

    subject: str
    node: str
    quarantined: bool
    seconds: int
    reason: str
    allowed: tuple[dict[str, Any], ...] = ()

    def record(self, now_ns: int, current: dict[str, Any] | None) -> dict[str, Any]:
        """The desired state, given what stands on the topic now.

        Destinations that are blocked stay blocked under a quarantine; a release lifts them too.
        """
        generation = max(now_ns, current["generation"] + 1) if current else now_ns
        in_force = current is not None and current["expires_at_ns"] > now_ns
        blocked_stays = in_force and self.quarantined
        blocked = current["blocked_destinations"] if current and blocked_stays else []
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
            "allowed": list(self.allowed or (current["allowed"] if current and blocked_stays else ())),
            "killed": False,
        }


def quarantine(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    subject: SubjectArgument,
    key: KeyFile,
    brokers: Brokers,
    node: Node = "",
    duration: Annotated[str, typer.Option("--ttl", "--for", help="how long: 90s, 10m, 2h, 1d")] = "1h",
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", help="what passes, e.g. 'udp:10.96.0.10/32:53 out'; repeatable"),
    ] = None,
    reason: Reason = "",
    wait: Wait = 5.0,
    kafka_option: KafkaOptions = None,
) -> None:
    """Cut a process tree or a workload off the network."""
    why = reason or f"quarantined by {orders.who()}"
    allowed = tuple(flow_of(each) for each in allow or ())
    order = Order(subject, node, quarantined=True, seconds=seconds_of(duration), reason=why, allowed=allowed)
    _carry_out(order, key, Cluster(brokers, kafka_option), wait)


def release(  # noqa: PLR0913, PLR0917 - same
    subject: SubjectArgument,
    key: KeyFile,
    brokers: Brokers,
    node: Node = "",
    duration: Annotated[
        str,
        typer.Option("--ttl", "--for", help="how long old evidence cannot cut it again: 90s, 2h, 1d"),
    ] = "1d",
    reason: Reason = "",
    wait: Wait = 5.0,
    kafka_option: KafkaOptions = None,
) -> None:
    """Lift whatever is in force against a process tree or a workload; shows what that opens again."""
    why = reason or f"released by {orders.who()}"
    order = Order(subject, node, quarantined=False, seconds=seconds_of(duration), reason=why)
    _carry_out(order, key, Cluster(brokers, kafka_option), wait)


def seconds_of(text: str) -> int:
    """Read a duration.

    Raises:
        CommandError: It is none.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise CommandError(f"--ttl {text} is no duration", "write it like 90s, 10m, 2h or 1d", MISUSED)
    return int(match[1]) * _UNITS[match[2]]


def flow_of(text: str) -> dict[str, Any]:
    """Read an allowed flow, written like a break-glass entry: PROTOCOL:CIDR:PORT in|out.

    Raises:
        CommandError: It is none.
    """
    match = _FLOW.fullmatch(text.strip())
    try:
        if match is None or not 0 < int(match["port"]) <= _MOST_PORT:
            raise ValueError(text)  # noqa: TRY301 - one place says how it is written
        network = ip_network(match["ipv6"] or match["ipv4"], strict=False)
    except ValueError as error:
        cure = "write it like 'udp:10.96.0.10/32:53 out' or 'tcp:[fd00::4/128]:8080 in'"
        raise CommandError(f"--allow {text} is no flow", cure, MISUSED) from error
    return {
        "network": str(network),
        "port": int(match["port"]),
        "protocol": 6 if match["protocol"] == "tcp" else 17,
        "incoming": match["way"] == "in",
    }


def _carry_out(order: Order, key_file: Path, cluster: Cluster, wait_s: float) -> None:
    from stream_apps.respond.undo import difference  # noqa: PLC0415 - other commands need none of it

    orders.check_subject(order.subject)
    signing_key = orders.key_of(key_file)
    order = replace(order, node=orders.node_of(cluster, order.subject, order.node))
    now_ns = time.time_ns()
    current = orders.current(cluster, order.node, order.subject)
    record = order.record(now_ns, current)
    in_force = current if current and current["expires_at_ns"] > now_ns else None
    lines = difference(in_force, record)
    print("\n".join(lines) if lines else "nothing changes: it is so already")
    orders.send(cluster, signing_key, record, wait_s)
