# SPDX-License-Identifier: Apache-2.0
"""A profile from ``nsp apply`` to the kernel and back, with real clients in its pod."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.errors import DemoError
from demo.scene import ADDRESSES
from tests.support.profile_loop import (
    ALLOWED,
    ALLOWED_ADDRESS,
    CURL_NO_CONNECTION,
    CURL_NO_SUCH_NAME,
    KEY,
    OTHER,
    OTHER_ADDRESS,
    PORT,
    RESOLVE_AND_CONNECT,
    profile,
    profile_loop,
)

if TYPE_CHECKING:
    from tests.support.kafka_broker import KafkaBroker

ATTEMPTS = 300
RULE = "nsp.profile-violation"


def test_a_profile_lets_pass_what_it_names_and_nothing_else(fresh_kafka: KafkaBroker, tmp_path: Path) -> None:
    with profile_loop(fresh_kafka, tmp_path / "logs") as loop:
        said = loop.apply(profile())
        generation = loop.published_generation()
        assert f"generation {generation}, 1 workloads" in said
        assert loop.statuses("APPLIED")[-1]["profile_generation"] == generation

        reached = loop.python(RESOLVE_AND_CONNECT, ALLOWED, str(PORT), str(ATTEMPTS))
        assert reached == {"failed": []}
        assert loop.curl(f"http://{ALLOWED}:{PORT}/") == 0
        assert loop.curl(f"http://{OTHER}:{PORT}/") == CURL_NO_SUCH_NAME
        assert loop.curl(f"http://{OTHER_ADDRESS}:{PORT}/") == CURL_NO_CONNECTION
        assert loop.dial(OTHER_ADDRESS) == errno.EPERM

        assert loop.sensor_metric("nsp_policy_refused_calls_total") >= 2
        assert loop.sensor_metric("nsp_policy_reason_address_total") >= 2

        loop.scene.wait("the alerts", lambda: len(loop.observer.alerts(RULE)) >= 2)
        alerts = loop.observer.alerts(RULE)
        uid = loop.scene.pods["client"].uid
        assert {each["workload"]["id"] for each in alerts} == {uid}
        assert all(KEY in each["description"] for each in alerts)
        assert OTHER in {each["dns_name"] for each in alerts}
        assert OTHER_ADDRESS in {each["remote_address"] for each in alerts}


def test_an_update_cuts_open_flows_and_a_deletion_frees(fresh_kafka: KafkaBroker, tmp_path: Path) -> None:
    with profile_loop(fresh_kafka, tmp_path / "logs") as loop:
        loop.apply(profile())
        assert loop.curl(f"http://{ALLOWED}:{PORT}/") == 0
        assert loop.python(RESOLVE_AND_CONNECT, ALLOWED, str(PORT), "1") == {"failed": []}
        flow = loop.open_flow()
        assert flow.has("passed")
        other = {"fqdns": [OTHER], "l4": {"protocolPorts": [{"protocol": "tcp", "ports": [PORT]}]}}
        programs = [{**each, "network": {"egress": other}} for each in profile()["spec"]["processes"]]
        loop.apply(profile(processes=programs))
        loop.scene.wait("the open flow to be cut", lambda: flow.has("broke"))
        assert loop.dial(ALLOWED_ADDRESS) == errno.EPERM
        assert loop.curl(f"http://{OTHER}:{PORT}/") == 0
        assert "ended" in loop.delete()
        assert loop.dial(ALLOWED_ADDRESS) == 0
        assert loop.curl(f"http://{OTHER}:{PORT}/") == 0


def test_of_two_profiles_what_one_allows_passes_and_the_strictest_mode_holds(
    fresh_kafka: KafkaBroker, tmp_path: Path
) -> None:
    with profile_loop(fresh_kafka, tmp_path / "logs") as loop:
        loop.apply(profile())
        everywhere = {"egress": {"cidr4": [f"{OTHER_ADDRESS}/32"]}}
        second = profile(selector={}, actions=["alert"], processes=[], default=everywhere)
        second["metadata"]["name"] = "second"
        loop.apply(second)
        assert loop.dial(OTHER_ADDRESS) == 0
        assert loop.curl(f"http://{ALLOWED}:{PORT}/") == 0
        assert loop.dial(ADDRESSES["dns"]) == errno.EPERM


def test_a_profile_that_would_cut_the_sensor_is_refused_and_the_one_in_force_stays(
    fresh_kafka: KafkaBroker, tmp_path: Path
) -> None:
    services = [{"executable": str(Path(sys.executable).resolve())}]
    with profile_loop(fresh_kafka, tmp_path / "logs") as loop:
        document = profile(scope="Node", services=services, dryRun=True, processes=[])
        del document["spec"]["selector"], document["metadata"]["namespace"]
        document["metadata"]["name"] = "host"
        loop.apply(document)
        document["spec"]["dryRun"] = False
        with pytest.raises(DemoError, match="not every node has it in force"):
            loop.apply(document)
        outcomes = [
            (each["outcome"], each["profile_generation"], each["reason"])
            for each in loop.observer.read().statuses
            if each["subject"] == "profile/host/host"
        ]
        (applied, first, _), (refused, second, reason) = outcomes
        assert (applied, refused) == ("APPLIED", "REFUSED")
        assert second > first
        assert "would cut the sensor's own connection to Kafka" in reason
