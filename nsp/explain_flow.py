# SPDX-License-Identifier: Apache-2.0
"""The flows a person asks about: ``--to HOST:PORT`` and ``--from ADDRESS --port N``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nsp.errors import MISUSED, CommandError
from schemas.addresses import MAPPED_PREFIX, to_mapped
from schemas.errors import SchemaError
from schemas.profile.values import domain_name
from sensor.policy import layout
from sensor.policy.layers import DNS_PORT, PROTOCOL_NAMES, UDP, Direction, Flow
from sensor.policy.payloads import Payload

_NUMBERS: Final = {name: number for number, name in PROTOCOL_NAMES.items()}
_ANY_IPV4: Final = MAPPED_PREFIX + bytes(4)
_MOST_PROTOCOL: Final = 255
_MOST_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class Asked:
    """One question.

    Attributes:
        question: In words; empty when only the profiles are asked for.
        flow: The flow.
    """

    question: str
    flow: Flow | None


def flows_of(to: str, source: str, port: int, protocol: str) -> list[Asked]:
    """What is asked by the options of the command; a name is first a question to a resolver.

    Raises:
        CommandError: An option is not understood.
    """
    number = _protocol(protocol)
    asked = []
    if to:
        asked += _outgoing(to, number, protocol)
    if source:
        direction: Direction = "in"
        flow = Flow(direction, number, _address("--from", source), local_port=port)
        asked.append(Asked(f"{protocol} from {source} to port {port} here", flow))
    elif port:
        raise CommandError("--port is the local port of --from, which is not given", exit_code=MISUSED)
    return asked


def _outgoing(to: str, number: int, protocol: str) -> list[Asked]:
    host, separator, port_text = to.rpartition(":")
    port = int(port_text) if port_text.isascii() and port_text.isdigit() else -1
    if not separator or not host or not 0 <= port <= _MOST_PORT:
        raise CommandError(f"--to {to} is not HOST:PORT", "write it like example.com:443", MISUSED)
    direction: Direction = "either" if number == UDP else "out"
    bare = host.removeprefix("[").removesuffix("]")
    if "%" in bare:
        raise CommandError(f"--to {to} has a zone", "leave it out; rules have none", MISUSED)
    if _is_address(bare):
        return [Asked(f"{protocol} to {to}", Flow(direction, number, to_mapped(bare), port))]
    try:
        name = domain_name(host)
    except ValueError as error:
        raise CommandError(f"--to {error}", exit_code=MISUSED) from error
    if name.startswith("*."):
        raise CommandError(f"--to {to} is many names", "ask for one of them", MISUSED)
    question = Flow(
        "either", UDP, _ANY_IPV4, DNS_PORT, to_resolver=True, payload=Payload(layout.L7_DNS, name)
    )
    flow = Flow(direction, number, _ANY_IPV4, port, learned=frozenset({name}))
    return [
        Asked(f"question for {name} to a listed resolver", question),
        Asked(f"{protocol} to what {name} is answered with, port {port}", flow),
    ]


def _protocol(text: str) -> int:
    number = _NUMBERS.get(text.lower(), int(text) if text.isascii() and text.isdigit() else -1)
    if not 0 <= number <= _MOST_PROTOCOL:
        raise CommandError(
            f"--protocol {text} is none", f"one of {', '.join(_NUMBERS)}, or a number", MISUSED
        )
    return number


def _is_address(text: str) -> bool:
    try:
        to_mapped(text)
    except SchemaError:
        return False
    return True


def _address(option: str, text: str) -> bytes:
    try:
        return to_mapped(text)
    except SchemaError as error:
        raise CommandError(f"{option} {error}", exit_code=MISUSED) from error
