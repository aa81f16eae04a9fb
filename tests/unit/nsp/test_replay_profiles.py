# SPDX-License-Identifier: Apache-2.0
"""Old events held against a profile: as the kernel would have decided, with the place of the rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nsp.replay_profiles import LEARNED_GRACE_S, ProfileTrial, Trial
from schemas.profile.canonical import to_record
from schemas.profile.document import parse_profiles
from stream_apps.assembly import build_programs
from stream_apps.config.document import StreamConfig
from stream_apps.correlate.pods import PodTable
from stream_apps.replay.tally import Tally, Wanted
from tests.support.batches import SECOND, Node, pod_record

if TYPE_CHECKING:
    from stream_apps.replay.tally import Row, StopKey

PROFILE = """
apiVersion: nsp.security/v1alpha1
kind: SecurityProfile
metadata: {name: web, namespace: shop}
spec:
  actions: [enforce]
  selector: {matchLabels: {app: shop}}
  processes:
    - path: /usr/bin/curl
      network:
        egress: {fqdns: [api.example], l4: {protocolPorts: [{protocol: tcp, ports: [443]}]}}
        ingress: {cidr4: [10.0.0.0/8], l4: {protocolPorts: [{protocol: tcp, ports: [8080]}]}}
"""
HOST = """
apiVersion: nsp.security/v1alpha1
kind: SecurityProfile
metadata: {name: base}
spec:
  scope: Node
  actions: [enforce]
  services: [{unit: cron.service}]
  default: {egress: {cidr4: [10.0.0.0/8]}}
