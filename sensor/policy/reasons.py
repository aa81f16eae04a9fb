# SPDX-License-Identifier: Apache-2.0
"""``enum nsp_reason`` of profiles, in words. Pure."""

from __future__ import annotations

from typing import Final

from sensor.policy import layout

REASONS: Final = {
    layout.REASON_NONE: "allowed",
    layout.REASON_UNKNOWN_WORKLOAD: "the workload is not known yet",
    layout.REASON_L3_PROTOCOL: "no rule allows its network protocol",
    layout.REASON_L4_PROTOCOL: "no rule allows its protocol and port",
    layout.REASON_ADDRESS: "no rule allows its address",
    layout.REASON_DNS_NAME: "no rule allows to ask for this name",
    layout.REASON_L7_PROTOCOL: "no rule allows its application protocol",
    layout.REASON_HTTP_REQUEST: "no rule allows this request",
    layout.REASON_TLS_SNI: "no rule allows this server name",
    layout.REASON_OPAQUE: "its payload cannot be read, and opaque is not allowed",
    layout.REASON_RAW_SOCKET: "raw sockets are not allowed",
}
