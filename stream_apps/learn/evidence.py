# SPDX-License-Identifier: Apache-2.0
"""What speaks for a rule, in words for a comment. Pure; text of workloads is escaped."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from stream_apps.detect.egress import PROTOCOL_NAMES
from stream_apps.detect.scene import shown

if TYPE_CHECKING:
    from stream_apps.learn.behaviour import Behaviour, Key

_NS_PER_S: Final = 1_000_000_000
_SHOWN: Final = 120


def moment(wall_ns: int) -> str:
    """Wall ns as people write it, in UTC."""
    return (
        datetime.fromtimestamp(wall_ns // _NS_PER_S, UTC).strftime("%Y-%m-%dT%H:%MZ") if wall_ns else "never"
    )


def evidence(behaviour: Behaviour) -> str:
    """First and last seen, how often, in how many pods and hours."""
    said = (
        f"first {moment(behaviour.first_ns)}, last {moment(behaviour.last_ns)}, {_times(behaviour.count)}, "
        f"{number(behaviour.pods, 'pod')}, {number(behaviour.units, 'pod-hour')}"
    )
    if behaviour.before_sensor:
        said += ", only by what ran before the sensor"
    return said + (", DRIFT: new since it was stable" if behaviour.drift else "")


def deed(key: Key) -> str:
    """A behaviour in words."""
    who = shown(key.path, _SHOWN) + (f" ({shown(key.script, _SHOWN)})" if key.script else "")
    peer = shown(key.peer, _SHOWN)
    ports = f"{key.port}-{key.last_port}" if key.last_port != key.port else str(key.port)
    where = f"{ports}/{PROTOCOL_NAMES.get(key.protocol, key.protocol)}"
    said = {
        "PROGRAM": "ran",
        "EGRESS": f"reached {peer}" + (f" on {where}" if key.port or key.protocol else ""),
        "QUESTION": f"asked for {peer}",
        "LISTEN": f"listened on {where}",
        "INGRESS": f"was reached by {peer} on {where}",
        "REQUEST": f"said {peer} on {where}",
        "SERVER_NAME": f"said the server name {peer} on {where}",
    }
    return f"{who} {said[key.kind]}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def number(count: int, of: str) -> str:
    """How many of something."""
    return f"{count} {of}{'' if count == 1 else 's'}"
