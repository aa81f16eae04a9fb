# SPDX-License-Identifier: Apache-2.0
"""What no profile of the host may cut: the sensor's own connection to Kafka, and the ways in for emergencies.

The kernel lets both pass whatever a profile says (maps ``exempt`` and ``break_glass``). A profile that wants
to cut them is a mistake somebody should hear of, so it is refused with the reason. Pure.

A break-glass entry is ``PROTOCOL:CIDR:PORT DIRECTION [SERVICE]``: ``tcp:10.0.0.0/8:22 in ssh.service`` keeps
what 10.0.0.0/8 opens to port 22 here, ``udp:[2001:db8::/32]:123 out`` what is sent there to port 123. The
kernel lets such flows pass for everybody. Profiles are held against an entry that names a service (a unit or
a cgroup path) when they select that service; against one that does not, when they select everything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from schemas.addresses import to_text
from sensor.policy import layout
from sensor.policy.decide import decide
from sensor.policy.errors import PolicyRefused
from sensor.policy.layers import DNS_PORT, PROTOCOL_NAMES, TCP, UDP, Direction, Flow, RuleTries
from sensor.policy.payloads import Payload
from sensor.policy.policy import Selection, union_of
from sensor.policy.prefixes import cidr_prefix
from sensor.policy.profile import Program
from sensor.policy.reasons import REASONS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from sensor.policy.profile import CompiledProfile

# NSP_MAX_BREAK_GLASS of bpf/maps.h: an emergency exit is a short list, or it is a second policy.
MAX_BREAK_GLASS: Final = 256
_ENTRY: Final = re.compile(
    r"(?P<protocol>tcp|udp):(?:\[(?P<ipv6>[0-9A-Fa-f:./]+)\]|(?P<ipv4>[0-9./]+)):(?P<port>\d{1,5})"
    r"\s+(?P<way>in|out)(?:\s+(?P<service>\S+))?"
)
_SYNTAX: Final = "write it like `tcp:10.0.0.0/8:22 in ssh.service`"
_NUMBERS: Final = {name: number for number, name in PROTOCOL_NAMES.items()}
_MOST_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class BreakGlassEntry:
    """One way in or out that stays.

    Attributes:
        text: As it was written.
        protocol: IP protocol number.
        direction: In: to a local port; out: to a remote one.
        address: First of its addresses, 16 bytes.
        bits: How many of the 128 bits count.
        port: The port.
        service: Unit or cgroup path that needs it; empty: none in particular.
    """

    text: str
    protocol: int
    direction: Direction
    address: bytes
    bits: int
    port: int
    service: str = ""

    def flows(self) -> Iterator[Flow]:
        """The flows of its first and of its last address."""
        last = int.from_bytes(self.address) | (1 << (128 - self.bits)) - 1
        for address in {self.address, last.to_bytes(16)}:
            remote, local = (0, self.port) if self.direction == "in" else (self.port, 0)
            yield Flow(self.direction, self.protocol, address, remote, local)


def parse_break_glass(entries: Iterable[str]) -> tuple[BreakGlassEntry, ...]:
    """Read a break-glass list.

    Raises:
        PolicyRefused: Naming the entry that is none, or too many of them.
    """
    parsed = tuple(_entry(text) for text in entries)
    if len(parsed) > MAX_BREAK_GLASS:
        raise PolicyRefused(f"{len(parsed)} break-glass entries are more than {MAX_BREAK_GLASS}")
    return parsed


def _entry(text: str) -> BreakGlassEntry:
    match = _ENTRY.fullmatch(text.strip())
    if match is None:
        raise PolicyRefused(f"break-glass entry {text[:80]!r} is not understood", _SYNTAX)
    port = int(match["port"])
    if not 0 < port <= _MOST_PORT:
        raise PolicyRefused(f"break-glass entry {text[:80]!r}: no port {port}", _SYNTAX)
    try:
        first, bits = cidr_prefix(match["ipv6"] or match["ipv4"])
    except PolicyRefused as error:
        raise PolicyRefused(f"break-glass entry {text[:80]!r}: {error}", _SYNTAX) from error
    way: Direction = "in" if match["way"] == "in" else "out"
    address = first.to_bytes(16)
    return BreakGlassEntry(
        text.strip(), _NUMBERS[match["protocol"]], way, address, bits, port, match["service"] or ""
    )


@dataclass(frozen=True, slots=True)
class Broker:
    """One address of Kafka.

    Attributes:
        address: 16 bytes.
        port: The port.
        name: By which it was given; empty: by its address.
        encrypted: It is spoken to by TLS.
    """

    address: bytes
    port: int
    name: str = ""
    encrypted: bool = False

    def flow(self) -> Flow:
        """The sensor's connection to it."""
        payload = Payload(layout.L7_TLS, self.name) if self.encrypted else Payload(layout.L7_OPAQUE)
        learned = frozenset({self.name} if self.name else ())
        return Flow("out", TCP, self.address, self.port, learned=learned, payload=payload)

    def question(self, resolver: bytes) -> Flow:
        """The sensor's question for its address."""
        asked = Payload(layout.L7_DNS, self.name)
        return Flow("out", UDP, resolver, DNS_PORT, to_resolver=True, payload=asked)


