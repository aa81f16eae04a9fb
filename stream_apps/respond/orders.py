# SPDX-License-Identifier: Apache-2.0
"""A person's orders: cut this, or let it go. For the command line.

Output: ``Enforcement`` records with an empty alert id, by which sensors and rules know a person's order.
While it lasts, rules leave its subject alone; so a release holds against the rule that cut.
"""

from __future__ import annotations

from typing import Any, Final

from schemas.errors import SubjectError
from schemas.subject import parse_subject
from stream_apps.errors import OrderError

_NS_PER_S: Final = 1_000_000_000
# How long a release holds against the rules, unless told otherwise.
RELEASE_HOLDS_S: Final = 3600
# Nothing is cut for ever.
LONGEST_ORDER_S: Final = 30 * 24 * 3600


def quarantine_order(node: str, subject: str, now_ns: int, ttl_s: int, reason: str) -> dict[str, Any]:
    """Order a process tree or a workload off the network.

    Args:
        node: Node it is on.
        subject: ``process/<boot id>/<tgid>/<start ns>`` or ``workload/<id>``.
        now_ns: Wall time.
        ttl_s: For how long.
        reason: Who and why.

    Raises:
        OrderError: No such subject, no node, or no time that is allowed.
    """
    return _order(node, subject, now_ns, ttl_s, reason, quarantined=True)


def release_order(
    node: str, subject: str, now_ns: int, reason: str, hold_s: int = RELEASE_HOLDS_S
) -> dict[str, Any]:
    """Order a subject back on the network, all of its blocked destinations too.

    Args:
        node: Node it is on.
        subject: As in :func:`quarantine_order`.
        now_ns: Wall time.
        reason: Who and why.
        hold_s: For how long rules must leave it alone.

    Raises:
        OrderError: As in :func:`quarantine_order`.
    """
    return _order(node, subject, now_ns, hold_s, reason, quarantined=False)


def _order(
    node: str, subject: str, now_ns: int, lasts_s: int, reason: str, *, quarantined: bool
) -> dict[str, Any]:
    try:
        canonical = str(parse_subject(subject))
    except SubjectError as error:
        raise OrderError(str(error)) from error
    if not node or "/" in node:
        raise OrderError("a node has a name without a slash")
    if not 0 < lasts_s <= LONGEST_ORDER_S:
        raise OrderError(f"an order lasts 1 to {LONGEST_ORDER_S} seconds, not {lasts_s}")
    return {
        "node": node,
        "subject": canonical,
        "generation": now_ns,
        "issued_at_ns": now_ns,
        "expires_at_ns": now_ns + lasts_s * _NS_PER_S,
        "quarantined": quarantined,
        "blocked_destinations": [],
        "alert_id": "",
        "reason": reason,
        "evidence_boot_ns": 0,
    }
