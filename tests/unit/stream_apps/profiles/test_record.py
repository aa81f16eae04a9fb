# SPDX-License-Identifier: Apache-2.0
"""What no stream app takes for a profile, whoever published it."""

from __future__ import annotations

from typing import Any

import pytest

from stream_apps.profiles.record import problem
from tests.support.profiles import TCP, network, process, profile, rules, service


def default(**changed: Any) -> dict[str, Any]:
    return profile(default=network({**rules(), **changed}))


def test_a_canonical_profile_has_no_problem() -> None:
    full = rules("10.0.0.0/8", "2001:db8::/32", names=("*.example.com",), ports=((TCP, 80, 90),))
    record = profile(
        default=network(full), processes=[process("/usr/bin/curl")], resolvers=["10.0.0.2", "fd00::53"]
    )
    assert problem("default/web", record) is None
    node = profile(scope="NODE", namespace="host", services=[service("nginx.service")])
    assert problem("host/web", node) is None


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (profile(name="other"), "key"),
        (profile(generation=0), "generation"),
        (profile(expires_at_ns=-1), "expires_at_ns"),
        (profile(services=[service("x.service")]), "POD selects no services"),
        (profile(scope="NODE"), "namespace host"),
        (profile(resolvers=["dns.example"]), "dns.example"),
        (profile(processes=[process("curl")]), "absolute"),
        (default(cidrs=["10.0.0.1/8"]), "10.0.0.1/8"),
        (default(names=["Example.com"]), "Example.com"),
        (default(l4={"protocols": [], "ports": [{"protocol": 6, "first": 9, "last": 8}]}), "6:9-8"),
    ],
)
def test_what_is_wrong_is_said(record: dict[str, Any], says: str) -> None:
    found = problem("default/web", record)
    assert found is not None
    assert says in found


@pytest.mark.parametrize("given", [[], [service()], [service("x.service", "/x")]])
def test_a_profile_of_nodes_selects_services_each_by_one_thing(given: list[dict[str, str]]) -> None:
    assert problem("host/web", profile(scope="NODE", namespace="host", services=given)) is not None


@pytest.mark.parametrize("name", ["Web", "a/b", "", "-a", "a b"])
def test_a_name_that_is_no_subject_is_refused(name: str) -> None:
    assert problem(f"default/{name}", profile(name=name)) is not None


def test_a_profile_of_pods_does_not_take_the_place_of_a_node_s() -> None:
    assert (
        problem("host/ssh", profile("ssh", namespace="host"))
        == "a profile of scope POD is not in namespace host"
    )
