# SPDX-License-Identifier: Apache-2.0
"""What a sensor's self-test does, as both sides of the topic must know it.

The sensor's probe does these things in a network namespace and cgroup of its own; the stream apps expect an
event of each (``SelfTest`` in event_batch.avsc), and leave what the probe does out of everything else.
"""

from __future__ import annotations

from typing import Final

# In the order in which they are tried.
PARTS: Final = (
    "exec", "connect", "close", "refusal", "dns-udp-question", "dns-udp-answer", "dns-tcp-question",
    "dns-tcp-answer", "exit",
)  # fmt: skip
# Nothing else is in the probe's network namespace, so any two will do.
PASSING_PORT: Final = 7601
REFUSED_PORT: Final = 7602
ADDRESS: Final = "127.0.0.1"
# RFC 6761: no name below "invalid" is ever anybody's.
_SUFFIX: Final = "selftest.nsp.invalid"
NONCE_DIGITS: Final = 32


def name_of(nonce: str) -> str:
    """The name that the probe asks for."""
    return f"{nonce}.{_SUFFIX}"


def workload_of(node: str) -> str:
    """Workload id of the probe's cgroup, which only the sensor gives."""
    return f"host/{node}/nsp-selftest"
