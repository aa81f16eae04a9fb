# SPDX-License-Identifier: Apache-2.0
"""Requests, hosts, server names and what cannot be read: the decision in Python against the kernel's.

Random profiles, several of them on one workload, and random payloads on real connections, both ways.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.addresses import to_mapped
from sensor.policy import layout
from sensor.policy.decide import Flow, Payload
from tests.support.decision_lab import DecisionLab
from tests.support.kernel_lab import Cgroup
from tests.support.payload_lab import HERE, Talker, client_hello, with_extension
from tests.support.profiles import (
    NAME_RULES,
    NAMES,
    TCP,
    application,
    lists,
    network,
    profile,
    random_policies,
    rules,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.kernel_watch import Watch

pytestmark = pytest.mark.kernel

# Random policies, each with SAID payloads.
POLICIES: Final = 200
SAID: Final = 25
SLOT: Final = 901
ENCRYPTED_HELLO: Final = 0xFE0D
LONG: Final = "/" + "l" * (layout.HTTP_URI_BYTES - 2)  # with its blank it fills the rule
URIS: Final = (
    "/",
    "/a",
    "/a/b",
    "/ab",
    "/a?x=1",
    "/a/../b",
    "/a?x=/../",
    "/a/%2E",
    "/b%5c..",
    LONG,
    f"{LONG}m",
)
URI_RULES: Final = ("/", "/a", "/a/b", "/a/../b", "/*", "/a*", "/a/*", "*", LONG, f"{LONG[:-1]}*")
MODES: Final = st.sampled_from(["ENFORCE"] * 6 + ["ALERT", "IGNORE"])
METHODS: Final = st.sampled_from(["GET", "POST", "get", "M" * 15])
# A host as long as rules take, and one byte longer.
WIDE: Final = ".".join(["w" * 63] * 3)
EDGE: Final = [
    f"{WIDE}.{'e' * (249 - len(WIDE) - 13)}.example.com",
    f"{WIDE}.{'e' * (250 - len(WIDE) - 13)}.example.com",
]
HOSTS: Final = (
    st.none()
    | NAMES
    | NAMES.map(str.upper)
    | st.sampled_from(
        [
            HERE,
            "127.0.0.2",
            "127.0.0.01",
            "",
            "example.com.",
            "a..example.com",
            "[::1]",
            "-x.example.com",
            *EDGE,
        ]
    )
)
SERVERS: Final = [
    "",
    *EDGE[:0],
    "example.com",
    "www.example.com",
    "a.www.example.com",
    "example.org",
    "b.com",
]
HELLOS: Final = {
    (name, encrypted): with_extension(hello, ENCRYPTED_HELLO, b"\0" * 32) if encrypted else hello
    for name in SERVERS
    for hello in [client_hello(name or None)]
    for encrypted in (False, True)
}  # fmt: skip
UNREADABLE: Final = {
    layout.L7_OPAQUE: b"SSH-2.0-x\r\n",
    layout.L7_DNS: b"\0\x11\0\1\1\0\0\1\0\0\0\0\0\0\0\0\1\0\1",
}


def payloads() -> st.SearchStrategy[Payload]:
    """Anything a connection may begin with."""
    requests = st.builds(
        Payload, st.just(layout.L7_HTTP), method=METHODS, uri=st.sampled_from(URIS), host=HOSTS
    )
    hellos = st.sampled_from(list(HELLOS)).map(
        lambda hello: Payload(layout.L7_TLS, hello[0], encrypted=hello[1])
    )
    return requests | requests | requests | hellos | hellos | st.sampled_from(list(UNREADABLE)).map(Payload)


def on_the_wire(payload: Payload) -> bytes:
    """Its bytes."""
    if payload.protocol == layout.L7_TLS:
        return HELLOS[payload.name, payload.encrypted]
    if payload.protocol == layout.L7_HTTP:
        host = "" if payload.host is None else f"Host: {payload.host}\r\n"
        return f"{payload.method} {payload.uri} HTTP/1.1\r\nAccept: */*\r\n{host}\r\n".encode()
    return UNREADABLE[payload.protocol]


EVERY: Final = ["DNS", "HTTP", "HTTPS"]


def judged(*, names: bool) -> st.SearchStrategy[dict[str, Any]]:
    """L7Rules that compare something, most of the time."""
    method = st.sampled_from(["", "GET", "GET", "POST", "M" * 15])
    http = st.fixed_dictionaries({"method": method, "uri": st.sampled_from(URI_RULES)})
    return st.builds(
        lambda spoken, dns, **more: application(*spoken, dns=dns, **more),
        st.sampled_from([EVERY, EVERY, [], ["HTTP"], ["HTTPS"], ["DNS"]]),
        lists(NAME_RULES, 2) if names else st.just([]),
        http=st.lists(http, min_size=1, max_size=3) | st.just([]),
        sni=st.lists(NAME_RULES, min_size=1, max_size=2) | st.just([]),
        opaque=st.sampled_from([False, False, True]),
    )


@st.composite
def unions(draw: st.DrawFn) -> list[dict[str, Any]]:
    """One to three profiles: the first lets the connections pass below layer 7, as others may."""
    outgoing = draw(st.booleans())
    made = []
    for number in range(draw(st.integers(1, 3))):
        # By address, by the name it was answered for, not at all.
        cidrs = (
            (f"{HERE}/32",) if not number else draw(st.sampled_from([("0.0.0.0/0",), (), ("10.0.0.0/8",)]))
        )
        names = draw(st.just([]) | st.lists(NAME_RULES, min_size=1, max_size=2)) if outgoing else []
        l7, free = judged(names=outgoing), rules("0.0.0.0/0")
        tried = rules(
            *cidrs, names=tuple(names), l7_given=draw(l7 if not number else l7 | l7 | l7 | l7 | st.none())
        )
        both = network(tried, free) if outgoing else network(free, tried)
        made.append(profile(f"p{number}", scope="NODE", mode=draw(MODES), default=both))
    return made


def flows(payload: Payload, learned: frozenset[str]) -> list[Flow]:
    """Both ends of a connection, which are governed both."""
    return [
        Flow("out", TCP, to_mapped(HERE), 40_000, 0, learned, payload=payload),
        Flow("in", TCP, to_mapped(HERE), 0, 40_000, payload=payload),
    ]


# A host may be a TLS server name; where no name led to the address, also one that may only be asked for.
ASKED_ONLY, SERVER_NAMED = (
    profile(
        scope="NODE",
        default=network(rules(f"{HERE}/32", names=("*.example.com",), l7_given=l7), rules("0.0.0.0/0")),
    )
    for l7 in (application(dns=["b.com"]), application(sni=["b.com"]))
)
HOST_ASKED: Final = [
    Payload(layout.L7_HTTP, method="GET", uri="/", host=host)
    for host in ("b.com", "a.www.example.com", "example.com", "example.org", HERE)
]


@pytest.fixture(scope="module")
def lab(watch: Watch) -> Iterator[tuple[DecisionLab, Talker]]:
    pod = Cgroup(watch.cgroup.path / "said")
    pod.path.mkdir()
    made = DecisionLab(watch, pod, SLOT)
    with Talker(pod) as talker:
        yield made, talker
    pod.remove()


@random_policies(POLICIES)
@given(unions(), st.lists(payloads(), min_size=SAID, max_size=SAID, unique=True), st.none() | NAMES)
@example([ASKED_ONLY], HOST_ASKED, "www.example.com")
@example([ASKED_ONLY], HOST_ASKED, "example.org")
@example([SERVER_NAMED], HOST_ASKED, "www.example.com")
def test_the_kernel_judges_what_is_said_as_explain_does(
    lab: tuple[DecisionLab, Talker],
    several: list[dict[str, Any]],
    payloads_said: list[Payload],
    answered: str | None,
) -> None:
    decisions, talker = lab
    decisions.govern(several)
    if answered:
        decisions.learn(to_mapped(HERE), answered)
    learned = frozenset({answered} if answered else ())
    verdicts = [[decisions.said(flow) for flow in flows(each, learned)] for each in payloads_said]
    expected = [all(each.outcome != "refused" for each in both) for both in verdicts]
    before = decisions.refused()
    data = [on_the_wire(each) for each in payloads_said]
    arrived = talker.arrived([(passes, [said]) for passes, said in zip(expected, data, strict=True)])
    found = [count == len(said) for count, said in zip(arrived, data, strict=True)]
    decisions.forget()
    assert dict(zip(payloads_said, found, strict=True)) == dict(zip(payloads_said, expected, strict=True))
    # The other way everything passes: each is judged once.
    reasons = Counter(each.reason for both in verdicts for each in both if each.reason)
    assert decisions.counted_since(before, reasons.total()) == dict(reasons)
