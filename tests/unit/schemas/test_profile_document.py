# SPDX-License-Identifier: Apache-2.0
"""SecurityProfiles as people write them: what is read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from schemas.codec import decode_as, encode
from schemas.profile import reading
from schemas.profile.canonical import to_document
from schemas.profile.document import json_schema_text, parse_profiles
from schemas.profile.errors import MAX_PROBLEMS, ProfileError
from schemas.profile.model import MAX_RULES
from schemas.profile.reading import MAX_DOCUMENTS, MAX_FILE_BYTES, MAX_KEYS
from sensor.policy.profile import compile_profile
from tests.support.profile_texts import HEAD, egress, problems_of, profile, record_of

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples" / "profiles").glob("*.yaml"))


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


def test_the_2020_probe_s_protocols_are_known_by_name() -> None:
    names = [
        "ip",
        "ipip",
        "egp",
        "igp",
        "pup",
        "idp",
        "tp",
        "dccp",
        "ipv6",
        "rsvp",
        "mtp",
        "beetph",
        "encap",
        "pim",
    ]
    record = record_of(egress(f"l4: {{protocols: [{', '.join([*names, 'comp', 'mpls', 'raw'])}]}}"))
    numbers = [0, 4, 8, 9, 12, 22, 29, 33, 41, 46, 92, 94, 98, 103, 108, 137, 255]
    assert record["processes"][0]["network"]["egress"]["l4"]["protocols"] == numbers
    assert record_of(yaml.safe_dump(to_document(record))) == record


def test_its_api_version_is_refused_with_the_cure() -> None:
    text = profile("actions: [alert]").replace("nsp.security/v1alpha1", "securityprobe.datadoghq.com/v1")
    assert "apply as they are with apiVersion: nsp.security/v1alpha1" in problems_of(text)


def test_a_profile_that_selects_nothing_is_refused_and_an_empty_selector_selects_all() -> None:
    text = profile("actions: [alert]").replace(", labels: {app: a}", "")
    assert "it selects no pod" in problems_of(text)
    assert record_of(text + "\n  selector: {}")["pod_selector"] == {
        "match_labels": {},
        "match_expressions": [],
    }


def test_too_much_is_refused_before_anything_is_made_of_it() -> None:
    names = ", ".join(f"h{number}.example.org" for number in range(MAX_RULES + 1))
    assert f"more than the {MAX_RULES} rules" in problems_of(egress(f"fqdns: [{names}]"))
    assert f"more than the {MAX_RULES} rules" in problems_of("[" + "[]," * (MAX_RULES + 1) + "]")
    keys = ", ".join(f"k{number}: a" for number in range(MAX_KEYS + 1))
    assert f"more than {MAX_KEYS} keys" in problems_of(egress(f"l3: {{{keys}}}"))
    assert f"larger than {MAX_FILE_BYTES}" in problems_of("#" * (MAX_FILE_BYTES + 1))
    assert f"more than {MAX_DOCUMENTS} documents" in problems_of("---\n" * (MAX_DOCUMENTS + 1))


def test_twenty_thousand_mistakes_are_counted_and_not_all_put_into_words() -> None:
    names = "{a: 1}," * 20_000
    with pytest.raises(ProfileError) as refused:
        parse_profiles(egress(f"fqdns: [{names}]"))
    assert (len(refused.value.problems), refused.value.more) == (MAX_PROBLEMS, 20_000 - MAX_PROBLEMS)
    assert str(refused.value).endswith(f"and {20_000 - MAX_PROBLEMS} more problems")


def test_the_longest_path_here_is_the_longest_the_sensor_takes() -> None:
    record = record_of(profile(f"actions: [alert]\nprocesses: [{{path: /{'a' * 254}, network: {{}}}}]"))
    assert compile_profile(record).programs


def test_keys_are_what_is_written() -> None:
    text = HEAD.replace("labels: {app: a}", "labels: {on: 'a', 010: b, ~: c}") + "spec: {actions: [alert]}"
    assert record_of(text)["pod_selector"]["match_labels"] == {"010": "b", "on": "a", "~": "c"}


def test_a_field_of_metadata_that_is_misspelt_is_told_and_those_of_kubernetes_are_not() -> None:
    text = profile("actions: [alert]")
    wrong = problems_of(text.replace("name: test", "name: test, namepsace: shop"))
    assert "metadata.namepsace: no such field; did you mean namespace?" in wrong
    uid = text.replace("name: test", "name: test, uid: x, creationTimestamp: null, managedFields: [{a: {}}]")
    assert record_of(uid) == record_of(text)


def test_a_label_s_key_is_quoted_in_its_place() -> None:
    text = profile("actions: [alert]\nselector: {matchLabels: {app.kubernetes.io/name: 1, int: 2}}")
    assert 'spec.selector.matchLabels["app.kubernetes.io/name"]: Input' in problems_of(text)
    assert "spec.selector.matchLabels.int: Input" in problems_of(text)


def test_pods_of_a_namespace_cannot_take_the_place_of_a_node_s_profile() -> None:
    text = profile("actions: [alert]").replace("name: test", "name: ssh, namespace: host")
    assert "profiles of nodes are kept as host/NAME" in problems_of(text)


def test_services_and_resolvers_are_canonical() -> None:
    services = "services: [{unit: b.service}, {cgroupPath: /a.slice}, {unit: b.service}]"
    record = record_of(
        profile(f"actions: [alert]\nscope: Node\n{services}\nresolvers: ['::ffff:10.0.0.1', 10.0.0.1]")
    )
    assert [each["unit"] for each in record["services"]] == ["b.service", ""]
    assert record["resolvers"] == ["10.0.0.1"]


@pytest.mark.parametrize(("given", "shown"), [("24h", "1d"), ("90m", "90m"), ("3600s", "1h"), ("7d", "7d")])
def test_a_canary_s_time_is_read_and_written_in_whole_units(given: str, shown: str) -> None:
    record = record_of(profile(f"actions: [enforce]\ncanaryFor: {given}"))
    document = to_document(record)
    assert document["spec"]["canaryFor"] == shown
    assert record_of(yaml.safe_dump(document))["canary_for_ns"] == record["canary_for_ns"] > 0


def test_a_list_as_kubectl_prints_it_is_read_item_by_item() -> None:
    items = [yaml.safe_load(profile("actions: [alert]")) for _ in range(3)]
    listed = {"apiVersion": "v1", "kind": "List", "items": items}
    assert len(parse_profiles(json.dumps(listed))) == len(items)
    items[2]["spec"]["actions"] = ["block"]
    told = problems_of(yaml.safe_dump(listed, sort_keys=False))
    assert "file:30: items[2].spec.actions[0]: Input should be" in told
    assert "items: no such field" in problems_of("kind: Profiles\nitems: []")


def test_several_profiles_in_one_file_are_read_and_one_wrong_one_refuses_all() -> None:
    good = profile("actions: [alert]")
    assert len(parse_profiles(f"{good}\n---\n{good}\n---\n")) == 2
    assert "file:14:" in problems_of(f"{good}\n---\n\n\n\n{profile('actions: [x]')}")


def test_the_published_schema_is_the_model_s() -> None:
    published = ROOT / "deploy" / "config" / "security-profile.schema.json"
    assert published.read_text() == json_schema_text()


def test_rules_are_counted_for_each_item_of_a_list_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_RULES", 10)
    item = yaml.safe_load(egress("fqdns: [a.org, b.org, c.org, d.org]"))
    assert len(parse_profiles(json.dumps({"kind": "List", "items": [item] * 5}))) == 5
    item = yaml.safe_load(egress(f"fqdns: [{'a.org, ' * 10}]"))
    assert "more than the 10 rules" in problems_of(json.dumps({"kind": "List", "items": [item]}))


@pytest.mark.parametrize(
    "text", ["2030-01-01T00:00:00Z", "2030-01-01t01:00:00.9+01:00", "2029-12-31 23:00:00-01:00"]
)
def test_an_end_is_a_moment_and_is_written_again(text: str) -> None:
    record = record_of(profile(f"actions: [alert]\nexpiresAt: {text}"))
    assert record["expires_at_ns"] == 1_893_456_000 * 10**9
    assert record_of(yaml.safe_dump(to_document(record))) == record
