# SPDX-License-Identifier: Apache-2.0
"""Rules as the kernel gets them: canonical, exact, and refused where the kernel could not tell them apart."""

from __future__ import annotations

import ipaddress
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.addresses import to_mapped
from sensor.policy import layout, names
from sensor.policy.errors import PolicyRefused
from sensor.policy.prefixes import address_prefixes, merged, port_prefixes
from sensor.policy.rules import compile_rules
from sensor.policy.trie import Trie
from tests.support.profiles import (
    ADDRESSES,
    NAME_RULES,
    NAMES,
    application,
    cidrs,
    network,
    networks,
    rules,
)


def shuffled(value: Any, turn: int) -> Any:
    """The same rules in another order, the first of each list twice."""
    if isinstance(value, dict):
        return {key: shuffled(each, turn) for key, each in value.items()}
    if isinstance(value, list):
        turned = [shuffled(each, turn) for each in value]
        return (turned[turn:] + turned[:turn])[::-1] + turned[:1]
    return value


@given(networks(), st.integers(0, 3))
def test_order_and_repetition_of_rules_change_nothing(given_rules: dict[str, Any], turn: int) -> None:
    assert compile_rules(given_rules) == compile_rules(shuffled(given_rules, turn))


@given(networks(), networks())
def test_two_rule_sets_have_one_content_only_if_they_are_the_same_to_the_kernel(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    first, second = compile_rules(one), compile_rules(other)
    assert (first == second) == (first.content == second.content)


@given(networks())
def test_trie_items_are_whole_keys_without_bits_beyond_their_length(given_rules: dict[str, Any]) -> None:
    sizes: dict[layout.TrieKind, int] = {"address": 24, "port": 8, "name": 256, "http": 256}
    compiled = compile_rules(given_rules)
    for kind in layout.KINDS:
        items = list(compiled.items(kind))
        assert len({key for key, _ in items}) == len(items) == compiled.count(kind)
        for key, _ in items:
            bits = int.from_bytes(key[:4], "little")
            assert len(key) == sizes[kind]
            assert int.from_bytes(key[4:]) & ((1 << (8 * len(key[4:]) - bits)) - 1) == 0


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_the_prefixes_of_a_port_range_are_the_range(one: int, other: int) -> None:
    first, last = min(one, other), max(one, other)
    covered = [
        port
        for start, bits in port_prefixes(first, last)
        for port in range(start, start + (1 << (16 - bits)))
    ]
    assert covered == list(range(first, last + 1))
    assert len(list(port_prefixes(first, last))) <= 30


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5)).map(lambda each: (each[0], sum(each)))))
def test_merged_ranges_cover_the_same_and_do_not_touch(ranges: list[tuple[int, int]]) -> None:
    done = merged(ranges)
    assert {port for first, last in done for port in range(first, last + 1)} == {
        port for first, last in ranges for port in range(first, last + 1)
    }
    assert all(before[1] + 1 < after[0] for before, after in itertools.pairwise(done))


@given(st.lists(cidrs(), max_size=6), ADDRESSES)
def test_addresses_match_as_the_cidrs_say(given_cidrs: list[str], address: str) -> None:
    any_ipv4, any_ipv6, prefixes = address_prefixes(given_cidrs)
    trie = Trie((layout.address_key(0, first.to_bytes(16), bits), 1) for first, bits in prefixes)
    expected = any(
        ipaddress.ip_address(address) in ipaddress.ip_network(text, strict=False) for text in given_cidrs
    )
    is_any = any_ipv6 if ":" in address else any_ipv4
    assert (is_any or trie.get(layout.address_key(0, to_mapped(address))) is not None) == expected


def test_an_ipv6_block_around_the_mapped_addresses_lets_no_ipv4_pass() -> None:
    _, _, prefixes = address_prefixes(["::/8"])
    trie = Trie((layout.address_key(0, first.to_bytes(16), bits), 1) for first, bits in prefixes)
    assert trie.get(layout.address_key(0, to_mapped("10.0.0.1"))) is None
    assert trie.get(layout.address_key(0, to_mapped("::1"))) == 1
    assert trie.get(layout.address_key(0, to_mapped("::fffe:0:1"))) == 1


def names_like(rule: str, name: str) -> bool:
    """The reference: what a person means."""
    if rule == "*":
        return True
    if rule.startswith("*."):
        return name.endswith(rule[1:])
    return rule == name


