# SPDX-License-Identifier: Apache-2.0
"""What a profile in force adds to a workload: off against on, and many rules against few.

Method: rounds; in each an "off" block (nothing loaded) and an "on" block (sensor live, every event
published, one profile of 1,000 names and 1,000 CIDRs in force), order swapped every round, client and server
on CPU 0, sensor and broker on the other. In the "on" block the profile is then replaced by one of 100,000
CIDRs and the connects are measured again. The rules are put into the sensor's pinned maps as the sensor does.

The published figures of the 2020 probe's paper (theirs, on their machine): allow +0..120 us, alert
+300..500 us, and Cilium's FQDN policy +600..1,000 us.
"""

from __future__ import annotations

import array
import ipaddress
import os
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import scene
from bench.errors import BenchError
from bench.latency import CLIENT_CPU, SENSOR_CPU, SERVER, SETTLE_S, Samples, serve
from bench.statistics import median, spread
from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.pins import Pins
from sensor.kernel.policy_maps import PolicyMaps
from sensor.kernel.policy_state import WORKLOAD, GrantsValue, PolicyValue, ResolverKey, RulesetValue
from sensor.kernel.state import U64
from sensor.policy import layout
from sensor.policy.rules import compile_rules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sensor.policy.rules import RuleSet

ROUNDS = 10
WARM_UP = 300
SAMPLES = {"dns": 5000, "connect": 4000, "bulk": 4000}
RULES, MANY_RULES = 1_000, 100_000
POLICY, RULESET = 4_000, 4_000
ELSEWHERE = "127.0.0.78"  # no rule passes it
NAME = "bench.example.test"


def run() -> dict[str, Any]:
    """Measure and return the figures, by name."""
    samples = {name: Samples() for name in SAMPLES}
    many = Samples()
    few_rules, many_rules = _rules(RULES), _rules(MANY_RULES)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nsp-bench-")))
        program = str(scene.compile_load("latency", directory))
        inside = stack.enter_context(scene.Cgroup("policy"))
        outside = stack.enter_context(scene.Cgroup("policy-server"))
        serve(stack, outside, program)
        brokers = stack.enter_context(scene.embedded_broker())
        for number in range(ROUNDS):
            for live in (False, True) if number % 2 else (True, False):
                with ExitStack() as block:
                    if live:
                        block.enter_context(scene.sensor(brokers, inside.path, cpu=SENSOR_CPU))
                        maps = block.enter_context(pinned_maps())
                        _govern(maps, inside.path.stat().st_ino, few_rules, 1)
                    time.sleep(SETTLE_S)
                    if live:
                        _refused(maps, inside.path.stat().st_ino, program, inside)
                    for name in SAMPLES:
                        taken = _sample(program, inside, name)
                        (samples[name].on if live else samples[name].off).append(taken)
                    if live:
                        _govern(maps, inside.path.stat().st_ino, many_rules, 2)
                        _refused(maps, inside.path.stat().st_ino, program, inside)
                        many.off.append(samples["connect"].on[-1])
                        many.on.append(_sample(program, inside, "connect"))
    bulk = [median(off) / median(on) for off, on in zip(samples["bulk"].off, samples["bulk"].on, strict=True)]
    return {
        "dns": samples["dns"].figures(),
        "connect": samples["connect"].figures(),
        "bulk_throughput_ratio": round(median(bulk), 3),
        "bulk_throughput_ratio_rounds": spread(bulk),
        "connect_many_over_few": many.figures()["ratio"],
        "rules": {"names": RULES, "cidrs": RULES, "many": MANY_RULES},
        "rounds": ROUNDS,
    }


def _sample(program: str, inside: scene.Cgroup, name: str) -> array.array[int]:
    inside.run([program, name, SERVER, str(WARM_UP)], CLIENT_CPU)
    return array.array("I", inside.run([program, name, SERVER, str(SAMPLES[name])], CLIENT_CPU))


def _rules(count: int) -> RuleSet:
    """As many names, the one that is asked among them, and CIDRs; the server's address in the last."""
    first = int(ipaddress.IPv4Address("10.0.0.0"))
    cidrs = [f"{ipaddress.IPv4Address(first + 16 * number)}/28" for number in range(count - 1)]
    names = [f"host-{number}.zone-{number % 97}.example.net" for number in range(min(count, RULES) - 1)]
    ports = [{"protocol": protocol, "first": 1, "last": 65535} for protocol in (6, 17)]
    egress = {
        "names": [*names, NAME],
        "cidrs": [*cidrs, f"{SERVER}/32"],
        "l3": ["IPV4"],
        "l4": {"protocols": [], "ports": ports, "icmp": []},
        "l7": None,
    }
    return compile_rules({"raw_sockets": False, "egress": egress, "ingress": None})


@contextmanager
def pinned_maps() -> Iterator[dict[str, int]]:
    """The maps of the sensor that scene.sensor() runs, by name."""
    pins = Pins(Path(f"/sys/fs/bpf/nsp-bench-{os.getpid()}"))
    maps = {name: fd for name in pins.names("maps") if (fd := pins.get("maps", name)) is not None}
    try:
        yield maps
    finally:
        for fd in maps.values():
            os.close(fd)


def _govern(maps: dict[str, int], cgroup_id: int, rules: RuleSet, version: int) -> None:
    """Put the rules in force in the slot the sensor gave a cgroup; loopback stands for another host."""
    policy = PolicyMaps(maps, -1)
    index = RULESET + version
    for kind in layout.KINDS:
        if rules.count(kind):
            policy.load_trie(kind, index, rules.items(kind))
    policy.write_ruleset(index, RulesetValue(rules.protocols, rules.content, rules.flags, rules.l7))
    grants = GrantsValue((index,), layout.MODE_ENFORCE)
    policy.write_policy(POLICY - version, PolicyValue(grants, rules.content, version, layout.POLICY_LOOPBACK))
    policy.set_resolver(
        ResolverKey(cgroup_id, bytes(10) + b"\xff\xff" + ipaddress.IPv4Address(SERVER).packed)
    )
    policy.set_policy_slot(_slot_of(maps, cgroup_id), version << 32 | POLICY - version)


def _slot_of(maps: dict[str, int], cgroup_id: int) -> int:
    """The slot the sensor gives a workload, a moment after it has started."""
    deadline = time.monotonic() + scene.START_TIMEOUT_S
    while time.monotonic() < deadline:
        value = bpf.map_lookup(maps["workloads"], U64.pack(cgroup_id), WORKLOAD.size)
        slot = int(WORKLOAD.unpack(value)[1]) if value else 0
        if slot > layout.SLOT_UNKNOWN:
            return slot
        time.sleep(0.05)
    message = "the sensor gave the load's cgroup no slot"
    raise BenchError(message)


def _refused(maps: dict[str, int], cgroup_id: int, program: str, inside: scene.Cgroup) -> None:
    """Make sure that the rules are in force: the sensor's own view of them is another."""
    if not inside.is_refused([program, "connect", ELSEWHERE, "1"]):
        message = f"the policy in slot {_slot_of(maps, cgroup_id)} is not in force"
        raise BenchError(message)
