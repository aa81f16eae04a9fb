# SPDX-License-Identifier: Apache-2.0
"""What a person asks about: ``--to HOST:PORT``, ``--from ADDRESS --port N``, ``--listen N``, what is said.

Input: the options of ``nsp explain``. Output: questions as sensor/policy takes them, each with its words.
Failure: :class:`~nsp.errors.CommandError` for an option that is not understood or does not fit another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from nsp.errors import MISUSED, CommandError
from schemas.addresses import MAPPED_PREFIX, to_mapped
from schemas.errors import SchemaError
from schemas.profile.values import domain_name, http_method, http_uri
from sensor.policy import layout
from sensor.policy.explain import Bind
from sensor.policy.layers import DNS_PORT, PROTOCOL_NAMES, UDP, Direction, Flow
from sensor.policy.payloads import Payload

if TYPE_CHECKING:
    from collections.abc import Iterator

_NUMBERS: Final = {name: number for number, name in PROTOCOL_NAMES.items()}
_ANY_IPV4: Final = MAPPED_PREFIX + bytes(4)
_MOST_PROTOCOL: Final = 255
_MOST_PORT: Final = 65_535
_HTTP_PORT, _TLS_PORT = 80, 443
_ICMP: Final = frozenset({_NUMBERS["icmp"], _NUMBERS["icmpv6"]})
_MOST_TYPE: Final = 255


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command that say what is asked, as they were given.

    Attributes:
        to: HOST:PORT.
        source: ADDRESS.
        port: Local port of source.
        listen: Port to bind to.
        protocol: Name or number.
        ask: Name of a DNS question.
        request: ``METHOD http://HOST/URI``.
        sni: TLS server name.
    """

    to: str = ""
    source: str = ""
    port: int = 0
    listen: int = 0
    protocol: str = "tcp"
    ask: str = ""
    request: str = ""
    sni: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question.

    Attributes:
        question: In words; empty when only the profiles are asked for.
        flow: The flow or bind.
    """

    question: str
    flow: Flow | Bind | None


@dataclass(frozen=True, slots=True)
class _Said:
    """What is said on a connection.

    Attributes:
        words: For the question.
        to: HOST:PORT it is for, unless --to says otherwise.
        payload: What it is.
    """

    words: str
    to: str
    payload: Payload


def questions_of(options: Options) -> list[Asked]:
    """What is asked by the options of the command; a name is first a question to a resolver.

    Raises:
        CommandError: An option is not understood.
    """
    if sum(map(bool, (options.ask, options.request, options.sni))) > 1:
        raise _misused("--ask, --request and --sni are questions of their own", "give one of them")
    number = _protocol(options.protocol)
    said = _request(options.request) if options.request else _hello(options.sni) if options.sni else None
    if options.ask:
        return list(_question(options))
    asked = list(_coming_in(options, number, said))
    if options.to or (said and not options.source):
        asked += _going_out(options, number, said)
    if options.listen:
        asked.append(Asked(f"listen on {options.protocol} {options.listen}", Bind(number, options.listen)))
    return asked


def _coming_in(options: Options, number: int, said: _Said | None) -> Iterator[Asked]:
    if not options.source:
        if options.port:
            raise _misused("--port is the local port of --from, which is not given")
        return
    local = _echo(number) if number in _ICMP and not options.port else options.port
    flow = Flow("in", number, _address("--from", options.source), local_port=local)
    words = f"{options.protocol} from {options.source} to port {options.port} here"
    yield _with(Asked(words, flow), said)


def _going_out(options: Options, number: int, said: _Said | None) -> Iterator[Asked]:
    to = options.to or (said.to if said else "")
    host, port = _host_and_port(to, number)
    direction: Direction = "either" if number == UDP else "out"
    if _is_address(host):
        yield _with(
            Asked(f"{options.protocol} to {to}", Flow(direction, number, to_mapped(host), port)), said
        )
        return
    name = _name("--to", host)
    yield _to_resolver(name)
    flow = Flow(direction, number, _ANY_IPV4, port, learned=frozenset({name}))
    yield _with(Asked(f"{options.protocol} to what {name} is answered with, port {port}", flow), said)


def _with(asked: Asked, said: _Said | None) -> Asked:
    if said is None or not isinstance(asked.flow, Flow):
        return asked
    return Asked(f"{said.words}, {asked.question}", replace(asked.flow, payload=said.payload))


def _question(options: Options) -> Iterator[Asked]:
    """A DNS question: to a listed resolver, to the server that --to says, or to one of the workload's own."""
    name = options.ask if options.ask == "." else _name("--ask", options.ask)
    if options.source:
        port, payload = options.port or DNS_PORT, Payload(layout.L7_DNS, name)
        flow = Flow("in", UDP, _address("--from", options.source), local_port=port, payload=payload)
        yield Asked(f"question for {name} from {options.source} to port {port} here", flow)
    if options.listen:
        raise _misused("--ask needs no --listen", "leave it out")
    if not options.to and not options.source:
        yield _to_resolver(name)
    if not options.to:
        return
    host, port = _host_and_port(options.to, UDP)
    if not _is_address(host) or port != DNS_PORT:
        raise _misused(f"--to {options.to} is no DNS server", f"with --ask it is ADDRESS:{DNS_PORT}")
    flow = Flow("either", UDP, to_mapped(host), port, payload=Payload(layout.L7_DNS, name))
    yield Asked(f"question for {name} to {host}", flow)


