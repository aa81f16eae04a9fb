# SPDX-License-Identifier: Apache-2.0
"""``nsp.dns-tunnel``: somebody talks by asking for names.

Input: DNS questions. What a tunnel says upwards stands in the names below one registered domain, each asked
once. Counted for each workload and domain, in a day:

- RITA: distinct names below the domain, in bands of 100, 500, 800 and 1,000; 15 % more where nobody connects
  to the domain, since who only asks wants nothing but the asking;
- Paxson et al. 2013 ("Practical Comprehensive Bounds on Surreptitious Communication over DNS"): how much the
  names can carry at most, by their compressed size; below 4 KiB a day it is no tunnel worth the name. This is
  what keeps inventories and crawlers silent: their names are many and say little;
- Zeek's anomalous-dns: names longer than 90 bytes, and the question types NULL and 65399 of the tunnelling
  programs, when more than a few distinct names come so.

Reverse look-ups and names of the cluster and the local network are nobody's domain and left out; so are block
lists, which are asked by name for addresses, where a trusted or private resolver is asked.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from stream_apps.detect.bounded import Bounded
from stream_apps.detect.domains import below, registered_domain
from stream_apps.detect.egress import CONNECT, QUESTION
from stream_apps.detect.networks import INSIDE
from stream_apps.detect.observer import Frame, Observer
from stream_apps.detect.rule import RANK, Rule, Sighting
from stream_apps.detect.scene import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stream_apps.detect.exclusions import Exclusion
    from stream_apps.detect.observer import Handler
    from stream_apps.detect.rule import Severity

RULE: Final = Rule(
    id="nsp.dns-tunnel",
    title="A workload carries data in DNS questions",
    severity="CRITICAL",
    attack=("T1071.004", "T1572"),
)

# RITA's bands. What is in a band and carries enough is one worse than RITA calls it: there people look daily.
BANDS: Final = (100, 500, 800, 1000)
_SEVERITIES: Final[tuple[Severity, ...]] = ("MEDIUM", "HIGH", "CRITICAL", "CRITICAL")
_UNVISITED: Final = 1.15
ODD_TYPES: Final = (10, 65399)
IGNORED_DOMAINS: Final = (
    "cluster.local", "spamhaus.org", "spamcop.net", "sorbs.net", "barracudacentral.org", "surbl.org",
    "uribl.com", "dnswl.org", "abuseat.org", "mailspike.net", "sophosxl.net", "mcafee.com", "e5.sk",
    "trendmicro.com", "senderbase.org", "cymru.com",
)  # fmt: skip
_LOCAL: Final = (".arpa", ".local", ".localdomain", ".lan", ".home", ".internal", ".svc", ".cluster")

MAX_WORKLOADS: Final = 4096
# Domains of one workload: a browser's day; a tunnel's is in use and stays.
MAX_DOMAINS: Final = 256
# Distinct names of a domain, a little above RITA's last band; and of all: some 60 bytes each.
MAX_NAMES: Final = 1024
MAX_ALL_NAMES: Final = 1_000_000
# The names' text is compressed in pieces of so much, to see how much it says.
_SAMPLE_BYTES: Final = 8192
# How often a growing domain is judged anew: each so many names.
_STEP: Final = 10
_DAY_NS: Final = 86_400_000_000_000


@dataclass(frozen=True, slots=True)
class TunnelLimits:
    """When questions are a tunnel.

    Attributes:
        names: Distinct names below a domain, from which on its size is judged (RITA: 100).
        information_bytes: What the names can carry at least (Paxson: 4 KiB a day).
        long_name_bytes: A longer name is long (Zeek: 90).
        long_names: Distinct long names below a domain.
        odd_names: Distinct names asked by an odd type (Zeek: more than 8).
    """

    names: int = BANDS[0]
    information_bytes: int = 4096
    long_name_bytes: int = 90
    long_names: int = 20
    odd_names: int = 8


class _Domain:
    """What one workload asked below one domain today."""

    __slots__ = ("carried", "long", "names", "odd", "sample", "since_ns", "told", "visited")

    def __init__(self) -> None:
        self.start(-1)

    def start(self, now_ns: int) -> None:
        self.since_ns = now_ns
        self.names: set[int] = set()
        self.sample = bytearray()
        self.carried = 0
        self.long = 0
        self.odd = 0
        self.visited = False
        self.told: Severity | None = None

    def say(self, text: bytes) -> None:
        """Take what a new name says."""
        self.sample += text
        if len(self.sample) >= _SAMPLE_BYTES:
            self.carried = self.information()
            self.sample.clear()

    def information(self) -> int:
        """How many bytes the names can carry, by their compressed size."""
        return self.carried + (len(zlib.compress(self.sample, 6)) if self.sample else 0)


class _Workload:
    """What one workload asked."""

    __slots__ = ("domains",)

    def __init__(self, forget: Callable[[_Domain], None]) -> None:
        self.domains: Bounded[str, _Domain] = Bounded(MAX_DOMAINS, _Domain, forget)


class DnsTunnel(Observer):
    """The detector.

    Args:
        exclusions: What is known and wanted.
        severity: The highest it gives.
        limits: When it is a tunnel.
        ignored_domains: Registered domains that are asked many names for good reason.
    """

    settings: ClassVar[tuple[str, ...]] = (*Observer.settings, "_limits", "_ignored")

    def __init__(
        self,
        exclusions: Sequence[Exclusion] = (),
        severity: Severity | None = None,
        limits: TunnelLimits | None = None,
        ignored_domains: Sequence[str] = IGNORED_DOMAINS,
    ) -> None:
        super().__init__(RULE, exclusions, severity)
        self._limits = limits or TunnelLimits()
        self._ignored = frozenset(ignored_domains)
        self._private = INSIDE
        self._workloads: Bounded[str, _Workload] = Bounded(
            MAX_WORKLOADS, lambda: _Workload(self._forget), self._forget_all
        )
        self._names = 0
        self._names_dropped = 0
        self._hot = False

    def handlers(self) -> Mapping[str, Handler]:
        """See :class:`Observer`."""
        return {QUESTION: self._question}

    def firsts(self) -> Mapping[str, Handler]:
        """See :class:`Observer`."""
        return {CONNECT: self._connected}

    def metrics(self) -> Mapping[str, int]:
        """See :class:`Observer`."""
        return {
            "evicted": self._workloads.evicted,
            "names_dropped": self._names_dropped,
            "names_now": self._names,
            "workloads_now": len(self._workloads),
        }

    def _question(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        name: str = event["name"]
        if name.endswith(_LOCAL):
            return None
        domain = registered_domain(name)
        if domain is None:
            return None
        workload = self._workloads.at(frame.workload_ids[index])
        found = workload.domains.at(domain)
        now_ns = event["ktime_ns"] + frame.offset_ns
        if not 0 <= now_ns - found.since_ns < _DAY_NS or found.since_ns < 0:
            self._names -= len(found.names)
            found.start(now_ns)
        key = hash(name)
        if key in found.names or len(found.names) >= MAX_NAMES:
            return None
        if self._is_excused(frame, event, domain) or self.left_out(frame, index):
            return None
        found.names.add(key)
        self._names += 1
        self._take(found, below(name, domain), event["question_type"])
        if self._names > MAX_ALL_NAMES:
            self._workloads.drop_oldest()
        # From the first domain with many names on, connections are looked at too.
        self._hot = self._hot or len(found.names) >= self._limits.names // 2
        return self._judge(found, domain, event)

    def _take(self, found: _Domain, label: str, question_type: int) -> None:
        text = label.encode()
        found.long += len(text) > self._limits.long_name_bytes
        found.odd += question_type in ODD_TYPES
        found.say(text)

    def _judge(self, found: _Domain, domain: str, event: Mapping[str, Any]) -> Sighting | None:
        limits, count = self._limits, len(found.names)
        effective = count if found.visited else int(count * _UNVISITED)
        severity: Severity | None = None
        why = ""
        if found.odd > limits.odd_names:
            severity, why = "HIGH", f"{found.odd} of them by question types that only tunnels use"
        elif found.long >= limits.long_names:
            severity, why = "MEDIUM", f"{found.long} of them longer than {limits.long_name_bytes} bytes"
        if effective >= limits.names and count % _STEP == 0:
            information = found.information()
            band = sum(effective >= each for each in BANDS[1:])
            if information >= limits.information_bytes and _worse(_SEVERITIES[band], severity):
                severity, why = _SEVERITIES[band], f"which can carry {information} bytes"
        if severity is None or not _worse(severity, found.told):
            return None
        found.told = severity
        what = f"{count} distinct names below {shown(domain)}, {why}"
        return Sighting(
            self.capped(severity),
            f"asked for {what}",
            f"asked {event['server_address']} for {what}",
            dns_name=event["name"],
            weight=RANK[severity],
        )

    def _connected(self, frame: Frame, index: int, event: Mapping[str, Any]) -> None:
        """A domain that is visited is asked for its addresses."""
        if not self._hot:
            return
        workload = self._workloads.peek(frame.workload_ids[index])
        if workload is None:
            return
        known = frame.scene.name_behind(index, event["remote_address"], event["ktime_ns"])
        domain = registered_domain(known.name) if known else None
        found = workload.domains.peek(domain) if domain else None
        if found is not None:
            found.visited = True

    def _is_excused(self, frame: Frame, event: Mapping[str, Any], domain: str) -> bool:
        """Whether a domain is one to ask many names of, and really the one it says it is."""
        if domain not in self._ignored:
            return False
        return event["server_address"] in self._private or self.trusts_names(frame, event)

    def _forget(self, domain: _Domain) -> None:
        self._names -= len(domain.names)
        self._names_dropped += len(domain.names)

    def _forget_all(self, workload: _Workload) -> None:
        for each in workload.domains.values():
            self._forget(each)


def _worse(severity: Severity, than: Severity | None) -> bool:
    return than is None or RANK[severity] > RANK[than]