@dataclass(frozen=True, slots=True)
class Protected:
    """What may not be cut.

    Attributes:
        brokers: Kafka, each address.
        resolvers: The node's DNS servers, 16 bytes each.
        sensor_unit: Unit of this sensor; empty when it has none.
        sensor_cgroup: Its cgroup path.
        sensor_executable: Path of its executable, as the kernel sees it.
        sensor_pod: UID of its pod; empty when it runs in none.
        break_glass: The list.
    """

    brokers: tuple[Broker, ...] = ()
    resolvers: tuple[bytes, ...] = ()
    sensor_unit: str = ""
    sensor_cgroup: str = ""
    sensor_executable: str = ""
    sensor_pod: str = ""
    break_glass: tuple[BreakGlassEntry, ...] = ()


def check_profile(profile: CompiledProfile, protected: Protected, pods: Collection[str] = ()) -> None:
    """Refuse a profile that would cut what is protected.

    Args:
        profile: The profile.
        protected: What it may not cut.
        pods: Those it selects, if it is one of pods.

    Raises:
        PolicyRefused: Naming the flow and what decided.
    """
    sensor = _sensor_in(profile, protected, pods)
    if sensor:
        program = Program(protected.sensor_executable) if protected.sensor_executable else None
        for flow, what in _own_flows(protected):
            _check(profile, sensor, flow, program, what)
    if not profile.node_scope:
        return
    for entry in protected.break_glass:
        unit, path = ("", entry.service) if entry.service.startswith("/") else (entry.service, "")
        selection = _selection(profile, unit, path or (f"/system.slice/{unit}" if unit else "/"), "")
        if selection:
            for flow in entry.flows():
                _check(profile, selection, flow, None, f"the break-glass entry {entry.text!r}")


def _own_flows(protected: Protected) -> Iterator[tuple[Flow, str]]:
    """What the sensor needs, and how it is called."""
    for broker in protected.brokers:
        flow = broker.flow()
        yield flow, f"the sensor's own connection to Kafka at {_shown(flow)}"
    for name in sorted({broker.name for broker in protected.brokers if broker.name}):
        for resolver in protected.resolvers:
            flow = Broker(b"", 0, name).question(resolver)
            yield flow, f"the sensor's own question for {name} to {_shown(flow)}"


def _sensor_in(profile: CompiledProfile, protected: Protected, pods: Collection[str]) -> _Selected | None:
    if not profile.node_scope:
        selected = protected.sensor_pod and protected.sensor_pod in pods
        return _Selected(Selection(profile), "spec.selector") if selected else None
    return _selection(profile, protected.sensor_unit, protected.sensor_cgroup, protected.sensor_executable)


@dataclass(frozen=True, slots=True)
class _Selected:
    """That a profile selects what is protected, and where it says so."""

    selection: Selection
    place: str


def _selection(profile: CompiledProfile, unit: str, cgroup: str, executable: str) -> _Selected | None:
    for number, each in enumerate(profile.services):
        outer = each.cgroup_path.rstrip("/")
        below = each.cgroup_path and (cgroup.rstrip("/") == outer or cgroup.startswith(outer + "/"))
        if below or (each.unit and each.unit == unit):
            return _Selected(Selection(profile), f"spec.services[{number}]")
    executables = [each.executable for each in profile.services]
    if not executable or executable not in executables:
        return None
    programs = frozenset(each for each in executables if each)
    return _Selected(Selection(profile, programs), f"spec.services[{executables.index(executable)}]")


def _check(
    profile: CompiledProfile, selected: _Selected, flow: Flow, program: Program | None, what: str
) -> None:
    policy = union_of([selected.selection], 0)
    if policy is None:
        return
    tries = {rules.content: RuleTries(rules) for rules in profile.rule_sets(policy.rule_sets())}
    verdict = decide(policy, flow, tries, program)
    if verdict.outcome == "refused":
        raise PolicyRefused(
            f"profile {profile.key}: {selected.place} selects it and would cut {what} "
            f"({REASONS[verdict.reason]})",
            "allow it, or do not select it",
        )


def _shown(flow: Flow) -> str:
    text = to_text(flow.remote_address)
    return f"{f'[{text}]' if ':' in text else text}:{flow.remote_port}"
