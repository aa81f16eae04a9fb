# SPDX-License-Identifier: Apache-2.0
"""Profiles put straight into the kernel maps: what kernel tests of decisions start from.

No order, no sharing, no clean-up: each call takes fresh indices. What the sensor does instead is in
sensor/policy; tests of that use it.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from sensor.kernel.policy_state import GrantsValue, PolicyValue, ProgramKey, RulesetValue
from sensor.policy import layout
from sensor.policy.rules import compile_rules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sensor.kernel import Kernel

    Network = Mapping[str, Any]

ANY_ADDRESS: Final = ("0.0.0.0/0", "::/0")
TCP: Final = 6
UDP: Final = 17


def traffic(
    *cidrs: str,
    names: Sequence[str] = (),
    ports: Sequence[tuple[int, int, int]] | None = None,
    protocols: Sequence[int] = (),
    **layers: Any,
) -> dict[str, Any]:
    """TrafficRules of the schema; ports are (protocol, first, last); neither ports nor protocols: any."""
    l4 = None
    if ports is not None or protocols:
        ranges = [{"protocol": each[0], "first": each[1], "last": each[2]} for each in ports or ()]
        l4 = {"protocols": list(protocols), "ports": ranges, "icmp": layers.pop("icmp", [])}
    rules = {"names": list(names), "cidrs": list(cidrs), "l3": None, "l4": l4, "l7": None}
    return {**rules, **layers}


def network(
    egress: Mapping[str, Any] | None = None,
    ingress: Mapping[str, Any] | None = None,
    *,
    raw_sockets: bool = False,
) -> dict[str, Any]:
    """NetworkRules of the schema."""
    return {"raw_sockets": raw_sockets, "egress": egress, "ingress": ingress}


class ProfileLab:
    """Policies of one kernel part."""

    def __init__(self, kernel: Kernel) -> None:
        self.maps = kernel.policy
        self._kernel = kernel
        self._rulesets = itertools.count(1)
        self._policies = itertools.count(1)
        self._programs = itertools.count(1)
        self._slots = itertools.count(2)
        self._switches = itertools.count(1)

    def ruleset(self, rules: Network, previous: int = 0) -> int:
        """Compile and load one rule set; returns its index."""
        index = next(self._rulesets)
        compiled = compile_rules(rules)
        # The lab before this one had the index too: a kind of rules this one has none of would be its own.
        self.maps.drop_rulesets([index])
        for kind in layout.KINDS:
            if compiled.count(kind):
                self.maps.load_trie(kind, index, compiled.items(kind))
        value = RulesetValue(compiled.protocols, compiled.content, compiled.flags, compiled.l7, previous)
        self.maps.write_ruleset(index, value)
        return index

    def program(self, path: str) -> int:
        """Give an executable's path an id, and running processes that id."""
        program = next(self._programs)
        self.maps.set_program_id(layout.executable_key(path), program)
        self.maps.identify_programs()
        return program

    def script(self, path: str) -> int:
        """Give a script's path an id."""
        program = next(self._programs)
        self.maps.set_program_id(layout.script_key(path), program)
        return program

    def policy(
        self,
        rulesets: Sequence[int],
        *,
        mode: int = layout.MODE_ENFORCE,
        flags: int = layout.POLICY_LOOPBACK,
        programs: Mapping[tuple[int, int], Sequence[int]] | None = None,
        generation: int = 1,
    ) -> int:
        """Write a policy: rule sets of the rest, and of programs by (program, script)."""
        index = next(self._policies)
        for (program, script), theirs in (programs or {}).items():
            flags |= layout.POLICY_PROGRAMS
            self.maps.set_program_rule(ProgramKey(index, program, script), GrantsValue(tuple(theirs), mode))
        content = index.to_bytes(16, "little")
        self.maps.write_policy(
            index, PolicyValue(GrantsValue(tuple(rulesets), mode), content, generation, flags)
        )
        return index

    def slot_for(self, cgroup_id: int) -> int:
        """Make a cgroup a workload with a slot of its own."""
        slot = next(self._slots)
        self._kernel.state.set_workload(cgroup_id, cgroup_id, slot)
        return slot

    def switch(self, slot: int, policy: int) -> None:
        """Put a policy in force."""
        self.maps.set_policy_slot(slot, next(self._switches) << 32 | policy)

    def govern(self, slot: int, rules: Network, **policy: Any) -> int:
        """Put one rule set in force for everything in a slot; returns its index."""
        index = self.ruleset(rules)
        self.switch(slot, self.policy([index], **policy))
        return index