def _to_resolver(name: str) -> Asked:
    payload = Payload(layout.L7_DNS, name)
    flow = Flow("either", UDP, _ANY_IPV4, DNS_PORT, to_resolver=True, payload=payload)
    return Asked(f"question for {name} to a listed resolver", flow)


def _request(text: str) -> _Said:
    method, _, address = text.strip().partition(" ")
    try:
        url = urlsplit(address.strip())
        host, port = url.hostname or "", url.port or _HTTP_PORT
        # What follows a # is never sent.
        uri = http_uri((url.path or "/") + (f"?{url.query}" if url.query else ""))
        method = http_method(method)
    except ValueError as error:
        raise _misused(f"--request {error}") from error
    if url.scheme != "http" or not host or not method or "@" in url.netloc:
        raise _misused(f"--request {text[:80]!r} is none", 'write it like "GET http://example.com/path"')
    shown = f"[{host}]" if ":" in host else host
    if not _is_address(host):
        host = _name("--request", host)
        shown = host
    payload = Payload(layout.L7_HTTP, method=method, uri=uri, host=shown)
    return _Said(f"{method} {uri} of host {shown}", f"{shown}:{port}", payload)


def _hello(text: str) -> _Said:
    name = _name("--sni", text)
    return _Said(f"TLS for {name}", f"{name}:{_TLS_PORT}", Payload(layout.L7_TLS, name))


def _host_and_port(to: str, number: int) -> tuple[str, int]:
    """The host without brackets; of ICMP the number behind the colon is a type."""
    whole = to.removeprefix("[").removesuffix("]")
    if number in _ICMP and (_is_address(whole) or ":" not in to):
        return whole, _echo(number)
    host, separator, port_text = to.rpartition(":")
    port = int(port_text) if port_text.isascii() and port_text.isdigit() else -1
    most = _MOST_TYPE if number in _ICMP else _MOST_PORT
    if not separator or not host or not 0 <= port <= most:
        raise _misused(f"--to {to} is not HOST:PORT", "write it like example.com:443")
    bare = host.removeprefix("[").removesuffix("]")
    if "%" in bare:
        raise _misused(f"--to {to} has a zone", "leave it out; rules have none")
    return bare, port << 8 if number in _ICMP else port


def _echo(number: int) -> int:
    """Type and code of what ping sends."""
    return (8 if number == _NUMBERS["icmp"] else 128) << 8


def _name(option: str, text: str) -> str:
    try:
        name = domain_name(text)
    except ValueError as error:
        raise _misused(f"{option} {error}") from error
    if name.startswith("*."):
        raise _misused(f"{option} {text} is many names", "ask for one of them")
    return name


def _protocol(text: str) -> int:
    number = _NUMBERS.get(text.lower(), int(text) if text.isascii() and text.isdigit() else -1)
    if not 0 <= number <= _MOST_PROTOCOL:
        raise _misused(f"--protocol {text} is none", f"one of {', '.join(_NUMBERS)}, or a number")
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


def _misused(what: str, cure: str = "") -> CommandError:
    return CommandError(what, cure, MISUSED)
