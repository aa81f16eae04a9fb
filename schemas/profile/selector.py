# SPDX-License-Identifier: Apache-2.0
"""Label selectors as Kubernetes means them, over ``LabelSelector`` records. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether all of a selector holds for some labels; an empty one selects everything."""
    exact = all(labels.get(label) == value for label, value in selector["match_labels"].items())
    return exact and all(_holds(each, labels) for each in selector["match_expressions"])


def _holds(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    label, values = requirement["key"], requirement["values"]
    match requirement["operator"]:
        case "IN":
            return label in labels and labels[label] in values
        case "NOT_IN":
            # As in Kubernetes: what has no such label is not in the list either.
            return label not in labels or labels[label] not in values
        case "EXISTS":
            return label in labels
        case "DOES_NOT_EXIST":
            return label not in labels
        case operator:
            raise ValueError(f"no selector operator is called {operator!r}")


def selects_pod(profile: Mapping[str, Any], namespace: str, labels: Mapping[str, str]) -> bool:
    """Whether a ``SecurityProfile`` selects a pod."""
    return (
        profile["scope"] == "POD"
        and profile["namespace"] == namespace
        and selects(profile["pod_selector"], labels)
    )


def selects_node(profile: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a ``SecurityProfile`` is for services of a node."""
    return profile["scope"] == "NODE" and selects(profile["node_selector"], labels)
