# SPDX-License-Identifier: Apache-2.0
"""nsp.dns-tunnel: tunnels as their programs ask, slow ones, and those who ask a lot and say little."""

from __future__ import annotations

import base64
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_apps.detect.dns_tunnel import DnsTunnel, _Domain
from stream_apps.detect.domains import below, registered_domain
from tests.support.batches import SECOND, Node
from tests.support.stream import observer, rules, run, whole_pipeline

if TYPE_CHECKING:
    from stream_apps.pipeline import Pipeline

RULE = "nsp.dns-tunnel"
DICE = random.Random(5)


def severities(node: Node, through: Pipeline | None = None) -> list[str]:
    return [severity for rule, severity in rules(run(node, through or whole_pipeline())) if rule == RULE]


def chunk(size: int) -> str:
    """Bytes as a tunnel writes them in a name."""
    text = base64.b32encode(DICE.randbytes(size)).decode().strip("=").lower()
    return ".".join(text[each : each + 60] for each in range(0, len(text), 60))


def test_a_tunnel_is_told_once_a_band() -> None:
    """A hundred and fifty bytes a question, as iodine does, and never a connection to the domain."""
    node, through = Node(), whole_pipeline()
    service = node.service("/app/search")
    told = []
    for _ in range(30):
        for _ in range(40):
            node.ask(service, f"{chunk(30)}.t.evil.co.uk")
        node.now_ns += 700 * SECOND
        told += severities(node, through)
    assert told == ["MEDIUM", "HIGH", "CRITICAL"]


def test_the_alert_names_the_domain_the_count_and_what_it_carries() -> None:
    node = Node()
    service = node.service("/app/search")
    for _ in range(100):
        node.ask(service, f"{chunk(40)}.evil.example")
    [alert] = [each for each in run(node, whole_pipeline()).alerts if each["rule_id"] == RULE]
    for word in ("distinct names below evil.example", "can carry", "bytes"):
        assert word in alert["description"]
    assert alert["attack"] == ["T1071.004", "T1572"]


def test_names_that_say_little_are_no_tunnel_however_many() -> None:
    node = Node()
    crawler = node.service("/app/crawler")
    for each in range(1000):
        node.ask(crawler, f"shop{each}.host.example")
    assert severities(node) == []


def test_the_same_names_again_carry_nothing() -> None:
    node = Node()
    service = node.service("/app/search")
    names = [f"{chunk(100)}.evil.example" for _ in range(15)]
    for _ in range(100):
        for each in names:
            node.ask(service, each)
    assert severities(node) == []


def test_a_domain_that_is_visited_needs_more_names() -> None:
    for visited, told in ((False, ["MEDIUM"]), (True, [])):
        node = Node()
        service = node.service("/app/search")
        for each in range(90):
            if each == 60 and visited:
                node.answer(service, "www.evil.example", ["203.0.113.9"])
                node.connect(service, "203.0.113.9", 443)
            node.ask(service, f"{chunk(50)}.evil.example")
        assert severities(node) == told


@pytest.mark.parametrize("kind", [10, 65399])
def test_the_question_types_of_tunnelling_programs_are_told_at_the_ninth_name(kind: int) -> None:
    for count, told in ((8, []), (9, ["HIGH"])):
        node = Node()
        service = node.service("/app/search")
        for each in range(count):
            node.add(
                "DnsQuestion", service, cookie=1, protocol=17, server_address="10.96.0.10", transaction_id=7,
                name=f"a{each}.evil.example", question_type=kind,
            )  # fmt: skip
        assert severities(node) == told


def test_twenty_long_names_are_a_tunnel_and_long_ones_asked_again_are_not() -> None:
    for count, told in ((19, []), (20, ["MEDIUM"])):
        node = Node()
        service = node.service("/app/search")
        for _ in range(count):
            node.ask(service, f"{chunk(60)}.evil.example")
        assert severities(node) == told


def test_a_slow_tunnel_is_found_within_its_day_and_the_next_day_begins_anew() -> None:
    for pause_s, told in ((600, ["MEDIUM"]), (1200, [])):
        node, through = Node(), whole_pipeline()
        service = node.service("/app/search")
        found = []
        for _ in range(120):
            node.ask(service, f"{chunk(48)}.evil.example")
            node.now_ns += pause_s * SECOND
            found += severities(node, through)
        assert found == told


