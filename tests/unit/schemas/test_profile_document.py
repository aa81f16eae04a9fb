# SPDX-License-Identifier: Apache-2.0
"""SecurityProfiles as people write them: what is read, and what each mistake is told."""

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
from schemas.profile.document import MAX_FILE_BYTES, json_schema_text, parse_profiles
from schemas.profile.errors import MAX_PROBLEMS, ProfileError
from schemas.profile.model import MAX_RULES
from sensor.policy.profile import compile_profile

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples" / "profiles").glob("*.yaml"))
HEAD = "apiVersion: nsp.security/v1alpha1\nkind: SecurityProfile\nmetadata: {name: test, labels: {app: a}}\n"


def profile(spec: str) -> str:
    return HEAD + "spec:\n" + "\n".join(f"  {line}" for line in spec.strip().splitlines())


def record_of(text: str) -> dict[str, Any]:
    return to_record(parse_profiles(text)[0], 1)


def problems_of(text: str) -> str:
    with pytest.raises(ProfileError) as refused:
        parse_profiles(text, "file")
    return str(refused.value)


EGRESS = "actions: [enforce]\nprocesses:\n  - path: /bin/tool\n    network:\n      egress:\n"


def egress(*lines: str) -> str:
    return profile(EGRESS + "\n".join(f"        {line}" for line in lines))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_read_compiled_and_written_again(path: Path) -> None:
    record = record_of(path.read_text())
    assert decode_as("SecurityProfile", encode("SecurityProfile", record)) == record
    assert record_of(yaml.safe_dump(to_document(record))) == record
    assert compile_profile(record).entries


def test_the_2020_probe_s_spelling_means_the_same() -> None:
    old = profile("""
actions: [alert, enforce, trace-dns]
attacks: [arp-spoofing]
labelSelector: {matchLabels: {app: a}}
default:
  egress: {fqdns: [example.org], cidr4: [0.0.0.0/0], l3: {protocols: [ipv4, arp]}, l4: {protocols: [icmp]}}
  ingress: {cidr6: ["ff02:0000:0000:0000:0000:0000:0000:0002/100"]}
processes:
  - path: /usr/bin/python3
    network: {egress: {l4: {protocolPorts: [{protocol: udp, port: 53}, {protocol: tcp, port: 80}]}}}
""")
    new = profile("""
actions: [enforce, trace-dns]
attacks: [arp-spoofing]
selector: {matchLabels: {app: a}}
default:
  network:
    egress: {fqdns: [Example.org.], cidr4: [0.0.0.0/0], l3: {protocols: [arp, ipv4]}, l4: {protocols: [1]}}
    ingress: {cidr6: ["ff02::/100"]}
processes:
  - path: /usr/bin/python3
    network:
      egress: {l4: {protocolPorts: [{protocol: tcp, ports: [80]}, {protocol: udp, ports: ["53-53"]}]}}
""")
    assert record_of(old) == record_of(new)
    assert record_of(old)["mode"] == "ENFORCE"
    assert record_of(old)["trace_dns"]


def test_its_api_version_is_refused_with_the_cure() -> None:
    text = profile("actions: [alert]").replace("nsp.security/v1alpha1", "securityprobe.datadoghq.com/v1")
    assert "apply as they are with apiVersion: nsp.security/v1alpha1" in problems_of(text)


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
        ("l4: {protocols: [tpc]}", 'protocols[0]: "tpc" is no protocol known here'),
        ("l4: {protocolPorts: [{protocol: icmp, port: 1}]}", "this protocol has no ports"),
        ("l4: {protocolPorts: [{protocol: tcp}]}", "give port, or ports"),
        ("l4: {protocolPorts: [{protocol: tcp, ports: [70000]}]}", "ports[0]: 70000 is no port"),
        ("l4: {protocolPorts: [{protocol: tcp, ports: [9-1]}]}", "did you mean 1-9?"),
        ("l4: {icmp: [{type: ping}]}", 'l4: "ping" is no ICMP type known here'),
        ("l7: {http: [{method: GET, uri: index}]}", 'uri: "index" is no request path; begin it with /'),
        ("l7: {http: [{method: 'G T', uri: /}]}", "is no HTTP method"),
        (
            "l7: {protocols: [dns], http: [{uri: /}]}",
            "there are rules for http, and protocols does not list it",
        ),
        ("egres: {}", "Extra inputs are not permitted; known here: fqdns"),
        ("cidr_4: []", "did you mean cidr4?"),
        ("fqdns: example.org", "Input should be a valid array"),
        ("fqdns: [7]", "Input should be a valid string; it is 7"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_its_cure(lines: str, problem: str) -> None:
    told = problems_of(egress(lines))
    assert told.startswith("file:10: spec.processes[0].network.egress")
    assert problem in told


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("actions: []", "spec.actions: List should have at least 1 item"),
        ("actions: [block]", "spec.actions[0]: Input should be"),
        ("actions: [alert]\nscope: Node", "scope Node without services selects nothing"),
        ("actions: [alert]\nservices: [{unit: a.service}]", "are for scope: Node"),
        ("actions: [alert]\nscope: Node\nservices: [{unit: a, executable: /b}]", "exactly one of them"),
        ("actions: [alert]\nexpiresAt: 2030-01-01T00:00:00", "did you mean 2030-01-01T00:00:00Z?"),
        ("actions: [alert]\nexpiresAt: tomorrow", "is no time; write 2030-01-31T12:00:00Z"),
        ("actions: [alert]\nresolvers: [dns.example]", "is not an IP address"),
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
        ("a: !!python/object:os.system x", "not YAML"),
        ("a: [", "not YAML"),
        ("", "there is no profile in it"),
        ("--- 1\n--- 2", "Input should be an object"),
        ("a: .nan", "apiVersion: Field required"),
        ("\0", "not YAML"),
    ],
)
def test_what_yaml_can_do_beyond_data_is_refused(text: str, problem: str) -> None:
    assert problem in problems_of(text)


def test_a_profile_that_selects_nothing_is_refused_and_an_empty_selector_selects_all() -> None:
    text = profile("actions: [alert]").replace(", labels: {app: a}", "")
    assert "it selects no pod" in problems_of(text)
    assert record_of(text + "\n  selector: {}")["pod_selector"] == {
        "match_labels": {},
        "match_expressions": [],
    }


def test_too_many_rules_are_refused_with_both_numbers() -> None:
    names = ", ".join(f"h{number}.example.org" for number in range(MAX_RULES + 1))
    assert f"{MAX_RULES + 3} rules are more than the {MAX_RULES}" in problems_of(egress(f"fqdns: [{names}]"))
    assert f"larger than {MAX_FILE_BYTES}" in problems_of("#" * (MAX_FILE_BYTES + 1))


def test_several_profiles_in_one_file_are_read_and_one_wrong_one_refuses_all() -> None:
    good = profile("actions: [alert]")
    assert len(parse_profiles(f"{good}\n---\n{good}\n---\n")) == 2
    assert "file:14:" in problems_of(f"{good}\n---\n\n\n\n{profile('actions: [x]')}")


def test_the_published_schema_is_the_model_s() -> None:
    published = ROOT / "deploy" / "config" / "security-profile.schema.json"
    assert published.read_text() == json_schema_text()


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


NAMES = st.sampled_from(["a.example", "*.b.example", "*.example", "c.test"])
PORTS = st.integers(0, 65535) | st.tuples(st.integers(0, 300), st.integers(301, 900)).map(
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
