# SPDX-License-Identifier: Apache-2.0
"""Resolve, then connect, a hundred thousand times: how often the kernel was wrong about it.

Under a profile of one wildcard name a client asks for a name and connects at once to the address that was
answered (TTL 0), then to one whose answer has expired or that was never answered. Addresses come again, each
time long expired, so that every connect depends on the answer just before it. The control is the same with
addresses that expire at once: every connect is denied.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import scene
from bench.errors import BenchError
from bench.policy import pinned_maps
from schemas.addresses import to_mapped
from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.policy_maps import PolicyMaps
from sensor.kernel.policy_state import WORKLOAD, GrantsValue, PolicyValue, ResolverKey, RulesetValue
from sensor.kernel.state import U32, U64
from sensor.policy import layout
from sensor.policy.rules import compile_rules

COUNT, CONTROL_COUNT = 100_000, 2_000
SERVER = "127.0.0.78"
# Addresses come again after 4,096 rounds, a few hundred milliseconds; half of that is long over.
FLOOR_NS = 100_000_000  # LIFE_NS of load/names.c
FLOOR_SETTING = 2  # NSP_SETTING_LEARNED_FLOOR_NS
READY_S = 30.0
SETTLE_S = 3.0  # then it gives the cgroups their slots
SLOT = POLICY = RULESET = 4_010
FIELDS = ("connected", "wrong_denials", "refused", "wrong_allows", "expired_meanwhile", "failed_otherwise")


def run() -> dict[str, Any]:
    """Measure and return how many of each."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nsp-bench-")))
        program = str(scene.compile_load("names", directory))
        inside = stack.enter_context(scene.Cgroup("names"))
        outside = stack.enter_context(scene.Cgroup("names-server"))
        server = outside.start([program, "serve", SERVER], 0)
        stack.callback(server.wait)
        stack.callback(server.kill)
        if server.stdout is None or server.stdout.readline() != b"ready\n":
            message = f"the server on {SERVER} did not start: is port 53 or 7777 taken?"
            raise BenchError(message)
        brokers = stack.enter_context(scene.embedded_broker())
        stack.enter_context(scene.sensor(brokers, inside.path))
        maps = stack.enter_context(pinned_maps())
        policy = PolicyMaps(maps, -1)
        _wait_for_times(maps)
        governed = _govern(policy, maps, inside.path.stat().st_ino)
        began = time.monotonic()
        figures: dict[str, Any] = _attempt(program, inside, COUNT)
        figures["rounds_per_s"] = round(COUNT / (time.monotonic() - began))
        policy.set_learned_times(1, 0)  # over before the connect
        figures["control_nothing_lasts"] = _attempt(program, inside, CONTROL_COUNT)
        if bpf.map_lookup(maps["workloads"], U64.pack(inside.path.stat().st_ino), WORKLOAD.size) != governed:
            message = "the sensor has given the cgroup another slot meanwhile: nothing was measured"
            raise BenchError(message)
    return {"rounds": COUNT, **figures}


def _attempt(program: str, inside: scene.Cgroup, count: int) -> dict[str, int]:
    said = inside.run([program, "run", SERVER, str(count)], 1).split()
    return dict(zip(FIELDS, map(int, said), strict=True))


def _wait_for_times(maps: dict[str, int]) -> None:
    """The sensor writes its floor and grace when it is ready for orders; ours have to come after."""
    deadline = time.monotonic() + READY_S
    while not any(bpf.map_lookup(maps["settings"], U32.pack(FLOOR_SETTING), U64.size) or b""):
        if time.monotonic() > deadline:
            message = "the sensor was not ready for profiles in time"
            raise BenchError(message)
        time.sleep(0.1)
    time.sleep(SETTLE_S)


def _govern(policy: PolicyMaps, maps: dict[str, int], cgroup_id: int) -> bytes:
    """A profile with names only; what is loopback here stands for other hosts."""
    egress = {"names": ["*.names.test"], "cidrs": [], "l3": None, "l4": None, "l7": None}
    rules = compile_rules({"raw_sockets": False, "egress": egress, "ingress": None})
    policy.load_trie("name", RULESET, rules.items("name"))
    policy.write_ruleset(RULESET, RulesetValue(rules.protocols, rules.content, rules.flags, rules.l7))
    grants = GrantsValue((RULESET,), layout.MODE_ENFORCE)
    policy.write_policy(POLICY, PolicyValue(grants, rules.content, 1, layout.POLICY_LOOPBACK))
    policy.set_resolver(ResolverKey(cgroup_id, to_mapped(SERVER)))
    policy.set_learned_times(FLOOR_NS, 0)
    governed = WORKLOAD.pack(cgroup_id, SLOT)
    bpf.map_update(maps["workloads"], U64.pack(cgroup_id), governed)
    policy.set_policy_slot(SLOT, 1 << 32 | POLICY)
    return governed
