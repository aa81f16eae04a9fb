# SPDX-License-Identifier: Apache-2.0
"""The small world of the scenarios: two pods on a wire with a name server and everybody outside."""

from __future__ import annotations

import random
from typing import Final

INSIDE, PEER, DNS, OUTSIDE = "10.77.0.10", "10.77.0.20", "10.77.0.53", "10.77.0.66"
# What an attacker has; the cloud's metadata; the cluster's API.
EVIL, METADATA, API = "203.0.113.66", "169.254.169.254", "10.96.0.1"
MIRROR_ADDRESS, PARTNER_ADDRESS = "203.0.113.80", "203.0.113.81"
CACHES: Final = tuple(f"203.0.113.{last}" for last in range(82, 90))
EVIL_NAME, MIRROR, PARTNER = "updates.evil-example.com", "mirror.example.org", "api.partner-example.com"
DATABASE = "db.shop.svc.cluster.local"
ZONE: Final = {
    EVIL_NAME: EVIL, MIRROR: MIRROR_ADDRESS, PARTNER: PARTNER_ADDRESS, DATABASE: PEER,
    **{f"edge{each}.cdn-example.com": CACHES[each % len(CACHES)] for each in range(40)},
}  # fmt: skip
WORLD: Final = (EVIL, MIRROR_ADDRESS, PARTNER_ADDRESS, *CACHES, METADATA, API)
# What a service fetches for its customers, who ask for this and that.
_DICE = random.Random(1)
EVERYDAY: Final = tuple(
    f"http://{PARTNER}/?q={'x' * int(40 * _DICE.paretovariate(1))}"[:1500] for _ in range(80)
)
# Those from 4440 to 4459 are an attacker who waits for shells, 4460 one behind TLS.
SHELL_PORTS, TLS_PORT = range(4440, 4460), 4460
OUTSIDE_PORTS: Final = (22, 443, 3333, 8443, *SHELL_PORTS, TLS_PORT, 5432, 9001)
PEER_PORTS: Final = (22, 3333, 5432, 6379, *range(9100, 9120))
