# SPDX-License-Identifier: Apache-2.0
"""ARP spoofing on real wires: what is dropped, what is reported, and what must not be cut."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from sensor.kernel.interface_state import BINDING_CONFIRMED, BINDING_GATEWAY
from sensor.publish.layout import CLAIM_FINDINGS
from tests.support.wire_lab import (
    ALERT,
    ARP_SPOOFING,
    ENFORCE,
    L3_ARP,
    NOBODY,
    RAW_SOCKETS,
    Wire,
    announcement,
    arp,
    mapped,
    nd,
    raw_mac,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sensor.kernel import Kernel
    from tests.support.kernel_lab import Cgroup

pytestmark = pytest.mark.kernel
both_ways = pytest.mark.parametrize("wire", [True, False], ids=["tcx", "clsact"], indirect=True)

GATEWAY = "10.78.0.1"
FORGED = "02:00:00:00:00:66"
MOVED = "02:00:00:00:00:77"
VIRTUAL = "00:00:5e:00:01:05"
ALLOWED, REFUSED, ALERTED = 0, 1, 2
REASON_L3_PROTOCOL, REASON_ARP_SPOOFING = 5, 14


@pytest.fixture
def wire(shared_kernel: tuple[Kernel, Cgroup, Path], request: pytest.FixtureRequest) -> Iterator[Wire]:
    """A gateway, a victim and an attacker; nobody governed yet. Marked clsact: as on kernels without TCX."""
    with Wire(*shared_kernel, tcx=getattr(request, "param", True)) as made:
        made.add("gateway", 1)
        made.add("victim", 10, GATEWAY)
        made.add("attacker", 0x66, GATEWAY)
        made.attach()
        yield made


def findings(wire: Wire, count: int = 1) -> list[tuple[str, int]]:
    return [(CLAIM_FINDINGS[event["finding"] - 1], event["verdict"]) for event in wire.events(count)]


@both_ways
def test_under_enforce_a_gateway_takeover_is_dropped_and_the_gateway_goes_on(wire: Wire) -> None:
    victim, attacker, gateway = wire.hosts["victim"], wire.hosts["attacker"], wire.hosts["gateway"]
    wire.govern(victim, ENFORCE)
    assert victim.reaches(GATEWAY)
    for _ in range(3):
        attacker.send(announcement(GATEWAY, FORGED), arp(2, (GATEWAY, FORGED), (victim.address, victim.mac)))
        assert findings(wire, 2) == [("GATEWAY", REFUSED)] * 2
        assert victim.neighbour(GATEWAY) == gateway.mac
        assert victim.reaches(GATEWAY)


def test_without_a_profile_the_same_takeover_succeeds(wire: Wire) -> None:
    victim, attacker = wire.hosts["victim"], wire.hosts["attacker"]
    assert victim.reaches(GATEWAY)
    attacker.send(arp(2, (GATEWAY, FORGED), (victim.address, victim.mac)))
    assert victim.believes(GATEWAY, FORGED)
    assert not wire.events(0)


@both_ways
def test_under_alert_it_is_told_with_both_macs_and_passes(wire: Wire) -> None:
    victim, attacker, gateway = wire.hosts["victim"], wire.hosts["attacker"], wire.hosts["gateway"]
    wire.govern(victim, ALERT)
    assert victim.reaches(GATEWAY)
    attacker.send(arp(2, (GATEWAY, FORGED), (victim.address, victim.mac)))
    assert victim.believes(GATEWAY, FORGED)
    [event] = wire.events(1)
    key = wire.interface_of(victim)
    assert (event["netns"], event["ifindex"]) == (key.netns, key.ifindex)
    assert event["cgroup_id"] == event["workload_cgroup_id"] == victim.cgroup.id
    assert (event["sender_mac"], event["known_mac"]) == (raw_mac(FORGED), raw_mac(gateway.mac))
    assert (event["sender_address"], event["target_address"]) == (mapped(GATEWAY), mapped(victim.address))
    assert (event["verdict"], event["reason"], event["operation"]) == (ALERTED, REASON_ARP_SPOOFING, 2)
    assert (event["policy_slot"], event["generation"], event["direction"]) == (victim.slot, 7, 1)


@pytest.mark.parametrize("operation", [1, 2])
def test_a_neighbours_binding_is_not_contradicted(wire: Wire, operation: int) -> None:
    victim, attacker = wire.hosts["victim"], wire.hosts["attacker"]
    other = wire.add("other", 20)
    wire.govern(victim, ENFORCE)
    assert victim.reaches(other.address)
    attacker.send(arp(operation, (other.address, FORGED), (victim.address, NOBODY)))
    assert findings(wire) == [("CONTRADICTION", REFUSED)]
    assert victim.neighbour(other.address) == other.mac


def test_a_claim_of_the_interfaces_own_address_is_refused(wire: Wire) -> None:
    victim, attacker = wire.hosts["victim"], wire.hosts["attacker"]
    wire.govern(victim, ENFORCE)
    attacker.send(announcement(victim.address, FORGED))
    [event] = wire.events(1)
    assert CLAIM_FINDINGS[event["finding"] - 1] == "OWN_ADDRESS"
    assert event["known_mac"] == raw_mac(victim.mac)


def test_a_frame_from_another_mac_than_it_names_is_refused(wire: Wire) -> None:
    victim, attacker = wire.hosts["victim"], wire.hosts["attacker"]
    wire.govern(victim, ENFORCE)
    attacker.send(arp(1, ("10.78.0.40", FORGED), (victim.address, NOBODY), source=attacker.mac[:-2] + "67"))
    assert findings(wire) == [("SENDER_MISMATCH", REFUSED)]


def test_an_answer_nobody_asked_for_is_refused_and_an_announcement_is_not(wire: Wire) -> None:
    victim, attacker = wire.hosts["victim"], wire.hosts["attacker"]
    wire.govern(victim, ENFORCE)
    attacker.send(arp(2, ("10.78.0.40", FORGED), (victim.address, victim.mac)))
    assert findings(wire) == [("UNSOLICITED", REFUSED)]
    attacker.send(announcement("10.78.0.41", FORGED))
    assert wire.is_quiet(attacker, victim)


def test_a_silent_neighbours_successor_is_believed_after_the_binding_has_aged(wire: Wire) -> None:
    victim, attacker = wire.hosts["victim"], wire.hosts["attacker"]
    other = wire.add("other", 20)
    wire.govern(victim, ENFORCE)
    wire.maps.set_binding_age_ns(50_000_000)
    assert victim.reaches(other.address)
    other.ip("link", "set", "eth0", "down")
    time.sleep(0.1)
    attacker.send(announcement(other.address, MOVED))
    assert victim.believes(other.address, MOVED)
    assert wire.is_quiet(attacker, victim)


def test_a_gateways_binding_does_not_age(wire: Wire) -> None:
    victim, attacker, gateway = wire.hosts["victim"], wire.hosts["attacker"], wire.hosts["gateway"]
    wire.govern(victim, ENFORCE)
    wire.maps.set_binding_age_ns(1)
    assert victim.reaches(GATEWAY)
    attacker.send(announcement(GATEWAY, FORGED))
    assert findings(wire) == [("GATEWAY", REFUSED)]
    assert victim.neighbour(GATEWAY) == gateway.mac


def test_a_gateway_with_another_mac_is_believed_once_the_kernel_asked_in_vain(wire: Wire) -> None:
    victim, gateway = wire.hosts["victim"], wire.hosts["gateway"]
    wire.govern(victim, ENFORCE)
    assert victim.reaches(GATEWAY)
    gateway.ip("link", "set", "eth0", "down")
    victim.ip("neigh", "flush", "dev", "eth0")
    assert not victim.reaches(GATEWAY)
    gateway.ip("link", "set", "eth0", "address", MOVED)
    gateway.ip("link", "set", "eth0", "up")
    deadline = time.monotonic() + 10
    while not victim.reaches(GATEWAY):
        assert time.monotonic() < deadline, "the gateway that came back stays cut off"
    assert victim.believes(GATEWAY, MOVED)


def test_a_virtual_routers_mac_may_come_from_a_physical_one_and_take_the_own_address(wire: Wire) -> None:
    victim, attacker = wire.hosts["victim"], wire.hosts["attacker"]
    wire.govern(victim, ENFORCE)
    attacker.send(announcement("10.78.0.50", VIRTUAL, source=attacker.mac))
    attacker.send(announcement("10.78.0.50", VIRTUAL, source=FORGED))
    attacker.send(announcement(victim.address, VIRTUAL))
    assert wire.is_quiet(attacker, victim)


@both_ways
def test_a_governed_workload_cannot_send_what_is_not_its_own(wire: Wire) -> None:
    victim, attacker, gateway = wire.hosts["victim"], wire.hosts["attacker"], wire.hosts["gateway"]
    wire.govern(attacker, ENFORCE)
    assert victim.reaches(GATEWAY)
    attacker.send(arp(2, (GATEWAY, FORGED), (victim.address, victim.mac)))
    attacker.send(announcement("10.78.0.200", attacker.mac))
    # Under another protocol than the frame has, and around the queueing discipline.
    attacker.send(announcement(GATEWAY, FORGED), kind=0x0800)
    attacker.send(announcement(GATEWAY, FORGED), bypass=True)
    told = wire.events(4)
    assert victim.neighbour(GATEWAY) == gateway.mac
    assert [CLAIM_FINDINGS[event["finding"] - 1] for event in told] == [
        "GATEWAY",
        "FOREIGN_ADDRESS",
        "GATEWAY",
        "GATEWAY",
    ]
    assert all(event["direction"] == 0 and event["tgid"] for event in told)
    attacker.send(announcement(attacker.address, attacker.mac))
    assert attacker.reaches(victim.address)
    assert not wire.events(0)


@pytest.mark.parametrize(("mode", "reaches"), [(ALERT, True), (ENFORCE, False)])
def test_arp_is_subject_to_l3(wire: Wire, mode: int, reaches: bool) -> None:
    victim = wire.hosts["victim"]
    wire.govern(victim, mode, flags=0, ruleset=-(L3_ARP | L3_ARP << 8))
    assert victim.reaches(GATEWAY) is reaches
    told = wire.events(1)
    assert {CLAIM_FINDINGS[event["finding"] - 1] for event in told} == {"PROTOCOL"}
    assert {event["reason"] for event in told} == {REASON_L3_PROTOCOL}


def test_without_arp_spoofing_in_the_profile_nothing_is_said(wire: Wire) -> None:
    victim, attacker = wire.hosts["victim"], wire.hosts["attacker"]
    wire.govern(victim, ENFORCE, flags=0)
    assert victim.reaches(GATEWAY)
    attacker.send(announcement(GATEWAY, FORGED))
    assert victim.believes(GATEWAY, FORGED)
    assert not wire.events(0)


def test_a_flood_of_addresses_pushes_out_nobody_and_is_counted(wire: Wire) -> None:
    victim, attacker, gateway = wire.hosts["victim"], wire.hosts["attacker"], wire.hosts["gateway"]
    wire.govern(victim, ENFORCE)
    assert victim.reaches(GATEWAY)
    before = wire.kernel.counters()["arp_table_full"]
    attacker.send(*(announcement(f"10.78.{n // 250 + 1}.{n % 250}", FORGED) for n in range(1500)))
    attacker.send(announcement(GATEWAY, FORGED))
    assert ("GATEWAY", REFUSED) in findings(wire)
    assert wire.kernel.counters()["arp_table_full"] - before >= 1000
    assert victim.neighbour(GATEWAY) == gateway.mac


def test_gateways_and_what_the_kernel_knew_of_them_are_in_the_maps(wire: Wire) -> None:
    victim, gateway = wire.hosts["victim"], wire.hosts["gateway"]
    victim.ip("neigh", "replace", GATEWAY, "lladdr", gateway.mac, "dev", "eth0", "nud", "permanent")
    key = wire.interface_of(victim)
    # What is known already is kept as it is; a new namespace is learned from its kernel.
    wire.maps.set_addresses({})
    wire.attach()
    known = {entry.address: value for entry, value in wire.maps.addresses(key)}
    assert known[mapped(GATEWAY)].flags == BINDING_GATEWAY | BINDING_CONFIRMED
    assert known[mapped(GATEWAY)].mac == raw_mac(gateway.mac)
    assert mapped(victim.address) in known


def test_a_profile_may_allow_raw_sockets_and_still_refuse_to_spoof(wire: Wire) -> None:
    attacker, victim = wire.hosts["attacker"], wire.hosts["victim"]
    wire.govern(attacker, ENFORCE, flags=ARP_SPOOFING, ruleset=RAW_SOCKETS)
    assert attacker.send(arp(1, (attacker.address, attacker.mac), (victim.address, NOBODY))) == 0
    assert attacker.send(announcement(victim.address, attacker.mac)) == 1


@pytest.mark.parametrize(("kind", "option"), [(135, 1), (136, 2)], ids=["solicitation", "advertisement"])
def test_neighbour_discovery_is_held_to_the_same_rules(wire: Wire, kind: int, option: int) -> None:
    victim, attacker = wire.hosts["victim"], wire.hosts["attacker"]
    wire.govern(victim, ENFORCE)
    address = bytes.fromhex("fe80000000000000000000000000cafe")
    attacker.send(nd(136, 2, address, MOVED), kind=0x86DD)
    attacker.send(nd(kind, option, address, FORGED), kind=0x86DD)
    [event] = wire.events(1)
    assert (CLAIM_FINDINGS[event["finding"] - 1], event["verdict"]) == ("CONTRADICTION", REFUSED)
    assert (event["protocol"], event["operation"], event["sender_address"]) == (1, kind, address)
    assert (event["sender_mac"], event["known_mac"]) == (raw_mac(FORGED), raw_mac(MOVED))
