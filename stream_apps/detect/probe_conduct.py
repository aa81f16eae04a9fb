# SPDX-License-Identifier: Apache-2.0
"""What of a batch is the sensor's probe at its self-test, and which part of the test an event is.

Input: a batch and its events. Output: the parts that arrived, by nonce, and the events that are left for
everybody else: what the probe does is no behaviour of the node, and no rule is about it. Left out is only
what the probe does by its contract (:mod:`schemas.self_test`): what it does on its own loopback, in the
workload that the sensor gives to nobody else. Anything more that comes from there is an event like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from schemas.self_test import NONCE_DIGITS, PASSING_PORT, REFUSED_PORT, name_of, workload_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.correlate.order import Event
    from stream_apps.correlate.view import BatchView

_UDP: Final = 17
# python -I -S probe.py run <nonce> <name> <ports>
_NONCE_ARGUMENT: Final = 5
_HEX: Final = frozenset("0123456789abcdef")
_PROCESS_EVENTS: Final = {
    "nsp.ProcessExec": "exec", "nsp.ProcessExit": "exit", "nsp.ProcessFork": "", "nsp.CgroupChange": "",
}  # fmt: skip
_NAMES: Final = {"nsp.DnsQuestion": "question", "nsp.DnsAnswer": "answer"}
_CONNECTIONS: Final = {"nsp.SocketConnect": "connect", "nsp.SocketClose": "close"}
_ENDS: Final = ("remote_address", "local_address")
_NOWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - read, not bound


def probes(view: BatchView) -> dict[int, str]:
    """The images that are the probe, each with its nonce; most batches have none."""
    own = workload_of(view.node)
    if not any(each["id"] == own for each in view.workloads):
        return {}
    return {
        index: nonce
        for index, image in enumerate(view.processes)
        if view.workload_ids[index] == own and (nonce := _nonce(image["argv"]))
    }


def sift(events: Sequence[Event], who: Mapping[int, str]) -> tuple[list[Event], list[tuple[str, str]]]:
    """The events that are not the test's, and of those that are: (nonce, part)."""
    others: list[Event] = []
    arrived: list[tuple[str, str]] = []
    for each in events:
        kind, event = each
        nonce = who.get(event.get("process", 0))
        part = None if nonce is None else _part(kind, event, nonce)
        if nonce is None or part is None:
            others.append(each)
        elif part:
            arrived.append((nonce, part))
    return others, arrived


def _nonce(argv: Sequence[str]) -> str:
    found = argv[_NONCE_ARGUMENT] if len(argv) > _NONCE_ARGUMENT else ""
    return found if len(found) == NONCE_DIGITS and _HEX.issuperset(found) else ""


def _part(kind: str, event: Mapping[str, Any], nonce: str) -> str | None:
    """Which part an event is; empty for what goes with one; None: it is none of the test."""
    if kind in _PROCESS_EVENTS:
        return _PROCESS_EVENTS[kind]
    if kind in _NAMES:
        is_it = event["name"] == name_of(nonce) and event.get("verdict", "ALLOWED") == "ALLOWED"
        return f"dns-{'udp' if event['protocol'] == _UDP else 'tcp'}-{_NAMES[kind]}" if is_it else None
    ends = [event[each] for each in _ENDS if each in event]
    if not ends or not all(each.startswith("127.") or each in _NOWHERE for each in ends):
        return None
    return _part_on_loopback(kind, event)


def _part_on_loopback(kind: str, event: Mapping[str, Any]) -> str | None:
    port = event.get("remote_port")
    if kind == "nsp.Refusal":
        is_it = port == REFUSED_PORT and event["hook"] == "CONNECT" and not event.get("alerted_only", False)
        return "refusal" if is_it else None
    return _CONNECTIONS.get(kind, "") if port == PASSING_PORT else ""
