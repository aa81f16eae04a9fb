# SPDX-License-Identifier: Apache-2.0
"""Where in a profile the rule would have to be that lets something pass which the kernel says nothing allows.

Input: a ``SecurityProfile``, the program, the kernel's reason. Output: the place as a person finds it in the
document. The kernel has judged; this only says where to look. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIELDS: Final[Mapping[str, tuple[str, str]]] = {
    # Going out, coming in.
    "L3_PROTOCOL": ("egress.l3.protocols", "ingress.l3.protocols"),
    "L4_PROTOCOL": ("egress.l4", "ingress.l4"),
    "ADDRESS": ("egress.fqdns, cidr4 and cidr6", "ingress.cidr4 and cidr6"),
    "DNS_NAME": ("egress.fqdns and l7.dns", "ingress.l7.protocols"),
    "L7_PROTOCOL": ("egress.l7.protocols", "ingress.l7.protocols"),
    "HTTP_REQUEST": ("egress.l7.http", "ingress.l7.http"),
    "TLS_SNI": ("egress.l7.tls.sni", "ingress.l7.tls.sni"),
    "OPAQUE": ("egress.l7.opaque", "ingress.l7.opaque"),
    "RAW_SOCKET": ("rawSockets", "rawSockets"),
    "ARP_SPOOFING": ("spec.attacks", "spec.attacks"),
}


def place_of(profile: Mapping[str, Any], path: str, script: str, reason: str, *, inbound: bool) -> str:
    """The place.

    Args:
        profile: A ``SecurityProfile``.
        path: Of the program's executable.
        script: It interprets, empty for none.
        reason: The kernel's, as in ``Refusal``.
        inbound: Whether it came in.
    """
    field = _FIELDS.get(reason, ("", ""))[inbound]
    if field.startswith("spec."):
        return field
    whose = _whose(profile, path, script)
    return f"{whose}.{field}" if field else whose


def _whose(profile: Mapping[str, Any], path: str, script: str) -> str:
    """As the kernel looks rules up: with the script, without it, the default."""
    own = {(each["path"], each["script"]) for each in profile["processes"]}
    for program in ((path, script), (path, "")):
        if program in own:
            return f"spec.processes[{' '.join(filter(None, program))}].network"
    return "spec.default.network"