"""
NOW = 1_790_000_000_000_000_000
CURL, WGET, SERVER = "/usr/bin/curl", "/usr/bin/wget", "10.96.0.10"


def trial(
    text: str = PROFILE, *, resolvers: tuple[str, ...] = (), wanted: Wanted | None = None, more: str = ""
) -> ProfileTrial:
    pods = PodTable()
    pods.put(pod_record())
    tried = [to_record(each, 5) for each in parse_profiles(text.encode())]
    beside = [to_record(each, 4) for each in parse_profiles(more.encode())] if more else []
    keys = [f"{each['namespace']}/{each['name']}" for each in tried]
    wants = Trial([*tried, *beside], keys, resolvers, now_ns=NOW)
    return ProfileTrial(wants, pods, build_programs(StreamConfig().correlate), Tally(wanted))


def judged(node: Node, through: ProfileTrial | None = None, *, counts: bool = True) -> dict[StopKey, Row]:
    through = through or trial()
    through.batch(node.batch(), counts=counts)
    return through._tally.stops


def words(stops: dict[StopKey, Row]) -> list[tuple[str, str, str]]:
    return [(key.outcome, key.process, key.what) for key in stops]


def test_what_no_rule_allows_is_refused_with_the_place_of_the_rule() -> None:
    node = Node()
    node.connect(node.service(CURL), "203.0.113.9", 443)
    ((key, row),) = judged(node).items()
    assert (key.outcome, key.workload, key.process) == ("refused", "shop/Deployment/shop", CURL)
    assert key.what == "203.0.113.9:443/tcp"
    assert key.reason == "no rule allows its address"
    assert key.place == f"shop/web spec.processes[{CURL}].network: egress.fqdns and egress.cidr4"
    assert (row.count, row.examples[0]["node"]) == (1, "worker-1")


def test_a_name_stands_for_what_it_was_answered_with_and_no_longer_than_in_the_kernel() -> None:
    node, through = Node(), trial()
    curl = node.service(CURL)
    node.answer(curl, "api.example", ["203.0.113.9"], ttl_s=60)
    node.connect(curl, "203.0.113.9", 443)
    assert judged(node, through) == {}
    node.now_ns += (60 + LEARNED_GRACE_S + 1) * SECOND
    node.connect(curl, "203.0.113.9", 443)
    assert words(judged(node, through)) == [("refused", CURL, "203.0.113.9:443/tcp")]


def test_an_answer_of_another_server_than_the_nodes_teaches_nothing() -> None:
    node, through = Node(), trial(resolvers=(SERVER,))
    curl = node.service(CURL)
    node.answer(curl, "api.example", ["203.0.113.9"], server_address="198.51.100.53")
    node.connect(curl, "203.0.113.9", 443)
    assert len(judged(node, through)) == 1
    node.answer(curl, "api.example", ["203.0.113.7"], server_address=SERVER)
    node.connect(curl, "203.0.113.7", 443)
    assert len(judged(node, through)) == 1


def test_questions_ports_and_who_comes_in_are_judged() -> None:
    node, through = Node(), trial()
    curl = node.service(CURL)
    node.ask(curl, "api.example")
    node.ask(curl, "evil.example")
    node.listen(curl, 8080)
    node.listen(curl, 9000)
    for address in ("10.1.1.1", "203.0.113.9"):
        node.add(
            "SocketAccept", curl, cookie=1, local_address="10.1.2.3", local_port=8080, remote_address=address,
            remote_port=50000,
        )  # fmt: skip
    assert {key.what for key in judged(node, through)} == {
        f"question for evil.example to {SERVER}",
        "listen on tcp 9000",
        "from 203.0.113.9 to tcp 8080 here",
    }


def test_a_program_without_rules_may_do_nothing() -> None:
    node = Node()
    node.connect(node.service(WGET), "10.2.0.9", 443)
    ((key, _),) = judged(node).items()
    assert key.place == f"shop/web spec.processes[{WGET}].network: egress.fqdns and egress.cidr4"


def test_only_workloads_that_a_tried_profile_selects_are_judged() -> None:
    node = Node(
        workloads=[
            Node().workloads[0],
            {**Node().workloads[1], "id": "x", "pod_uid": "x", "container_id": "x"},
        ]
    )
    node.connect(node.service(CURL), "203.0.113.9", 443)
    assert judged(node) == {}
    node = Node()
    node.connect(node.service(CURL), "203.0.113.9", 443)
    assert judged(node, trial(wanted=Wanted(namespaces=("bank",)))) == {}


@pytest.mark.parametrize(
    ("change", "outcome"), [("dryRun: true", "alerted"), ("expiresAt: 2026-01-01T00:00:00Z", "")]
)
def test_a_dry_run_would_only_tell_and_a_profile_that_is_over_does_not_count(
    change: str, outcome: str
) -> None:
    node = Node()
    node.connect(node.service(CURL), "203.0.113.9", 443)
    stops = judged(node, trial(PROFILE.replace("actions: [enforce]", f"actions: [enforce]\n  {change}")))
    assert [key.outcome for key in stops] == ([outcome] if outcome else [])


def test_a_profile_in_force_beside_it_may_allow_what_it_does_not() -> None:
    node = Node()
    node.connect(node.service(CURL), "203.0.113.9", 443)
    beside = PROFILE.replace("name: web", "name: other").replace(
        "fqdns: [api.example]", "cidr4: [203.0.113.0/24]"
    )
    assert judged(node, trial(more=beside)) == {}


def test_services_of_the_host_are_judged_by_profiles_of_scope_node() -> None:
    host = Node().workloads[0]
    unit = {
        **host, "id": "host/worker-1/cron.service", "kind": "HOST_SERVICE", "unit": "cron.service",
        "cgroup_path": "/system.slice/cron.service",
    }  # fmt: skip
    node = Node(workloads=[host, unit])
    node.connect(node.service("/usr/sbin/cron"), "203.0.113.9", 25)
    node.connect(node.service("/usr/sbin/cron"), "10.3.0.1", 25)
    assert words(judged(node, trial(HOST))) == [("refused", "/usr/sbin/cron", "203.0.113.9:25/tcp")]


def test_a_refused_attempt_is_judged_and_one_only_alerted_on_counts_once() -> None:
    node = Node()
    curl = node.service(CURL)
    node.refuse(curl, "203.0.113.9", 443, reason="ADDRESS", generation=3)
    node.refuse(curl, "203.0.113.8", 443, reason="ADDRESS", generation=3, alerted_only=True)
    node.connect(curl, "203.0.113.8", 443)
    node.refuse(curl, "203.0.113.7", 443, reason="QUARANTINED_PROCESS")
    stops = judged(node)
    assert {key.what: row.count for key, row in stops.items()} == {
        "203.0.113.9:443/tcp": 1,
        "203.0.113.8:443/tcp": 1,
    }


def test_what_is_only_remembered_teaches_names_and_counts_nothing() -> None:
    node, through = Node(), trial()
    curl = node.service(CURL)
    node.answer(curl, "api.example", ["203.0.113.9"])
    node.connect(curl, "198.51.100.1", 443)
    assert judged(node, through, counts=False) == {}
    node.connect(curl, "203.0.113.9", 443)
    assert judged(node, through) == {}


def test_a_batch_read_twice_counts_once() -> None:
    node, through = Node(), trial()
    node.connect(node.service(CURL), "203.0.113.9", 443)
    batch: dict[str, Any] = node.batch()
    through.batch(batch, counts=True)
    through.batch(batch, counts=True)
    assert [row.count for row in through._tally.stops.values()] == [1]
