# SPDX-License-Identifier: Apache-2.0
"""Pods and names: what an alert is joined with."""

from __future__ import annotations

from typing import Any

import pytest

from stream_apps.correlate.names import NameLimits, NameTable
from stream_apps.correlate.pods import PodTable
from tests.support.batches import CONTAINER_ID, HOST, POD, POD_UID, SECOND, pod_record


def answer(
    name: str, *addresses: str, ttl_s: int = 30, rcode: int = 0, server: str = "10.96.0.10"
) -> dict[str, Any]:
    records = [{"type": 5, "ttl_s": 5, "data": "alias.example"}]
    records += [{"type": 28 if ":" in each else 1, "ttl_s": ttl_s, "data": each} for each in addresses]
    return {"name": name, "rcode": rcode, "server_address": server, "records": records}


class TestPods:
    def test_a_workload_is_joined_by_uid_with_its_container(self) -> None:
        pods = PodTable()
        pods.put(pod_record())
        joined = pods.describe(POD)
        assert (joined["namespace"], joined["pod"], joined["owner"]) == (
            "shop",
            "shop-6c9f7d5b8-x2v5q",
            "Deployment/shop",
        )
        assert (joined["container"], joined["image"]) == ("shop", "registry.example/shop:1.4.2")
        assert joined["labels"] == {"app": "shop"}

    def test_a_static_pod_is_found_by_its_container(self) -> None:
        pods = PodTable()
        pods.put(pod_record(uid="another-uid"))
        assert pods.describe(POD)["pod_uid"] == "another-uid"

    def test_an_unknown_workload_keeps_what_its_cgroup_says(self) -> None:
        joined = PodTable().describe(POD)
        assert (joined["id"], joined["pod_uid"], joined["container_id"]) == (POD_UID, POD_UID, CONTAINER_ID)
        assert joined["namespace"] is None
        assert PodTable().describe(HOST)["kind"] == "HOST"

    def test_an_update_replaces_addresses_and_containers(self) -> None:
        pods = PodTable()
        pods.put(pod_record())
        pods.put(pod_record(ips=["10.1.2.4"], containers=[]))
        assert len(pods) == 1
        assert pods.at("10.1.2.3") is None
        assert pods.of_workload({**POD, "pod_uid": ""}) is None
        assert pods.at("10.1.2.4") is pods.by_uid(POD_UID)

    def test_an_address_shared_by_pods_names_none_of_them(self) -> None:
        pods = PodTable()
        pods.put(pod_record())
        pods.put(pod_record(uid="other", containers=[]))
        assert pods.at("10.1.2.3") is None
        pods.remove("other")
        assert pods.at("10.1.2.3") is pods.by_uid(POD_UID)

    def test_a_pod_that_is_gone_is_forgotten_everywhere(self) -> None:
        pods = PodTable()
        pods.put(pod_record())
        pods.remove(POD_UID)
        pods.remove("never there")
        assert (len(pods), pods.at("10.1.2.3"), pods.of_workload(POD)) == (0, None, None)

    def test_a_full_table_refuses_and_counts(self) -> None:
        pods = PodTable(max_pods=1)
        pods.put(pod_record())
        pods.put(pod_record(uid="second"))
        pods.put(pod_record(name="renamed"))
        known = pods.by_uid(POD_UID)
        assert (len(pods), pods.refused, known and known.name) == (1, 1, "renamed")


class TestNames:
    def test_an_address_has_the_name_that_was_asked_not_the_alias(self) -> None:
        names = NameTable(NameLimits())
        names.learn("w", answer("shop.example", "192.0.2.1", "2001:db8::1"), 0)
        for address in ("192.0.2.1", "2001:db8::1"):
            found = names.name_of("w", address, 1)
            assert found is not None
            assert found.name == "shop.example"

    def test_another_workload_did_not_ask(self) -> None:
        names = NameTable(NameLimits())
        names.learn("w", answer("shop.example", "192.0.2.1"), 0)
        assert names.name_of("other", "192.0.2.1", 1) is None

    @pytest.mark.parametrize(("after_s", "known"), [(39, True), (41, False)])
    def test_a_name_ends_after_its_ttl_and_the_grace(self, after_s: int, known: bool) -> None:
        names = NameTable(NameLimits(grace_s=10))
        names.learn("w", answer("shop.example", "192.0.2.1", ttl_s=30), 0)
        assert (names.name_of("w", "192.0.2.1", after_s * SECOND) is not None) is known

    def test_a_lying_ttl_is_cut(self) -> None:
        names = NameTable(NameLimits(grace_s=0))
        names.learn("w", answer("shop.example", "192.0.2.1", ttl_s=2**31), 0)
        assert names.name_of("w", "192.0.2.1", 86_401 * SECOND) is None

    def test_a_refused_question_teaches_nothing(self) -> None:
        names = NameTable(NameLimits())
        names.learn("w", answer("shop.example", "192.0.2.1", rcode=3), 0)
        assert len(names) == 0

    def test_bounds_forget_the_oldest_and_count(self) -> None:
        names = NameTable(NameLimits(workloads=2, addresses=2))
        for number in range(3):
            names.learn("a", answer("n", f"192.0.2.{number}"), 0)
        assert (names.evicted_addresses, names.name_of("a", "192.0.2.0", 1)) == (1, None)
        names.learn("b", answer("n", "192.0.2.1"), 0)
        names.learn("a", answer("n", "192.0.2.9"), 0)
        names.learn("c", answer("n", "192.0.2.1"), 0)
        assert names.evicted_workloads == 1
        assert names.name_of("b", "192.0.2.1", 1) is None
        assert names.name_of("a", "192.0.2.9", 1) is not None

    def test_only_configured_resolvers_are_trusted(self) -> None:
        names = NameTable(NameLimits(), ["10.96.0.0/16", "2001:db8:53::/64"])
        names.learn("w", answer("good", "192.0.2.1"), 0)
        names.learn("w", answer("evil", "192.0.2.2", server="203.0.113.9"), 0)
        trusted = [names.name_of("w", each, 1) for each in ("192.0.2.1", "192.0.2.2")]
        assert [each and each.trusted for each in trusted] == [True, False]
        assert names.is_trusted("2001:db8:53::1")
        assert not names.is_trusted("not an address")
