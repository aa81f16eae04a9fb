# SPDX-License-Identifier: Apache-2.0
"""An order: the whole desired state of one subject on this node, after verification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from schemas.addresses import to_mapped
from schemas.errors import SchemaError
from schemas.subject import ProcessSubject, Subject, parse_subject
from sensor.enforce.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

# A resolver or two and the node's probes, in two families; the kernel has 16,384 on a node.
MAX_ALLOWED: Final = 64

# One workload's share of the kernel's table of blocked destinations (16,384 on a node).
MAX_DESTINATIONS: Final = 1024

_MAX_PORT: Final = 65535
_MAX_PROTOCOL: Final = 255
_ALLOWED_PROTOCOLS: Final = frozenset({6, 17})


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a workload may not go.

    Attributes:
        address: 16 bytes, IPv4 mapped.
        port: 0 is any.
        protocol: IP protocol number; 0 is any, then the port is 0 too.
    """

    address: bytes
    port: int
    protocol: int


@dataclass(frozen=True, slots=True)
class AllowedFlow:
    """What passes a workload's quarantine.

    Attributes:
        address: First of the remote ends, 16 bytes, IPv4 mapped.
        prefix_bits: How many of the 128 bits count.
        port: Remote port of what the workload opens, local port of what is opened to it.
        protocol: IP protocol number.
        incoming: It is opened to the workload.
    """

    address: bytes
    prefix_bits: int
    port: int
    protocol: int
    incoming: bool


@dataclass(frozen=True, slots=True)
class Order:
    """One verified Enforcement. The fields are those of the schema, read and checked."""

    subject: Subject
    generation: int
    issued_at_ns: int
    expires_at_ns: int
    quarantined: bool
    destinations: frozenset[Destination]
    alert_id: str
    evidence_boot_ns: int
    allowed: frozenset[AllowedFlow] = frozenset()
    killed: bool = False

    @property
    def lifts(self) -> bool:
        """Nothing is desired: what was cut is to be free again."""
        return not self.quarantined and not self.destinations


def order_from(record: Mapping[str, Any]) -> Order:
    """Make an order of a decoded Enforcement.

    Raises:
        Refused: ``malformed``, when a field's value makes no sense.
    """
    text: str = record["subject"]
    generation: int = record["generation"]
    try:
        subject = parse_subject(text)
        destinations = frozenset(_destination(each) for each in record["blocked_destinations"])
        allowed = frozenset(_allowed(each) for each in record["allowed"])
    except SchemaError as error:
        raise Refused("malformed", str(error), text, generation) from error
    problem = _problem(record, subject, len(destinations)) or _problem_of_cut(record, subject, len(allowed))
    if problem:
        raise Refused("malformed", problem, text, generation)
    return Order(
        subject=subject,
        generation=generation,
        issued_at_ns=record["issued_at_ns"],
        expires_at_ns=record["expires_at_ns"],
        quarantined=record["quarantined"],
        destinations=destinations,
        alert_id=record["alert_id"],
        evidence_boot_ns=record["evidence_boot_ns"],
        allowed=allowed,
        killed=record["killed"],
    )


def _problem(record: Mapping[str, Any], subject: Subject, destinations: int) -> str | None:
    if record["generation"] < 1:
        return "a generation is above zero"
    if record["expires_at_ns"] <= record["issued_at_ns"]:
        return "it expires before it was issued"
    if destinations and isinstance(subject, ProcessSubject):
        return "destinations are blocked for workloads, not for processes"
    if destinations > MAX_DESTINATIONS:
        return f"more than {MAX_DESTINATIONS} blocked destinations"
    return None


def _problem_of_cut(record: Mapping[str, Any], subject: Subject, allowed: int) -> str | None:
    if allowed and (isinstance(subject, ProcessSubject) or not record["quarantined"]):
        return "flows are allowed to workloads that are quarantined"
    if allowed > MAX_ALLOWED:
        return f"more than {MAX_ALLOWED} allowed flows"
    if record["killed"] and not (isinstance(subject, ProcessSubject) and record["quarantined"]):
        return "what is ended is a process that is quarantined"
    return None


def _allowed(record: Mapping[str, Any]) -> AllowedFlow:
    port, protocol, network = record["port"], record["protocol"], record["network"]
    if not 0 < port <= _MAX_PORT or protocol not in _ALLOWED_PROTOCOLS:
        raise SchemaError(f"no flow: port {port}, protocol {protocol}")
    text, slash, bits = network.partition("/")
    address = to_mapped(text)
    most = 128 if ":" in text else 32
    if not slash or not bits.isdecimal() or int(bits) > most:
        raise SchemaError(f"no network: {network[:64]!r}")
    return AllowedFlow(address, 128 - most + int(bits), port, protocol, record["incoming"])


def _destination(record: Mapping[str, Any]) -> Destination:
    port, protocol = record["port"], record["protocol"]
    if not 0 <= port <= _MAX_PORT or not 0 <= protocol <= _MAX_PROTOCOL or (port and not protocol):
        raise SchemaError(f"no destination: port {port}, protocol {protocol}")
    return Destination(to_mapped(record["address"]), port, protocol)
