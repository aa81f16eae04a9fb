# SPDX-License-Identifier: Apache-2.0
"""Profiles made at random: refused in words or canonical, and never more than that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import decode_as, encode
from schemas.profile.canonical import to_document, to_record
from schemas.profile.document import parse_profiles
from schemas.profile.errors import ProfileError
from sensor.policy.profile import compile_profile
from tests.support.profile_texts import HEAD, record_of

ROOT = Path(__file__).parents[3]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)


@given(st.text(max_size=300))
@settings(max_examples=300, deadline=None)
def test_no_text_is_more_than_refused(text: str) -> None:
    with pytest.raises(ProfileError):
        parse_profiles(text)


FIELDS = (
    "actions",
    "attacks",
    "processes",
    "default",
    "selector",
    "scope",
    "services",
    "resolvers",
    "expiresAt",
)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5))
@settings(max_examples=300, deadline=None)
def test_no_spec_is_more_than_refused(spec: dict[str, Any]) -> None:
    document = {**yaml.safe_load(HEAD), "spec": spec}
    try:
        found = parse_profiles(json.dumps(document))
    except ProfileError:
        return
    record = to_record(found[0], 1)
    assert to_record(parse_profiles(yaml.safe_dump(to_document(record)))[0], 1) == record


WHOLE = [
    (ROOT / "examples" / "profiles" / name).read_text() for name in ("http-client.yaml", "alert-only.yaml")
]
PIECES = (
    *(
        "",
        " ",
        "\n",
        "\t",
        "  ",
        "- ",
        ": ",
        "? ",
        "*",
        "&a ",
        "*a",
        "<<: ",
        "!!int ",
        "!!set ",
        "! ",
        "|",
        ">-",
    ),
    *(
        "'",
        '"',
        "[",
        "]",
        "{",
        "}",
        "#",
        "%",
        "@",
        "---\n",
        "null",
        "true",
        "-1",
        "1e9",
        "9" * 30,
        "0x1",
        ".nan",
    ),
    *(
        "\0",
        "\ufeff",
        "\U0001f600",
        "\ud800",
        "\\ud800",
        "items: ",
        "kind: List\n",
        "10.0.0.0/8",
        "::/0",
        "*.a",
    ),
)


@given(
    st.sampled_from(WHOLE),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(PIECES)), max_size=6),
)
@settings(max_examples=1000, deadline=None)
def test_a_mutated_profile_is_read_or_refused_in_lines(
    text: str, changes: list[tuple[float, int, str]]
) -> None:
    for where, cut, piece in changes:
        start = int(where * len(text))
        text = text[:start] + piece + text[start + cut :]
    try:
        profiles = parse_profiles(text, "file")
    except ProfileError as refused:
        told = str(refused).split("\n")
    else:
        told = []
    assert all(line.startswith(("file:", "and ")) and line.isprintable() for line in told)
    if told:
        return
    for each in profiles:
        record = to_record(each, 1)
        assert decode_as("SecurityProfile", encode("SecurityProfile", record)) == record
        assert record_of(yaml.safe_dump(to_document(record))) == record
        compile_profile(record)


NAMES = st.sampled_from(["a.example", "*.b.example", "*.example", "c.test"])
PORTS = st.integers(1, 65535) | st.tuples(st.integers(0, 300), st.integers(301, 900)).map(
    lambda pair: f"{pair[0]}-{pair[1]}"
)
TRAFFIC = st.fixed_dictionaries(
    {},
    optional={
        "fqdns": st.lists(NAMES, max_size=3),
        "cidr4": st.lists(
            st.sampled_from(["10.0.0.0/8", "0.0.0.0/0", "192.0.2.1/32", "10.1.0.0/16"]), max_size=3
        ),
        "cidr6": st.lists(st.sampled_from(["::/0", "2001:db8::/32"]), max_size=2),
        "l3": st.fixed_dictionaries(
            {"protocols": st.lists(st.sampled_from(["ipv4", "ipv6", "arp"]), max_size=3)}
        ),
        "l4": st.fixed_dictionaries(
            {},
            optional={
                "protocols": st.lists(st.sampled_from(["tcp", "udp", 99]), max_size=2),
                "protocolPorts": st.lists(
                    st.fixed_dictionaries(
                        {
                            "protocol": st.sampled_from(["tcp", "udp"]),
                            "ports": st.lists(PORTS, min_size=1, max_size=3),
                        }
                    ),
                    max_size=3,
                ),
                "icmp": st.lists(
                    st.fixed_dictionaries({"type": st.sampled_from(["echo-request", 3])}), max_size=2
                ),
            },
        ),
        "l7": st.fixed_dictionaries(
            {},
            optional={
                "dns": st.lists(NAMES, max_size=2),
                "http": st.lists(
                    st.fixed_dictionaries({"method": st.sampled_from(["GET", "*"]), "uri": st.just("/a/*")}),
                    max_size=2,
                ),
                "tls": st.fixed_dictionaries({"sni": st.lists(NAMES, max_size=2)}),
                "opaque": st.sampled_from(["allow", "deny"]),
            },
        ),
    },
)


@given(st.randoms(use_true_random=False), TRAFFIC)
@settings(max_examples=200, deadline=None)
def test_the_record_is_canonical(random: Any, traffic: dict[str, Any]) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, list):
            return random.sample([shuffled(each) for each in value], len(value))
        if isinstance(value, dict):
            return {name: shuffled(value[name]) for name in random.sample(sorted(value), len(value))}
        return value

    head = yaml.safe_load(HEAD)
    spec = {"actions": ["alert"], "default": {"network": {"egress": traffic}}}
    record = record_of(json.dumps({**head, "spec": spec}))
    assert record_of(json.dumps({**head, "spec": shuffled(spec)})) == record
    assert record_of(yaml.safe_dump(to_document(record))) == record
