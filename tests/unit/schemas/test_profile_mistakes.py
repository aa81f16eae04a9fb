# SPDX-License-Identifier: Apache-2.0
"""What each mistake in a SecurityProfile is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.profile.errors import MAX_PROBLEMS
from tests.support.profile_texts import egress, problems_of, profile

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ('cidr4: ["10.0.0/8"]', 'cidr4[0]: "10.0.0/8" is not a CIDR; did you mean 10.0.0.0/8?'),
        ("cidr4: [10.0.0.1]", 'cidr4[0]: "10.0.0.1" is not a CIDR; did you mean 10.0.0.1/32?'),
        ('cidr4: ["::/0"]', 'cidr4[0]: "::/0" is IPv6; put it into cidr6'),
        ('cidr4: ["10.0.0.0/33"]', "is not a CIDR; write it as address/bits"),
        ("fqdns: [https://example.org/x]", "is not a DNS name; did you mean example.org?"),
        ("fqdns: ['a.*.org']", "has a * in the wrong place"),
        (f"fqdns: [{'a' * 64}.org]", "is not a DNS name; letters, digits"),
        (f"fqdns: [{'.'.join(['a' * 60] * 5)}]", "more than 250 bytes"),
        ("l3: {protocols: [ipx]}", "'ipv4', 'ipv6' or 'arp'; it is \"ipx\""),
        ("l7: {protocols: ['*']}", 'it is "*"; leave the layer out, and everything passes it'),
        ("l4: {protocols: [tpc]}", 'protocols[0]: "tpc" is no protocol known here'),
        ("l4: {protocolPorts: [{protocol: icmp, port: 1}]}", "this protocol has no ports"),
        ("l4: {protocolPorts: [{protocol: tcp}]}", "give port, or ports"),
        ("l4: {protocolPorts: [{protocol: tcp, ports: [70000]}]}", "ports[0]: 70000 is no port"),
        ("l4: {protocolPorts: [{protocol: tcp, ports: [9-1]}]}", "did you mean 1-9?"),
        ("l4: {icmp: [{type: ping}]}", 'l4.icmp[0].type: "ping" is no ICMP type known here'),
        ("l7: {http: [{method: GET, uri: index}]}", 'uri: "index" is no request path; begin it with /'),
        ("l7: {http: [{method: 'G T', uri: /}]}", "is no HTTP method"),
        (
            "l7: {protocols: [dns], http: [{uri: /}]}",
            "there are rules for http, and protocols does not list it",
        ),
        ("egres: {}", "egres: no such field; known here: fqdns"),
        ("cidr_4: []", "did you mean cidr4?"),
        ("fqdns: example.org", "Input should be a valid array"),
        ("fqdns: [7]", "Input should be a valid string; it is 7; put it into quotes"),
        ("fqdns: [10.0.0.1]", '"10.0.0.1" is an address, no name; put 10.0.0.1/32 into cidr4'),
        ("fqdns: ['[2001:db8::1]']", "put 2001:db8::1/128 into cidr6"),
        ("fqdns: [stra\u00dfe.example]", "by old and new IDNA; write the xn-- one"),
        (f"fqdns: ['{chr(252) * 100_000}']", "more than 250 bytes"),
        ("fqdns: [*.example.com]", 'put what begins with * or & into quotes, as in "*.example.com"'),
        ("\tfqdns: []", "indent with blanks, not tabs"),
        ("fqdns: [null]", "it is null; remove the key, or give it a value"),
        ("cidr6: ['fe80::1%eth0/64']", "has a zone, and a network has none; did you mean fe80::/64?"),
        ("l4: [tcp]", 'it is ["tcp"]; its fields are protocols, protocolPorts, icmp, icmpv6'),
        ("l4: {protocols: tcp}", 'it is "tcp"; did you mean ["tcp"]?'),
        ("l4: {protocols: [true]}", "protocols[0]: Input should be a number or text; it is true"),
        ("l4: {protocolPorts: [{protocol: tcp, port: 65536}]}", "protocolPorts[0].port: 65536 is no port"),
        (
            "l4: {protocolPorts: [{protocol: tcp, port: 0}]}",
            "for all ports list the protocol in l4.protocols",
        ),
        ("l4: {protocolPorts: [{protocol: tcp, port: '80'}]}", "write it without quotes"),
        ("l4: {protocolPorts: [{protocol: tcp, port: 80-90}]}", 'did you mean ports: ["80-90"]?'),
        ("l4: {protocolPorts: [{protocol: tcp, ports: [80-]}]}", '"80-" is no port; write 443, or 8000-8080'),
        # YAML 1.1 makes 1330 and 8 of these.
        ("l4: {protocolPorts: [{protocol: tcp, ports: [22:10]}]}", '"22:10" is no port'),
        ("l4: {protocolPorts: [{protocol: tcp, ports: [010]}]}", '"010" is no port'),
        ("l4: {icmp: [{type: -1}]}", "icmp[0].type: -1 is no ICMP type; they go from 0 to 255"),
        ("l4: {icmp: [{type: 3, code: -1}]}", "greater than or equal to 0; it is -1"),
        ("l7: {http: [{uri: 'https://a.example/x'}]}", 'is no request path; did you mean "/x"?'),
    ],
)
def test_a_mistake_is_told_with_its_place_and_its_cure(lines: str, problem: str) -> None:
    told = problems_of(egress(lines))
    assert told.startswith(("file:10: spec.processes[0].network.egress", "file:10: not YAML"))
    assert problem in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("actions: []", "spec.actions: List should have at least 1 item"),
        ("actions: [block]", "spec.actions[0]: Input should be"),
        ("actions: [alert]\nscope: Node", "scope Node without services selects nothing"),
        ("actions: [alert]\nservices: [{unit: a.service}]", "are for scope: Node"),
        (
            "actions: [alert]\nscope: Node\nservices: [{unit: a.service, executable: /b}]",
            "exactly one of them",
        ),
        ("actions: [alert]\nexpiresAt: 2030-01-01T00:00:00", "did you mean 2030-01-01T00:00:00Z?"),
        ("actions: [alert]\nexpiresAt: 2030-01-01", "did you mean 2030-01-01T00:00:00Z?"),
        ("actions: [alert]\nexpiresAt: 2030-W01-1T00:00:00Z", "is no time"),
        ("actions: [alert]\nexpiresAt: 9999-12-31T23:59:59Z", "is not between 1970 and 2262"),
        ("actions: [alert]\nexpiresAt: 0001-01-01T00:00:00+12:00", "is not between 1970 and 2262"),
        ("actions: [enforce]\ncanaryFor: 1 day", "is no stretch of time; write 30m, 24h or 7d"),
        ("actions: [enforce]\ncanaryFor: 0h", "is not between a second and 90 days"),
        ("actions: [enforce]\ncanaryFor: 91d", "is not between a second and 90 days"),
        ("actions: [alert]\ncanaryFor: 24h", "canaryFor is for what is enforced afterwards; add enforce"),
        ("actions: [enforce]\ncanaryFor: 24h\ndryRun: true", "keep one"),
        ("actions: [alert]\nexpiresAt: tomorrow", "is no time; write 2030-01-31T12:00:00Z"),
        ("actions: [alert]\nresolvers: [dns.example]", "is not an IP address; write it without name"),
        ("actions: [alert]\nresolvers: ['fe80::1%eth0']", "has a zone; did you mean fe80::1?"),
        ("actions: [alert]\nprocesses: [{path: /, network: {}}]", '"/" names no file'),
        ("actions: [alert]\nprocesses: [{path: /bin/*, network: {}}]", "paths are no patterns"),
        (f"actions: [alert]\nprocesses: [{{path: /{'a' * 255}, network: {{}}}}]", "the kernel compares 255"),
        ("actions: [alert]\nscope: Node\nservices: [{unit: sshd}]", "did you mean sshd.service?"),
        ("actions: [alert]\nscope: Node\nservices: [{unit: a.slice}]", "give a slice as cgroupPath"),
        (
            "actions: [alert]\nscope: Node\nservices: [{cgroupPath: /sys/fs/cgroup/a.slice}]",
            'did you mean "/a.slice"?',
        ),
        ("actions: [alert]\nprocesses: [{path: bin/tool, network: {}}]", "is not an absolute path"),
        ("actions: [alert]\nprocesses: [{path: /a/../b, network: {}}]", "has a . or .. in it"),
        ("actions: [alert]\nprocesses: [{path: /a//b, network: {}}]", "did you mean /a/b?"),
        (
            "actions: [alert]\nprocesses: [{path: /a, network: {}}, {path: /a, network: {}}]",
            "has rules twice; put them into one entry",
        ),
        ("actions: [alert]\ndefault: {network: {}, egress: {}}", "and not both"),
        ("actions: [alert]\nselector: {matchExpressions: [{key: a, operator: In}]}", "In needs values"),
        ("actions: [alert]\ndefault: {network: {ingress: {l7: {dns: [a.org]}}}}", "put it into egress"),
    ],
)
def test_what_does_not_belong_together_is_told(spec: str, problem: str) -> None:
    assert problem in problems_of(profile(spec))


def test_all_problems_of_a_file_are_told_at_once_and_many_are_cut() -> None:
    told = problems_of(egress("fqdns: [" + ", ".join(["a b"] * 50) + "]"))
    assert len(told.splitlines()) == MAX_PROBLEMS + 1
    assert told.endswith("and 30 more problems")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: &x [1]\nb: *x", "file:2: an alias; write it out"),
        ("a: 1\na: 2", 'file:2: "a" is given twice; keep one'),
        ("[" * 40 + "]" * 40, "nested more than 32 deep"),
        (
            "a: !!python/object:os.system x",
            'file:1: a tag, "tag:yaml.org,2002:python/object:os.system"; leave',
        ),
        ("a: !!int ''", "leave it out"),
        ("a: !!bool x", "leave it out"),
        ("a: !!map [1]", "leave it out"),
        ("? [a]\n: b", "file:1: a key that is a list or a map; keys are text"),
        ("? {a: b}\n: b", "a key that is a list or a map"),
        ('"\\e[31mred": 1', '["\\u001b[31mred"]: no such field'),
        ('"a\\nb": 1', '["a\\nb"]: no such field'),
        ("<<: {kind: x}", '["<<"]: no such field'),
        ("a: [", "not YAML"),
        ("", "there is no profile in it"),
        ("--- 1\n--- 2", "Input should be an object"),
        ("a: .nan", "apiVersion: Field required"),
        ("\0", "not YAML"),
    ],
)
def test_what_yaml_can_do_beyond_data_is_refused(text: str, problem: str) -> None:
    assert problem in problems_of(text)
