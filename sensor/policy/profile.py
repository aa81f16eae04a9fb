# SPDX-License-Identifier: Apache-2.0
"""One SecurityProfile, compiled to what the union of profiles needs; its rules only when they are asked for.

Input: a ``SecurityProfile`` record as the codec gives it. Output: a :class:`CompiledProfile`: modes and the
contents of rule sets. The rules themselves are compiled again when the kernel does not have them yet: a
hundred thousand names would be megabytes here, and are in the kernel already. Failure:
:class:`~sensor.policy.errors.PolicyRefused`.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sensor.policy import layout
from sensor.policy.errors import PolicyRefused
from sensor.policy.limits import MAX_PROGRAMS_OF_A_PROFILE, MAX_RULES_OF_A_PROFILE, check
from sensor.policy.rules import RuleSet, compile_rules

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

MODES: Final = {"IGNORE": layout.MODE_NONE, "ALERT": layout.MODE_ALERT, "ENFORCE": layout.MODE_ENFORCE}
# Fast; names of one company shrink to a fifth anyway.
_COMPRESSION: Final = 1


@dataclass(frozen=True, slots=True, order=True)
class Program:
    """What rules can be of: an executable, and the script it interprets (empty: whatever it runs)."""

    path: str
    script: str = ""

    def __str__(self) -> str:
        return f"{self.path} {self.script}" if self.script else self.path


@dataclass(frozen=True, slots=True)
class Grant:
    """The rules one profile has for one program.

    Attributes:
        content: Of its rule set.
        mode: ``NSP_MODE_*`` it asks for; dry runs are alerts already.
    """

    content: bytes
    mode: int


@dataclass(frozen=True, slots=True)
class Service:
    """What a profile of scope NODE selects on the host; one of them is not empty."""

    unit: str = ""
    cgroup_path: str = ""
    executable: str = ""


@dataclass(frozen=True, slots=True)
class CompiledProfile:
    """A profile without its rules.

    Attributes:
        key: ``<namespace>/<name>``.
        generation: Of the record.
        node_scope: It selects services of the host.
        services: Which.
        expires_at_ns: Wall time; 0: never.
        flags: ``NSP_POLICY_*`` it asks for.
        resolvers: DNS servers it names.
        default: For programs it does not name.
        programs: For those it names.
        entries: How many map entries its rules take.
        packed: Its rules, compressed.
    """

    key: str
    generation: int
    node_scope: bool
    services: tuple[Service, ...]
    expires_at_ns: int
    flags: int
    resolvers: tuple[str, ...]
    default: Grant
    programs: Mapping[Program, Grant]
    entries: int
    packed: bytes

    def expired(self, now_ns: int) -> bool:
        """Whether it has ended by itself, at this wall time."""
        return 0 < self.expires_at_ns <= now_ns

    def grant(self, program: Program | None) -> Grant:
        """What it has for a program: exactly, for the executable whatever it runs, or for the rest."""
        if program is None:
            return self.default
        found = self.programs.get(program) or self.programs.get(Program(program.path))
        return found or self.default

    def rule_sets(self, wanted: Collection[bytes]) -> Iterator[RuleSet]:
        """The wanted ones of its rule sets by content, compiled one after the other."""
        left = set(wanted) & {self.default.content, *(each.content for each in self.programs.values())}
        # Compiled one at a time, so that no more than one is in memory besides the record.
        contents = [self.default.content, *(each.content for each in self.programs.values())]
        if not left:
            return
        for content, network in zip(contents, json.loads(zlib.decompress(self.packed)), strict=True):
            if content in left:
                left.discard(content)
                yield compile_rules(network)

    def networks(self) -> Iterator[tuple[Program | None, Any]]:
        """Its rules as the record has them: of the default (None), then of each program. For explain."""
        programs: list[Program | None] = [None, *self.programs]
        yield from zip(programs, json.loads(zlib.decompress(self.packed)), strict=True)


def compile_profile(record: Mapping[str, Any]) -> CompiledProfile:
    """Compile a ``SecurityProfile``.

    Raises:
        PolicyRefused: Naming the profile and the part that cannot be enforced.
    """
    key = f"{record['namespace']}/{record['name']}"
    try:
        return _compiled(key, record)
    except PolicyRefused as refusal:
        raise PolicyRefused(f"profile {key}: {refusal.message}", refusal.cure) from refusal


def _compiled(key: str, record: Mapping[str, Any]) -> CompiledProfile:
    processes = record["processes"]
    check("programs", len(processes), MAX_PROGRAMS_OF_A_PROFILE, "split the profile by workload")
    default, total = _grant(record["default"], _mode(record, None), "default")
    programs: dict[Program, Grant] = {}
    for number, process in enumerate(processes):
        where = f"processes[{number}] {process['path'][:80]}"
        program = Program(process["path"], process["script"])
        _check_path(where, program)
        if program in programs:
            raise PolicyRefused(f"{where}: named twice", "put its rules into one entry")
        programs[program], count = _grant(process["network"], _mode(record, process["mode"]), where)
        total += count
        check("rules", total, MAX_RULES_OF_A_PROFILE, "use CIDRs and *.suffix names, or split the profile")
    rules = [record["default"], *(each["network"] for each in processes)]
    return CompiledProfile(
        key,
        record["generation"],
        record["scope"] == "NODE",
        tuple(Service(each["unit"], each["cgroup_path"], each["executable"]) for each in record["services"]),
        record["expires_at_ns"],
        layout.POLICY_ARP_SPOOFING * record["arp_spoofing"] | layout.POLICY_TRACE_DNS * record["trace_dns"],
        tuple(record["resolvers"]),
        default,
        programs,
        total,
        zlib.compress(json.dumps(rules, separators=(",", ":")).encode(), _COMPRESSION),
    )


def _grant(network: Mapping[str, Any] | None, mode: int, where: str) -> tuple[Grant, int]:
    try:
        rule_set = compile_rules(network)
    except PolicyRefused as refusal:
        raise PolicyRefused(f"{where}: {refusal.message}", refusal.cure) from refusal
    return Grant(rule_set.content, mode), sum(rule_set.count(kind) for kind in layout.KINDS)


def _mode(record: Mapping[str, Any], of_process: str | None) -> int:
    mode = MODES[of_process or record["mode"]]
    return min(mode, layout.MODE_ALERT) if record["dry_run"] else mode


def _check_path(where: str, program: Program) -> None:
    keys = {"path": layout.executable_key(program.path), "script": layout.script_key(program.script)}
    for what, key in keys.items():
        # A path that fills the whole field could not be told from one that is cut.
        if len(key) >= layout.PROGRAM_PATH_BYTES:
            raise PolicyRefused(
                f"{where}: a {what} of {len(key)} bytes; the kernel compares up to "
                f"{layout.PROGRAM_PATH_BYTES - 1}"
            )
    if not keys["path"]:
        raise PolicyRefused(f"{where}: the path names no file")