@given(st.lists(NAME_RULES), st.lists(NAME_RULES), st.lists(NAME_RULES), NAMES)
def test_a_name_may_do_what_any_rule_that_matches_it_says(
    reach: list[str], ask: list[str], sni: list[str], name: str
) -> None:
    compiled = compile_rules(network(rules(names=tuple(reach), l7_given=application(dns=ask, sni=sni))))
    value = Trie(compiled.items("name")).get(layout.name_key(names.exact_key(name))) or 0
    matches = [any(names_like(rule, name) for rule in given_rules) for given_rules in (ask, reach, sni)]
    assert bool(value & layout.NAME_ASK) == (matches[0] or matches[1])
    assert bool(value & layout.NAME_REACH) == matches[1]
    assert bool(value & layout.NAME_SNI) == matches[2]


@given(NAME_RULES)
def test_a_key_is_written_back_as_the_rule(rule: str) -> None:
    assert names.rule_text(names.rule_key(rule)) == rule


def test_the_wire_name_is_reversed_with_lengths_after_their_labels() -> None:
    assert names.exact_key("www.Example.com.") == b"moc\x03elpmaxe\x07www\x03\0"
    assert names.rule_key("*.example.com") == b"moc\x03elpmaxe\x07"


@pytest.mark.parametrize("length", [45, 48, 57])
def test_a_suffix_that_a_longer_label_could_imitate_is_refused(length: int) -> None:
    # x-aaa...: reversed, its 45 a's are followed by '-', which is 45 as well.
    with pytest.raises(PolicyRefused, match="longer labels look like it"):
        names.rule_key(f"*.{'a' * length}.com")
    names.rule_key(f"*.{'a' * (length + 13 if length == 45 else 46)}.com")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "1 to 63"),
        ("a..b", "1 to 63"),
        ("a" * 64 + ".com", "1 to 63"),
        ("bücher.example", "xn--"),
        (".".join(["a" * 62] * 4), "rules take up to 250"),
    ],
)
def test_what_is_no_name_is_refused(name: str, said: str) -> None:
    with pytest.raises(PolicyRefused, match=said):
        compile_rules(network(rules(names=(name,))))


@pytest.mark.parametrize("text", ["10.0.0/8", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "x", "10.0.0.0/"])
def test_what_is_no_cidr_is_refused(text: str) -> None:
    with pytest.raises(PolicyRefused, match="is no CIDR"):
        compile_rules(network(rules(text)))


def test_a_uri_longer_than_the_kernel_compares_is_refused() -> None:
    request = {"method": "GET", "uri": "/" + "a" * 235}
    with pytest.raises(PolicyRefused, match="URIs of 235"):
        compile_rules(network(rules(l7_given=application(http=[request]))))
    compile_rules(network(rules(l7_given=application(http=[request | {"uri": "/" + "a" * 234}]))))


def test_server_names_are_of_their_direction() -> None:
    into = rules("10.0.0.0/8", l7_given=application(sni=["*.in.example", "both.example"]))
    out = rules(l7_given=application(sni=["out.example", "both.example"]))
    values = dict(compile_rules(network(out, into)).names)
    assert values[names.exact_key("out.example")] == layout.NAME_SNI
    assert values[names.rule_key("*.in.example")] == layout.NAME_SNI_IN
    assert values[names.exact_key("both.example")] == layout.NAME_SNI | layout.NAME_SNI_IN


def test_too_many_rules_are_refused_with_both_numbers() -> None:
    many = [f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}/32" for number in range(250_001)]
    with pytest.raises(PolicyRefused, match="250001 are more than the 250000"):
        compile_rules(network(rules(*many)))


def test_dns_without_names_lets_everything_be_asked_only_if_it_is_listed() -> None:
    listed = compile_rules(network(rules(l7_given=application("DNS"))))
    any_protocol = compile_rules(network(rules(l7_given=application())))
    with_names = compile_rules(network(rules(names=("a.example",), l7_given=application("DNS"))))
    assert listed.flags & layout.DNS_ANY
    assert not any_protocol.flags & layout.DNS_ANY
    assert with_names.flags & (layout.DNS_ANY | layout.NAMES) == layout.NAMES


def test_a_layer_that_lets_everything_pass_is_not_asked() -> None:
    assert not compile_rules(network(rules(l7_given=application(opaque=True)))).flags & layout.L7
    assert compile_rules(network(rules(l7_given=application()))).flags & layout.L7
