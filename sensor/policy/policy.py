# SPDX-License-Identifier: Apache-2.0
"""The profiles that select a workload -> the one policy it has: their union. Pure.

For each program a selecting profile contributes the rules it has for it, else its default. A flow passes when
one contribution passes it; what passes none meets the strictest mode of them. A profile that selects an
executable of the host, not the workload, contributes to that executable only.

Failure: :class:`~sensor.policy.errors.PolicyRefused`: more profiles than the kernel asks for one program.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sensor.policy import layout
from sensor.policy.errors import PolicyRefused
from sensor.policy.limits import MAX_PROFILES_OF_A_WORKLOAD
from sensor.policy.profile import CompiledProfile, Grant, Program
from sensor.policy.rules import CONTENT_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

_HASHED_AS: Final = b"nsp policy 1\0"
UNKNOWN_MODES: Final = {
    "allow": layout.MODE_NONE,
    "alert": layout.MODE_ALERT,
    "deny": layout.MODE_ENFORCE,
}


@dataclass(frozen=True, slots=True)
class Selection:
    """A profile that has to do with a workload.

    Attributes:
        profile: The profile.
        executables: None: it selects the workload; else only these executables of the host.
    """

    profile: CompiledProfile
    executables: frozenset[str] | None = None

    def programs(self) -> set[Program]:
        """The programs it has rules of their own for."""
        if self.executables is None:
            return set(self.profile.programs)
        own = {program for program in self.profile.programs if program.path in self.executables}
        return own | {Program(path) for path in self.executables}

    def grant(self, program: Program | None) -> Grant | None:
        """What it contributes to a program (None: to all without rules of their own), if anything."""
        if self.executables is None:
            return self.profile.grant(program)
        if program is None or program.path not in self.executables:
            return None
        return self.profile.grant(program)


@dataclass(frozen=True, slots=True)
class Grants:
    """``struct nsp_grants`` by content: the rule sets of which one must pass a flow, and the mode."""

    contents: tuple[bytes, ...]
    mode: int


@dataclass(frozen=True, slots=True)
class Policy:
    """What the kernel holds a workload to.

    Attributes:
        default: For programs without rules of their own.
        programs: For those that have, sorted.
        flags: ``NSP_POLICY_*``.
        generation: The newest of its profiles; reported with what it refuses.
        content: First bytes of the SHA-256 of all of it.
    """

    default: Grants
    programs: tuple[tuple[Program, Grants], ...] = ()
    flags: int = 0
    generation: int = 0
    content: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "content", _content(self))

    def rule_sets(self) -> set[bytes]:
        """The contents of every rule set it leads to."""
        return set(self.default.contents).union(*(grants.contents for _, grants in self.programs))

    def grants_of(self, program: Program | None) -> Grants:
        """As the kernel looks them up: with the script, without it, the default."""
        if program is None:
            return self.default
        found = dict(self.programs)
        return found.get(program) or found.get(Program(program.path)) or self.default


def union_of(selections: Sequence[Selection], now_ns: int) -> Policy | None:
    """The policy of a workload; None when no profile has to do with it.

    Args:
        selections: In any order.
        now_ns: Wall time: what has expired by then does not count.

    Raises:
        PolicyRefused: Too many profiles.
    """
    valid = [each for each in selections if not each.profile.expired(now_ns)]
    if not valid:
        return None
    programs = sorted(set[Program]().union(*(each.programs() for each in valid)))
    flags = layout.POLICY_PROGRAMS if programs else 0
    for each in valid:
        flags |= each.profile.flags
        # On the host the loopback is where its services are reached from inside.
        flags |= layout.POLICY_LOOPBACK * each.profile.node_scope
    return Policy(
        _grants(valid, None),
        tuple((program, _grants(valid, program)) for program in programs),
        flags,
        max(each.profile.generation for each in valid),
    )


def unknown_policy(mode: str) -> Policy | None:
    """The policy of workloads that no profile decision is known for: ``allow``, ``alert`` or ``deny``."""
    number = UNKNOWN_MODES[mode]
    return Policy(Grants((), number), flags=layout.POLICY_UNKNOWN_WORKLOAD) if number else None


def _grants(selections: Sequence[Selection], program: Program | None) -> Grants:
    grants = [grant for each in selections if (grant := each.grant(program))]
    contents = tuple(sorted({grant.content for grant in grants}))
    if len(contents) > MAX_PROFILES_OF_A_WORKLOAD:
        keys = ", ".join(sorted(each.profile.key for each in selections))
        raise PolicyRefused(
            f"{len(contents)} profiles with different rules select one workload ({keys}); "
            f"the kernel asks {MAX_PROFILES_OF_A_WORKLOAD}",
            "merge some of them",
        )
    return Grants(contents, max((grant.mode for grant in grants), default=layout.MODE_NONE))


def _content(policy: Policy) -> bytes:
    digest = hashlib.sha256(_HASHED_AS + struct.pack("<QI", policy.generation, policy.flags))
    for program, grants in ((None, policy.default), *policy.programs):
        path = f"{program.path}\0{program.script}".encode() if program else b""
        digest.update(struct.pack("<HBB", len(path), grants.mode, len(grants.contents)) + path)
        digest.update(b"".join(grants.contents))
    return digest.digest()[:CONTENT_BYTES]
