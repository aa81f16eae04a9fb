# SPDX-License-Identifier: Apache-2.0
"""``nsp.mining``: somebody's computer earns somebody else's coins.

Input: questions for names of pools, connections to what such a name stands for or to a pool's port outside,
and command lines of miners. Name and command line speak for themselves (HIGH); a port alone is a guess
(MEDIUM), so only few are listed, and only for addresses outside.

Name servers forward everybody's questions, and are excluded by default: who asked them is told.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final

from stream_apps.correlate.programs import program_name
from stream_apps.detect.egress import CONNECT, DATAGRAM, QUESTION, REFUSAL
from stream_apps.detect.networks import INSIDE
from stream_apps.detect.observer import Frame, Observer
from stream_apps.detect.rule import Destination, Rule, Sighting
from stream_apps.detect.scene import endpoint, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.detect.exclusions import Exclusion
    from stream_apps.detect.observer import Handler
    from stream_apps.detect.rule import Severity

RULE: Final = Rule(
    id="nsp.mining",
    title="A program mines for a pool",
    severity="HIGH",
    attack=("T1496",),
)

EXEC: Final = "nsp.ProcessExec"
INVENTORY: Final = "nsp.ProcessInventory"

# Kubescape's R1009 has 3333 and 45700; the others are pools' documented ones that nothing else registered.
PORTS: Final = (3333, 14433, 14444, 45560, 45700)
# Registered domains of pools and of a miner's donations; a name is one of these or below it.
POOLS: Final = (
    "2miners.com", "antpool.com", "c3pool.com", "c3pool.org", "crypto-pool.fr", "donate.xmrig.com",
    "dwarfpool.com", "ethermine.org", "ethpool.org", "f2pool.com", "flexpool.io", "gntl.uk", "hashvault.pro",
    "herominers.com", "hiveon.net", "kryptex.network", "luckpool.net", "minergate.com", "minexmr.com",
    "minexmr.org", "mining-pool.ovh", "moneroocean.stream", "monerohash.com", "moneropool.com",
    "nanopool.org", "nicehash.com", "pool.minergate.com", "poolin.com", "prohashing.com", "rplant.xyz",
    "sparkpool.com", "slushpool.com", "stratum.braiins.com", "supportxmr.com", "unmineable.com", "viabtc.com",
    "viaxmr.com", "woolypooly.com", "xmr.pt", "xmrpool.eu", "xmrpool.net", "xmrig.com", "zergpool.com",
    "zpool.ca",
)  # fmt: skip
_MINERS: Final = frozenset({
    "xmrig", "xmr-stak", "xmr-stak-rx", "minerd", "cpuminer", "cpuminer-multi", "ethminer", "nbminer",
    "t-rex", "phoenixminer", "lolminer", "gminer", "xmrig-notls", "srbminer-multi", "kinsing", "kdevtmpfsi",
})  # fmt: skip
# Names whose answer is kept: services ask for the same few.
_NAMES: Final = 16_384
# The pool's protocol, and options that only miners have.
_WORDS: Final = re.compile(
    r"stratum[12]?\+(?:tcp|ssl|tls|udp)://|--donate-level|--randomx-|--coin[= ](?:xmr|monero)\b"
    r"|(?:^| )(?:-a|--algo)[= ](?:rx/|cn/|cryptonight|randomx|kawpow|ethash)",
    re.IGNORECASE,
)


class Mining(Observer):
    """The detector.

    Args:
        exclusions: What is known and wanted.
        severity: The highest it gives.
        ports: Of pools.
        pools: Registered domains of pools.
    """

    settings: ClassVar[tuple[str, ...]] = (*Observer.settings, "_ports", "_pools", "_is_pool")

    def __init__(
        self,
        exclusions: Sequence[Exclusion] = (),
        severity: Severity | None = None,
        *,
        ports: Sequence[int] = PORTS,
        pools: Sequence[str] = POOLS,
    ) -> None:
        super().__init__(RULE, exclusions, severity)
        self._ports = frozenset(ports)
        self._pools = frozenset(pools)
        self._is_pool = lru_cache(_NAMES)(self._looks_up)
        self._inside = INSIDE

    def firsts(self) -> Mapping[str, Handler]:
        """See :class:`Observer`."""
        return {CONNECT: self._contact, DATAGRAM: self._contact}

    def handlers(self) -> Mapping[str, Handler]:
        """See :class:`Observer`."""
        return {
            QUESTION: self._question, REFUSAL: self._refusal, EXEC: self._program, INVENTORY: self._program,
        }  # fmt: skip

    def _contact(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        address, port = event["remote_address"], event["remote_port"]
        if port not in self._ports or address in self._inside:
            return None
        known = frame.scene.name_behind(index, address, event["ktime_ns"])
        where = endpoint(address, port)
        of_pool = known is not None and self._is_pool(known.name)
        return Sighting(
            self.capped("HIGH" if of_pool else "MEDIUM"),
            f"connect to {where}",
            f"connects to {where}, a port of mining pools" + (f" ({shown(known.name)})" if known else ""),
            Destination(address, port, event["protocol"]),
            known.name if known else None,
            weight=2 if of_pool else 1,
        )

    def _refusal(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        if event["hook"] not in ("CONNECT", "SENDMSG") or event["reason"].startswith("QUARANTINED"):
            return None
        return self._contact(frame, index, event)

    def _question(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        del frame, index
        name: str = event["name"]
        if not self._is_pool(name):
            return None
        return Sighting(
            self.capped("HIGH"), f"asked for {shown(name)}", f"asks for the mining pool {shown(name)}",
            dns_name=name, attack=("T1071.004",), weight=2,
        )  # fmt: skip

    def _program(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        del event
        image = frame.scene.view.processes[index]
        words = " ".join(image["argv"])
        if program_name(image["executable"]) not in _MINERS and not _WORDS.search(words):
            return None
        return Sighting(
            self.capped("HIGH"),
            f"started {shown(words)}",
            "was started with a miner's command line",
            weight=3,
        )

    def _looks_up(self, name: str) -> bool:
        """Whether a name is a pool's or below it: at most as many look-ups as it has labels."""
        while name:
            if name in self._pools:
                return True
            name = name.partition(".")[2]
        return False
