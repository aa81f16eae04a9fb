# SPDX-License-Identifier: Apache-2.0
"""Orders about profiles: what is desired of one profile on this node, and which pods the node has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from schemas.errors import SubjectError
from schemas.subject import NodeSubject, ProfileSubject, parse_profile_subject
from sensor.enforce.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

# Above what a kubelet runs (110 pods unless told otherwise, 250 on the largest nodes) many times over.
MAX_WORKLOADS: Final = 4096


@dataclass(frozen=True, slots=True)
class ProfileOrder:
    """One verified ProfileOrder.

    Attributes:
        subject: Which profile.
        generation: Of the order.
        issued_at_ns: Wall time.
        profile: SecurityProfile as the codec gives it; None: it is to go.
        workloads: Pods on this node that it selects.
    """

    subject: ProfileSubject
    generation: int
    issued_at_ns: int
    profile: Mapping[str, Any] | None
    workloads: frozenset[str]


@dataclass(frozen=True, slots=True)
class WorkloadsOrder:
    """One verified NodeWorkloads."""

    subject: NodeSubject
    generation: int
    workloads: frozenset[str]


def profile_order_from(record: Mapping[str, Any]) -> ProfileOrder:
    """Make an order of a decoded ProfileOrder.

    Raises:
        Refused: ``malformed``.
    """
    text, generation = record["subject"], record["generation"]
    try:
        subject = parse_profile_subject(text)
    except SubjectError as error:
        raise Refused("malformed", str(error), text, generation) from error
    profile = record["profile"]
    _check_common(record)
    if record["removed"] != (profile is None):
        raise Refused("malformed", "a profile is either given or removed", text, generation)
    if profile is not None and (profile["namespace"], profile["name"]) != (subject.namespace, subject.name):
        raise Refused("malformed", "the order names one profile and carries another", text, generation)
    workloads = frozenset(record["workloads"])
    return ProfileOrder(subject, generation, record["issued_at_ns"], profile, workloads)


def workloads_order_from(record: Mapping[str, Any]) -> WorkloadsOrder:
    """Make an order of a decoded NodeWorkloads.

    Raises:
        Refused: ``malformed``.
    """
    _check_common(record)
    subject = NodeSubject(record["node"])
    if record["subject"] != str(subject):
        raise Refused("malformed", f"the subject is not {subject}", record["subject"], record["generation"])
    return WorkloadsOrder(subject, record["generation"], frozenset(record["workloads"]))


def _check_common(record: Mapping[str, Any]) -> None:
    text, generation = record["subject"], record["generation"]
    if generation < 1:
        raise Refused("malformed", "a generation is above zero", text, generation)
    if len(record["workloads"]) > MAX_WORKLOADS:
        raise Refused("malformed", f"more than {MAX_WORKLOADS} workloads", text, generation)
