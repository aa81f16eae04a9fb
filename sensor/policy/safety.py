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
from sensor.policy.decide import decide
from sensor.policy.errors import PolicyRefused
from sensor.policy.layers import PROTOCOL_NAMES, TCP, Direction, Flow, RuleTries
from sensor.policy.policy import Selection, union_of
from sensor.policy.prefixes import cidr_prefix
from sensor.policy.profile import Program
from sensor.policy.reasons import REASONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
class Protected:
    """What may not be cut.

    Attributes:
        brokers: Addresses (16 bytes) and ports of Kafka.
        sensor_unit: Unit of this sensor; empty when it has none.
        sensor_cgroup: Its cgroup path.
        sensor_executable: Path of its executable, as the kernel sees it.
        break_glass: The list.
    """

    brokers: tuple[tuple[bytes, int], ...] = ()
    sensor_unit: str = ""
    sensor_cgroup: str = ""
    sensor_executable: str = ""
    break_glass: tuple[BreakGlassEntry, ...] = ()


def check_profile(profile: CompiledProfile, protected: Protected) -> None:
    """Refuse a profile of the host that would cut what is protected.

    Raises:
        PolicyRefused: Naming the flow and what decided.
    """
    if not profile.node_scope:
        return
    sensor = _selection(profile, protected.sensor_unit, protected.sensor_cgroup, protected.sensor_executable)
    if sensor:
        program = Program(protected.sensor_executable) if protected.sensor_executable else None
        for address, port in protected.brokers:
            flow = Flow("out", TCP, address, port)
            _check(profile, sensor, flow, program, f"the sensor's own connection to Kafka at {_shown(flow)}")
    for entry in protected.break_glass:
        unit, path = ("", entry.service) if entry.service.startswith("/") else (entry.service, "")
        selection = _selection(profile, unit, path or (f"/system.slice/{unit}" if unit else "/"), "")
        if selection:
            for flow in entry.flows():
                _check(profile, selection, flow, None, f"the break-glass entry {entry.text!r}")


def _selection(profile: CompiledProfile, unit: str, cgroup: str, executable: str) -> Selection | None:
    for each in profile.services:
        if each.unit and each.unit == unit:
            return Selection(profile)
        outer = each.cgroup_path.rstrip("/")
        if each.cgroup_path and (cgroup.rstrip("/") == outer or cgroup.startswith(outer + "/")):
            return Selection(profile)
    executables = frozenset(each.executable for each in profile.services if each.executable)
    return Selection(profile, executables) if executable in executables else None


def _check(
    profile: CompiledProfile, selection: Selection, flow: Flow, program: Program | None, what: str
) -> None:
    policy = union_of([selection], 0)
    if policy is None:
        return
    tries = {rules.content: RuleTries(rules) for rules in profile.rule_sets(policy.rule_sets())}
    verdict = decide(policy, flow, tries, program)
    if verdict.outcome == "refused":
        raise PolicyRefused(
            f"profile {profile.key} would cut {what} ({REASONS[verdict.reason]})",
            "allow it, or do not select that service",
        )


def _shown(flow: Flow) -> str:
    text = to_text(flow.remote_address)
    return f"{f'[{text}]' if ':' in text else text}:{flow.remote_port}"
