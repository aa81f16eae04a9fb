# SPDX-License-Identifier: Apache-2.0
"""Each modifier of Sigma, by what matches and what does not."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from tests.support.sigma import refusal, selects

LINE = "CommandLine"


@pytest.mark.parametrize(
    ("item", "hit", "miss"),
    [
        ({LINE: "id -u"}, "ID -u", "id -un"),
        ({LINE: "id*u"}, "id -a -u", "id -un"),
        ({LINE: "id -?"}, "id -n", "id -nu"),
        ({LINE: r"a\*b"}, "a*b", "axb"),
        ({LINE: r"a\\b"}, r"a\b", "a/b"),
        ({LINE: "*curl*http*"}, "xcurl -s http://a", "http curl"),
        ({LINE: "ab*ba"}, "abba", "aba"),
        ({f"{LINE}|contains": "/dev/tcp"}, "bash >& /DEV/TCP/1", "dev/tcp"),
        ({f"{LINE}|contains": ["nmap", "masscan"]}, "run Masscan now", "run scan"),
        ({f"{LINE}|contains|all": ["-e", "sh"]}, "nc -e /bin/sh", "nc -e /bin/ba"),
        ({f"{LINE}|contains|cased": "LD_PRELOAD"}, "LD_PRELOAD=x", "ld_preload=x"),
        ({f"{LINE}|cased": "Ab"}, "Ab", "ab"),
        ({f"{LINE}|startswith": "wget"}, "WGET x", " wget"),
        ({f"{LINE}|startswith|cased": "wget"}, "wget x", "WGET x"),
        ({f"{LINE}|endswith": ".sh"}, "run a.SH", "run a.sh x"),
        ({f"{LINE}|endswith|cased": ".sh"}, "run a.sh", "run a.SH"),
        ({f"{LINE}|re": "[0-9]{3}"}, "port 443", "port 44"),
        ({f"{LINE}|re": "Curl"}, "run Curl", "run curl"),
        ({f"{LINE}|re|i": "Curl"}, "run curl", "run url"),
        ({f"{LINE}|re": "a.b"}, "axb", "a\nb"),
        ({f"{LINE}|re|s": "a.b"}, "a\nb", "a\n\nb"),
        ({f"{LINE}|re|m": "^b$"}, "a\nb\nc", "a\nbb"),
        ({f"{LINE}|base64|contains": "secret"}, f"x {b64encode(b'secret').decode()}", "x secret"),
        (
            {f"{LINE}|base64offset|contains": "http://"},
            f"echo {b64encode(b'1 http://x').decode()}",
            "http://",
        ),
        (
            {f"{LINE}|wide|base64offset|contains": "iex"},
            b64encode("ab iex".encode("utf-16le")).decode(),
            b64encode(b"ab iex").decode(),
        ),
        (
            {f"{LINE}|utf16|base64|contains": "ab"},
            b64encode("ab".encode("utf-16")).decode(),
            b64encode(b"ab").decode(),
        ),
        ({f"{LINE}|windash|contains": " -enc "}, "x /enc y", "x enc y"),
        ({f"{LINE}|windash|contains": " -enc "}, "x –enc y", "x +enc y"),  # noqa: RUF001 - the dash is the point
        ({f"{LINE}|windash|contains|all": [" -a ", " -b "]}, "x /a -b y", "x /a y"),
        ({f"{LINE}|expand": "%admins%"}, "toor", "%admins%"),
        ({f"{LINE}|expand|contains": "run %tools% -x"}, "run massXcan -x", "run nmap2 -x"),
        ({f"{LINE}|expand|cased": "%admins%"}, "root", "Root"),
        ({f"{LINE}|fieldref": "ParentCommandLine"}, "Same", "other"),
        ({f"{LINE}|fieldref|startswith": "ParentCommandLine"}, "same and more", "not same"),
        ({f"{LINE}|fieldref|endswith": "ParentCommandLine"}, "not same", "same not"),
        ({f"{LINE}|fieldref|contains": "ParentCommandLine"}, "a same b", "a sam"),
        ({f"{LINE}|neq": "id"}, "ids", "ID"),
        ({LINE: ""}, "", "x"),
        ({LINE: 22}, "22", "222"),
        ({LINE: True}, "True", "1"),
    ],
)
def test_command_line(item: dict[str, Any], hit: str, miss: str) -> None:
    assert selects(item, {LINE: hit, "ParentCommandLine": "same"})
    assert not selects(item, {LINE: miss, "ParentCommandLine": "same"})


@pytest.mark.parametrize(
    ("item", "hit", "miss"),
    [
        ({"DestinationPort": 22}, 22, 2222),
        ({"DestinationPort": "22"}, 22, 2222),
        ({"DestinationPort|lt": 1024}, 1023, 1024),
        ({"DestinationPort|lte": 1024}, 1024, 1025),
        ({"DestinationPort|gt": 1024}, 1025, 1024),
        ({"DestinationPort|gte": 1024}, 1024, 1023),
        ({"DestinationPort|startswith": "44"}, 4444, 5444),
        ({"DestinationPort": [21, 23]}, 23, 22),
    ],
)
def test_numbers(item: dict[str, Any], hit: int, miss: int) -> None:
    assert selects(item, {"DestinationPort": hit}, "network_connection")
    assert not selects(item, {"DestinationPort": miss}, "network_connection")


@pytest.mark.parametrize(
    ("network", "hit", "miss"),
    [
        ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
        ("192.0.2.7/32", "192.0.2.7", "192.0.2.8"),
        ("0.0.0.0/0", "8.8.8.8", "2001:db8::1"),
        ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
        ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
        ("::/0", "2001:db8::1", "no address"),
    ],
)
def test_networks(network: str, hit: str, miss: str) -> None:
    assert selects({"DestinationIp|cidr": network}, {"DestinationIp": hit}, "network_connection")
    assert not selects({"DestinationIp|cidr": network}, {"DestinationIp": miss}, "network_connection")


def test_what_is_absent_matches_only_null() -> None:
    for item in (
        {LINE: "*"}, {LINE: ""}, {f"{LINE}|contains": "a"}, {f"{LINE}|re": ".*"}, {f"{LINE}|exists": True},
        {f"{LINE}|cased": "*"}, {f"{LINE}|fieldref": "ParentCommandLine"}, {LINE: "?*"},
    ):  # fmt: skip
        assert not selects(item, {"Image": "/bin/a"}), item
    assert selects({LINE: None}, {"Image": "/bin/a"})
    assert selects({f"{LINE}|exists": False}, {"Image": "/bin/a"})
    assert selects({LINE: ["a", None]}, {"Image": "/bin/a"})
    assert not selects({LINE: None}, {LINE: ""})
    assert selects({f"{LINE}|exists": True}, {LINE: ""})
    assert selects({LINE: "*"}, {LINE: ""})


def test_letters_are_folded_one_by_one() -> None:
    # lower() makes of a capital sigma something else at the end of a word than within.
    sigma, small = "\N{GREEK CAPITAL LETTER SIGMA}", "\N{GREEK SMALL LETTER SIGMA}"
    assert selects({f"{LINE}|contains": f"a{sigma}"}, {LINE: f"a{small}x"})
    assert selects({f"{LINE}|contains": "K"}, {LINE: "\N{KELVIN SIGN}"})


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({f"{LINE}|re": "a(?=b)"}, "invalid perl operator"),
        ({f"{LINE}|re": "("}, "missing )"),
        ({f"{LINE}|re": "a" * 5000}, "more than 4096"),
        ({f"{LINE}|gt": 5}, "gt is for a field of kind number, and CommandLine is of kind text"),
        ({f"{LINE}|cidr": "10.0.0.0/8"}, "cidr is for a field of kind address"),
        ({f"{LINE}|expand": "%nobody%"}, "%nobody% has no values"),
        ({f"{LINE}|re|expand": "%admins%"}, "write the values into it"),
        ({f"{LINE}|hour": 5}, "CommandLine is not a time"),
        ({f"{LINE}|fieldref": "Nothing"}, "has a field Nothing"),
        ({f"{LINE}|telepathy": "x"}, "Unknown modifier 'telepathy'"),
        ({"User": "backup"}, "no user id is known by a name like 'backup'"),
        ({"User|contains": "AUTHORI"}, "no user id is known"),
        ({"CurrentDirectory": "/x"}, "does not record working directories"),
        ({"Comandline": "/x"}, "did you mean CommandLine?"),
        ({"QueryName": "x"}, "not in events of this category"),
        ({f"{LINE}|re|startswith": "x"}, "write ^ or $ in the expression"),
    ],
)
def test_what_cannot_be_judged_is_refused(item: dict[str, Any], reason: str) -> None:
    assert reason in refusal({"selection": item, "condition": "selection"})


def test_users_are_known_by_the_names_of_the_configuration() -> None:
    assert selects({"User": "www-data"}, {"User": "www-data"})
    assert selects({"User": "0"}, {"User": "0"})
