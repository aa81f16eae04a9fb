# SPDX-License-Identifier: Apache-2.0
"""Addresses as networks: nothing is left out, nothing is wider than allowed."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_apps.learn.behaviour import Key
from stream_apps.learn.folding import Net, fold, host, network
from stream_apps.learn.identity import Identity
from stream_apps.learn.peers import PeerLimits
from stream_apps.learn.shard import MAX_BEHAVIOURS, Shard, ShardLimits

ADDRESSES = st.one_of(
    st.integers(0, 2**12).map(lambda each: str(ipaddress.IPv4Address(0x0A000000 + each * 37))),
    st.ip_addresses().map(str),
)
UNITS = ("10.0.0.1", 5, (1, 2))


def nets(texts: list[str]) -> set[Net]:
    return {found for each in texts if (found := network(each) or host(each))}


@given(st.lists(ADDRESSES, max_size=60), st.integers(1, 20), st.integers(8, 32), st.integers(32, 128))
def test_every_address_is_in_a_network_and_none_is_wider_than_allowed(
    addresses: list[str], most: int, widest4: int, widest6: int
) -> None:
    folded = fold(nets(addresses), most, (widest4, widest6))
    for each in nets(addresses):
        assert any(wide.holds(each) for wide in folded)
    assert all(each.prefix >= (widest4 if each.bits == 32 else widest6) for each in folded)


@given(st.lists(ADDRESSES, max_size=60))
def test_what_may_be_folded_to_everything_always_fits(addresses: list[str]) -> None:
    assert len(fold(nets(addresses), 2, (0, 0))) <= 2


@given(ADDRESSES, st.integers(0, 128))
def test_networks_are_what_the_library_says(address: str, prefix: int) -> None:
    bits = ipaddress.ip_address(address).max_prefixlen
    expected = ipaddress.ip_network(f"{address}/{min(prefix, bits)}", strict=False)
    found = network(f"{address}/{min(prefix, bits)}")
    assert ipaddress.ip_network(str(found)) == expected


@pytest.mark.parametrize(
    "text", ["", "x", "10.0.0.1", "10.0.0.1/33", "10.0.0.1/x", "::1/129", "www.example/24"]
)
def test_what_is_no_network_is_none(text: str) -> None:
    assert network(text) is None


def test_nothing_forbidden_is_folded_in() -> None:
    given_nets = nets([f"10.0.0.{each}" for each in range(0, 40, 2)])
    forbidden = nets(["10.0.0.13"])
    folded = fold(given_nets, 4, (24, 64), forbidden)
    assert not any(wide.holds(each) for wide in folded for each in forbidden)
    assert all(any(wide.holds(each) for wide in folded) for each in given_nets)


def shard(**limits: object) -> Shard:
    identity = Identity("shop/Deployment/shop", "POD", "u", "shop-0")
    return Shard(identity, "n", ShardLimits(4, 8, PeerLimits(**{"addresses": 8, **limits})))  # type: ignore[arg-type]


def egress(peer: str, port: int = 443, protocol: int = 6) -> Key:
    return Key("EGRESS", "/usr/bin/web", "", protocol, port, port, peer)


def see(of: Shard, key: Key, hour: int = 1) -> bool:
    found = of.behaviour(key)
    if found is None:
        return False
    found.see("u", hour, 1, (hour, hour))
    return True


def test_addresses_beyond_the_bound_become_networks_with_their_evidence() -> None:
    of = shard()
    for number in range(50):
        assert see(of, egress(f"10.0.0.{number}/32"), hour=number)
    assert len(of.behaviours) <= 8
    assert sum(each.count for each in of.behaviours.values()) == 50
    assert max(each.units for each in of.behaviours.values()) > 1
    assert of.beyond == {}


def test_what_would_need_wider_networks_is_not_learned_and_counted() -> None:
    of = shard()
    learned = sum(see(of, egress(f"10.{number}.0.1/32")) for number in range(50))
    assert learned == 9
    assert of.beyond["destinations"] == 41
    assert {network(key.peer).prefix for key in of.behaviours if network(key.peer)} == {32}  # type: ignore[union-attr]


def test_ephemeral_ports_beyond_the_bound_become_their_range() -> None:
    of = shard(ephemeral_ports=4)
    for port in range(40_000, 40_200):
        assert see(of, egress("10.0.0.1/32", port, 17))
    assert see(of, egress("client.example", 50_000, 17))
    assert {(key.port, key.last_port, key.peer) for key in of.behaviours} == {
        (32_768, 65_535, "10.0.0.1/32"),
        (32_768, 65_535, "client.example"),
    }
    assert sum(each.count for each in of.behaviours.values()) == 201


def test_programs_and_names_are_bounded_and_counted() -> None:
    of = shard()
    assert sum(see(of, Key("PROGRAM", f"/bin/p{number}")) for number in range(9)) == 4
    assert sum(see(of, Key("QUESTION", "/bin/p0", peer=f"n{number}.example")) for number in range(20)) == 8
    assert (of.beyond["programs"], of.beyond["question"]) == (5, 12)


def test_evidence_of_what_is_never_learned_does_not_make_a_profile_incomplete() -> None:
    of = shard()
    for number in range(50):
        see(of, egress(f"10.{number}.0.1/32")._replace(standing="KNOWN_BAD"))
    assert set(of.beyond) == {"evidence"}


def test_a_workload_is_bounded_as_a_whole() -> None:
    identity = Identity("shop/Deployment/shop", "POD", "u", "shop-0")
    of = Shard(identity, "n", ShardLimits(512, 4096, PeerLimits()))
    for number in range(MAX_BEHAVIOURS + 100):
        see(of, Key("QUESTION", f"/bin/p{number % 100}", peer=f"n{number}.example"))
    assert len(of.behaviours) == MAX_BEHAVIOURS
    assert of.beyond["behaviours"] == 100