@pytest.mark.parametrize("suffix", ["in-addr.arpa", "shop.svc.cluster.local", "corp.lan", "zen.spamhaus.org"])
def test_reverse_local_and_block_list_names_are_left_out(suffix: str) -> None:
    node = Node()
    service = node.service("/usr/sbin/postfix")
    for _ in range(200):
        node.ask(service, f"{chunk(30)}.{suffix}")
    assert severities(node) == []


def test_a_block_list_asked_of_a_foreign_server_may_be_anybodys() -> None:
    node = Node()
    service = node.service("/usr/sbin/postfix")
    for _ in range(200):
        node.ask(service, f"{chunk(30)}.zen.spamhaus.org", server="203.0.113.53")
    assert severities(node) == ["MEDIUM"]


def test_a_name_server_asks_for_others_and_costs_no_memory() -> None:
    node, through = Node(), whole_pipeline()
    server = node.service("/coredns")
    for _ in range(200):
        node.ask(server, f"{chunk(30)}.evil.example")
    assert severities(node, through) == []
    assert through.metrics()["detect", "dns_tunnel_names_now"] == 0


def test_names_are_bounded_and_counted_whoever_asks_and_whatever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_apps.detect.dns_tunnel.MAX_ALL_NAMES", 100)
    monkeypatch.setattr("stream_apps.detect.dns_tunnel.MAX_DOMAINS", 4)
    monkeypatch.setattr("stream_apps.detect.dns_tunnel.MAX_WORKLOADS", 3)
    node, through = Node(), whole_pipeline()
    node.workloads += [{**node.workloads[1], "id": f"w{each}"} for each in range(6)]
    services = [node.service("/app/search", workload=each) for each in range(8)]
    for asked, each in enumerate(range(800), start=1):
        node.ask(services[each % 8], f"n{each}.d{each % 7}.example")
        if each % 100 == 99:
            run(node, through)
            figures = through.metrics()
            kept = figures["detect", "dns_tunnel_names_now"]
            assert kept <= 100
            assert kept + figures["detect", "dns_tunnel_names_dropped"] == asked
            assert figures["detect", "dns_tunnel_workloads_now"] <= 3
            held = sum(
                len(domain.names)
                for workload in observer(through, DnsTunnel)._workloads.values()
                for domain in workload.domains.values()
            )
            assert held == kept


@settings(max_examples=40)
@given(st.lists(st.binary(min_size=8, max_size=60), min_size=20, max_size=80, unique=True))
def test_information_is_never_far_below_what_was_really_carried(parts: list[bytes]) -> None:
    """Compression may find what repeats; random bytes it cannot shrink below what they are."""
    dice = random.Random(repr(parts))
    domain = _Domain()
    carried = 0
    for each in parts:
        payload = dice.randbytes(len(each))
        carried += len(payload)
        text = base64.b32encode(payload).strip(b"=").lower()
        domain.say(text)
    assert domain.information() >= 0.9 * carried


@pytest.mark.parametrize(
    ("name", "domain", "label"),
    [
        ("a.b.example.co.uk", "example.co.uk", "a.b"), ("example.com", "example.com", ""),
        ("x.y.s3.amazonaws.com", "y.s3.amazonaws.com", "x"), ("com", None, ""), ("a..b", None, ""),
        ("", None, ""), (r"\000\255.evil.com", "evil.com", r"\000\255"),
    ],
)  # fmt: skip
def test_registered_domains_are_the_public_suffix_lists(name: str, domain: str | None, label: str) -> None:
    assert registered_domain(name) == domain
    if domain:
        assert below(name, domain) == label


def test_the_defaults_are_the_published_figures() -> None:
    limits = observer(whole_pipeline(), DnsTunnel)._limits
    assert (limits.names, limits.information_bytes, limits.long_name_bytes, limits.odd_names) == (
        100, 4096, 90, 8,
    )  # fmt: skip


def test_information_goes_on_beyond_what_is_compressed_at_once() -> None:
    domain = _Domain()
    for _ in range(400):
        domain.say(base64.b32encode(DICE.randbytes(50)))
    assert domain.information() >= 0.9 * 400 * 50
    assert len(domain.sample) < 8192
