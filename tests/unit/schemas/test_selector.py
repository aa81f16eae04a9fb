# SPDX-License-Identifier: Apache-2.0
"""Label selectors mean what they mean in Kubernetes."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.profile.selector import selects, selects_node, selects_pod
from tests.support.profiles import profile

LABELS = {"app": "web", "tier": "front"}


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"match_labels": {}, "match_expressions": [{"key": key, "operator": operator, "values": values}]}


@pytest.mark.parametrize(
    ("selector", "holds"),
    [
        ({"match_labels": {}, "match_expressions": []}, True),
        ({"match_labels": {"app": "web"}, "match_expressions": []}, True),
        ({"match_labels": {"app": "web", "tier": "back"}, "match_expressions": []}, False),
        ({"match_labels": {"other": "x"}, "match_expressions": []}, False),
        (expression("app", "IN", "web", "api"), True),
        (expression("app", "IN", "api"), False),
        (expression("other", "IN", "x"), False),
        (expression("app", "NOT_IN", "web"), False),
        (expression("app", "NOT_IN", "api"), True),
        (expression("other", "NOT_IN", "x"), True),
        (expression("app", "EXISTS"), True),
        (expression("other", "EXISTS"), False),
        (expression("app", "DOES_NOT_EXIST"), False),
        (expression("other", "DOES_NOT_EXIST"), True),
    ],
)
def test_all_of_a_selector_must_hold(selector: dict[str, Any], holds: bool) -> None:
    assert selects(selector, LABELS) == holds


def test_an_operator_nobody_knows_is_an_error_and_not_a_match() -> None:
    with pytest.raises(ValueError, match="LIKE"):
        selects(expression("app", "LIKE", "web"), LABELS)


def test_a_profile_selects_pods_of_its_namespace_and_nodes_only_with_that_scope() -> None:
    pod, node = profile(), profile(scope="NODE", namespace="host")
    assert selects_pod(pod, "default", LABELS)
    assert not selects_pod(pod, "other", LABELS)
    assert not selects_pod(node, "host", LABELS)
    assert selects_node(node, LABELS)
    assert not selects_node(pod, LABELS)
