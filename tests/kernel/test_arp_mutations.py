# SPDX-License-Identifier: Apache-2.0
"""Mutated ARP and neighbour discovery against the loaded programs: no fault, and no claim waved through.

Frames run through the programs by BPF_PROG_TEST_RUN, as if they came in on this namespace's loopback. The
rules are told once more here, in Python, for frames as they are read; the two must agree on each frame.
NSP_MUTATIONS raises the number (a million takes half a minute).
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from sensor.kernel.interface_maps import InterfaceMaps
from sensor.kernel.interface_state import (
    BINDING_CONFIRMED,
    BINDING_GATEWAY,
    BINDING_OWN,
    INTERFACE_ETHERNET,
    INTERFACE_WORKLOAD,
    BindingValue,
    InterfaceKey,
    InterfaceValue,
)
from sensor.kernel.pins import Pins
from sensor.kernel.policy_state import GrantsValue, PolicyValue, RulesetValue
from tests.support.test_run import ProgramRunner
from tests.support.wire_lab import ENFORCE, announcement, arp, mapped, nd, raw_mac

if TYPE_CHECKING:
    from sensor.kernel import Kernel
    from tests.support.kernel_lab import Cgroup

pytestmark = pytest.mark.kernel

MUTATIONS: Final = int(os.environ.get("NSP_MUTATIONS", "10000"))
WORKLOAD: Final = 0x4E5350
SLOT: Final = 900
OWN, GATEWAY, OTHER = "10.78.0.10", "10.78.0.1", "10.78.0.20"
OWN_MAC, GATEWAY_MAC, FORGED = "02:00:00:00:00:0a", "02:00:00:00:00:01", "02:00:00:00:00:66"
PASSED, DROPPED = 0xFFFFFFFF, 2
ARP: Final = b"\x08\x06"
IP: Final = (b"\x08\x00", b"\x86\xdd")
EVERY = ((1 << 64) - 1,) * 4


@pytest.fixture
def maps(shared_kernel: tuple[Kernel, Cgroup, Path]) -> InterfaceMaps:
    """This namespace's loopback, judged as an Ethernet interface of a workload under enforce."""
    kernel, _, directory = shared_kernel
    kernel.state.set_workload(WORKLOAD, WORKLOAD, SLOT)
    kernel.policy.write_ruleset(SLOT, RulesetValue((EVERY, EVERY), bytes(16), 0x1F | 0x1F << 8, (0, 0)))
    policy = PolicyValue(GrantsValue((SLOT,), ENFORCE), bytes(16), generation=1, flags=8)
    kernel.policy.write_policy(SLOT, policy)
    kernel.policy.set_policy_slot(SLOT, SLOT | 1 << 32)
    found = InterfaceMaps.open(Pins(directory))
    key = InterfaceKey(Path("/proc/self/ns/net").stat().st_ino, 1)
    flags = INTERFACE_ETHERNET | INTERFACE_WORKLOAD
    found.set_interface(key, InterfaceValue(WORKLOAD, key, flags, raw_mac(OWN_MAC)))
    gateway = BindingValue(BINDING_GATEWAY | BINDING_CONFIRMED, raw_mac(GATEWAY_MAC), 1)
    found.set_addresses({key: {mapped(OWN): BindingValue(BINDING_OWN), mapped(GATEWAY): gateway}})
    return found


@pytest.fixture
def ingress(shared_kernel: tuple[Kernel, Cgroup, Path], maps: InterfaceMaps) -> ProgramRunner:
    return ProgramRunner(Pins(shared_kernel[2]), "link_ingress")


@pytest.fixture
def egress(shared_kernel: tuple[Kernel, Cgroup, Path], maps: InterfaceMaps) -> ProgramRunner:
    return ProgramRunner(Pins(shared_kernel[2]), "link_egress")


SEEDS: Final = (
    announcement(GATEWAY, FORGED),
    announcement(OWN, FORGED),
    announcement(OTHER, FORGED),
    arp(2, (GATEWAY, GATEWAY_MAC), (OWN, OWN_MAC)),
    arp(2, (OTHER, FORGED), (OWN, OWN_MAC)),
    arp(1, (GATEWAY, GATEWAY_MAC), (OWN, OWN_MAC)),
)


def mutate(chance: random.Random, frame: bytes) -> bytes:
    """Bytes changed, cut off, put in, or a VLAN tag."""
    data = bytearray(frame)
    for _ in range(chance.choice((0, 1, 1, 2, 4, 16))):
        data[chance.randrange(len(data))] = chance.choice((0, 1, 2, 6, 8, 0xFF, chance.randrange(256)))
    kind = chance.randrange(10)
    if kind == 0:
        del data[max(14, chance.randrange(len(data))) :]
    elif kind == 1:
        data += chance.randbytes(chance.randrange(1, 64))
    elif kind == 2:
        data[12:12] = b"\x81\x00" + chance.randbytes(2)
    if bytes(data[12:14]) in IP:  # the test run takes no IP packet without its header
        data += bytes(max(0, 54 - len(data)))
    return bytes(data)


def must_be_dropped(frame: bytes) -> bool:
    """What no learning can excuse: a lie about the gateway or the own address, or a frame that is no ARP."""
    if frame[12:14] != ARP:
        return False
    if len(frame) < 42 or frame[14:20] != b"\x00\x01\x08\x00\x06\x04":
        return True
    sender, mac, source = frame[28:32], frame[22:28], frame[6:12]
    virtual = mac[:4] == b"\x00\x00\x5e\x00" and mac[4] in (1, 2)
    if sender == bytes(4):
        return False
    if sender == mapped(OWN)[12:]:
        return mac != raw_mac(OWN_MAC) and not virtual
    if mac != source and not virtual:
        return True
    return sender == mapped(GATEWAY)[12:] and mac != raw_mac(GATEWAY_MAC)


@pytest.mark.timeout(120 + MUTATIONS // 2000)
def test_mutated_frames_never_fault_and_lies_never_pass(ingress: ProgramRunner) -> None:
    chance = random.Random(0x4E5350)
    forms = (*SEEDS, nd(135, 1, bytes(15) + b"\x09", FORGED), nd(136, 2, bytes(15) + b"\x09", FORGED))
    verdicts = {PASSED: 0, DROPPED: 0}
    for _ in range(MUTATIONS):
        frame = mutate(chance, chance.choice(forms))
        verdict = ingress.run(frame)
        verdicts[verdict] += 1
        if must_be_dropped(frame):
            assert verdict == DROPPED, frame.hex()
    assert min(verdicts.values()) > MUTATIONS // 10


def test_what_is_true_or_no_claim_at_all_passes(ingress: ProgramRunner, egress: ProgramRunner) -> None:
    chance = random.Random(7)
    for runner in (ingress, egress):
        assert runner.run(arp(1, (GATEWAY, GATEWAY_MAC), (OWN, OWN_MAC))) == PASSED
        assert runner.run(arp(1, ("0.0.0.0", FORGED), (OTHER, OWN_MAC))) == PASSED
        for _ in range(300):
            kind = chance.choice((b"\x08\x00", b"\x86\xdd"))
            assert runner.run(raw_mac(OWN_MAC) + raw_mac(FORGED) + kind + b"\x45" + bytes(60)) == PASSED
