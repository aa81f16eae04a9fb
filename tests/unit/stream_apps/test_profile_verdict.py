# SPDX-License-Identifier: Apache-2.0
"""An alert of a dry run says what is in force and what is pending, and where the rule would have to be."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.codec import decode_as, encode
from stream_apps.correlate.pods import PodTable
from stream_apps.pipeline import Pipeline
from stream_apps.profiles.desk import ProfileDesk
from tests.support.batches import Node, pod_record
from tests.support.profiles import profile
from tests.support.stream import config, run

CURL = "/usr/bin/curl"
_RULES = {"raw_sockets": False, "egress": None, "ingress": None}
OWN = [{"path": CURL, "script": "", "mode": None, "network": _RULES}]


def alert_of(record: dict[str, Any] | None, **refusal: Any) -> dict[str, Any]:
    pods, desk = PodTable(), ProfileDesk()
    pods.put(pod_record())
    if record:
        desk.profile("shop/web", record, 100)
    node = Node()
    curl = node.service(CURL, serving=False)
    node.refuse(curl, "203.0.113.5", 443, **{"reason": "ADDRESS", "generation": 7, **refusal})
    (alert,) = run(node, Pipeline(config(), pods, desk)).alerts
    found: dict[str, Any] = decode_as("Alert", encode("Alert", alert))
    return found


def web(**fields: Any) -> dict[str, Any]:
    return profile("web", namespace="shop", **{"generation": 7, "mode": "ENFORCE", **fields})


@pytest.mark.parametrize("more", [{"dry_run": True}, {"canary_for_ns": 10**15}])
def test_a_dry_run_and_a_canary_have_a_verdict_in_force_and_a_pending_one(more: dict[str, Any]) -> None:
    alert = alert_of(web(processes=OWN, **more), alerted_only=True)
    assert alert["verdict"] == {
        "in_force": "allowed",
        "pending": "refused",
        "profile": "shop/web",
        "generation": 7,
        "reason": "ADDRESS",
        "place": f"spec.processes[{CURL}].network.egress.fqdns, cidr4 and cidr6",
    }
    said = f"(in force: allowed; pending: would be denied by rule {alert['verdict']['place']})"
    assert said in alert["description"]


def test_an_enforced_profile_has_only_the_verdict_in_force() -> None:
    alert = alert_of(web(), alerted_only=False)
    assert (alert["verdict"]["in_force"], alert["verdict"]["pending"]) == ("refused", "")
    assert "pending" not in alert["description"]
    assert alert["verdict"]["place"] == "spec.default.network.egress.fqdns, cidr4 and cidr6"


def test_a_profile_that_only_alerts_will_never_refuse() -> None:
    verdict = alert_of(web(mode="ALERT"), alerted_only=True)["verdict"]
    assert (verdict["in_force"], verdict["pending"]) == ("allowed", "")


def test_a_profile_nobody_knows_any_more_has_no_place() -> None:
    verdict = alert_of(None, alerted_only=True)["verdict"]
    assert (verdict["profile"], verdict["place"], verdict["pending"]) == ("", "", "")


@pytest.mark.parametrize(
    ("refusal", "place"),
    [
        ({"hook": "PACKET_IN", "reason": "L4_PROTOCOL"}, "ingress.l4"),
        ({"hook": "BIND", "reason": "L4_PROTOCOL"}, "ingress.l4"),
        ({"hook": "RAW_SOCKET", "reason": "RAW_SOCKET"}, "rawSockets"),
        ({"hook": "PACKET_OUT", "reason": "L3_PROTOCOL"}, "egress.l3.protocols"),
    ],
)
def test_the_place_is_that_of_the_layer_and_the_way(refusal: dict[str, Any], place: str) -> None:
    assert (
        alert_of(web(), alerted_only=True, **refusal)["verdict"]["place"] == f"spec.default.network.{place}"
    )
