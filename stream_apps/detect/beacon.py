# SPDX-License-Identifier: Apache-2.0
"""``nsp.beacon``: a program asks its master for orders, at even times, in even words.

Input: connections to the outside when they end (they then say how much was sent and when they began), and
first datagrams. Output: told when

- one destination of a process scores high by RITA (:mod:`stream_apps.detect.statistics.rita`), with 15 % for
  rare or new destinations and against common or old ones (:mod:`stream_apps.detect.prevalence`);
- a process has all three points of Elastic's (:mod:`stream_apps.detect.statistics.elastic`) over all its
  destinations, which finds those that change them;
- a process connects to one destination more than once a second all the time, which RITA calls a strobe.

By process, not by machine: what a scheduler starts anew each time is not one beacon. Only a downloader or
relay counts for who started it, if that is no scheduler: a loop in a shell is a beacon of the shell. Inside,
everything is even (probes, scrapes), and RITA does not look there either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from stream_apps.correlate.programs import program_name
from stream_apps.detect.beacon_memory import BeaconMemory, Process
from stream_apps.detect.egress import DATAGRAM
from stream_apps.detect.networks import INSIDE
from stream_apps.detect.observer import Frame, Observer
from stream_apps.detect.port_scan import CLOSE
from stream_apps.detect.prevalence import Prevalence
from stream_apps.detect.rule import RANK, Destination, Rule, Sighting
from stream_apps.detect.scene import endpoint, shown
from stream_apps.detect.statistics import elastic, rita

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.detect.exclusions import Exclusion
    from stream_apps.detect.observer import Handler
    from stream_apps.detect.rule import Severity
    from stream_apps.detect.scene import Scene

RULE: Final = Rule(
    id="nsp.beacon",
    title="A program calls outside at even times",
    severity="HIGH",
    attack=("T1071", "T1573"),
)
# RITA's high band. Its medium one, 0.7, is reached by any service that calls a partner as customers come:
# even a Poisson process fills all bins (measured: 0.71 to 0.76).
SCORE: Final = 0.9
# With requests of one size even the high one is, when they come some ten to forty times in a window: the bars
# of so few are all alike. So the gaps themselves must be regular beyond chance: of Poisson processes with 10
# to 36 calls in six hours half to all were told within a day without that, and none of 1,200 with it.
REGULARITY: Final = 5.0
_HIGH_BAND: Final = 0.9
_FULL_BAND: Final = 1.0
# Elastic's window, over which RITA's 24 bins are laid here.
WINDOW_S: Final = 21_600
# Elastic is content with six minutes; waiting for a deployment is as even and longer. RITA wants six bins.
_LEAST_SPAN_S: Final = 5400
IGNORED_PORTS: Final = (53, 123, 853)

_SCHEDULERS: Final = frozenset({
    "cron", "crond", "anacron", "atd", "fcron", "systemd", "init", "tini", "dumb-init", "docker-init",
    "s6-svscan", "s6-supervise", "runsv", "supervisord", "containerd-shim-runc-v2", "containerd-shim", "runc",
    "crun", "conmon", "busybox",
})  # fmt: skip
_BY_LAUNCHER: Final = frozenset({"downloader", "relay"})
_CHECKS: Final = 24
_WHOLE: Final = -1
_NS_PER_S: Final = 1_000_000_000


# Of an image that is not judged.
_LEFT_OUT: Final = Process()


class Beacon(Observer):
    """The detector.

    Args:
        exclusions: What is known and wanted.
        severity: The highest it gives.
        score: From which score on it is told: below 0.9 LOW, then MEDIUM, above 1 (by rarity) HIGH.
        window_s: Over how long it is scored.
        ignored_ports: Not judged.
    """

    settings: ClassVar[tuple[str, ...]] = (*Observer.settings, "_score", "_window_s", "_ports")

    def __init__(
        self,
        exclusions: Sequence[Exclusion] = (),
        severity: Severity | None = None,
        *,
        score: float = SCORE,
        window_s: int = WINDOW_S,
        ignored_ports: Sequence[int] = IGNORED_PORTS,
    ) -> None:
        super().__init__(RULE, exclusions, severity)
        self._score = score
        self._window_s = window_s
        self._ports = frozenset(ignored_ports)
        self._inside = INSIDE
        self._memory = BeaconMemory()
        self._prevalence = Prevalence()
        # Of the batch's images, what was looked up.
        self._of: list[Process | None] = []

    def begin(self, frame: Frame, first_ns: int) -> None:
        """See :class:`Observer`."""
        del first_ns
        self._of = [None] * len(frame.owners)

    def handlers(self) -> Mapping[str, Handler]:
        """See :class:`Observer`."""
        return {CLOSE: self._closed, DATAGRAM: self._sent}

    def metrics(self) -> Mapping[str, int]:
        """See :class:`Observer`."""
        return {
            "evicted": self._memory.processes.evicted + self._prevalence.destinations.evicted,
            "connections_dropped": self._memory.dropped,
            "connections_now": self._memory.connections,
            "processes_now": len(self._memory.processes),
        }

    def _closed(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        if event["inbound"] or event["remote_address"] in self._inside:
            return None
        return self._connection(frame, index, event, event["ktime_ns"] - event["duration_ns"])

    def _sent(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        if event["remote_address"] in self._inside:
            return None
        return self._connection(frame, index, event, event["ktime_ns"])

    def _connection(
        self, frame: Frame, index: int, event: Mapping[str, Any], begun_ns: int
    ) -> Sighting | None:
        process = self._of[index]
        if process is None or process.forgotten:
            process = self._of[index] = self._process(frame, index)
        if event["remote_port"] in self._ports or process is _LEFT_OUT:
            return None
        now_ns = event["ktime_ns"] + frame.offset_ns
        address: str = event["remote_address"]
        place = process.addresses.get(address)
        if place is None:
            destination = _destination(frame, index, event)
            self._prevalence.contact(frame.workload_ids[index], destination, now_ns)
            place = process.place(address, destination)
        second = (begun_ns + frame.offset_ns) // _NS_PER_S
        self._memory.add(process, place, second, event.get("bytes_sent", 0), event.get("bytes_received", 0))
        if now_ns < process.check_ns:
            return None
        process.check_ns = now_ns + self._window_s * _NS_PER_S // _CHECKS
        self._memory.expire(process, now_ns // _NS_PER_S - self._window_s)
        strobe = self._strobes(process, place, now_ns // _NS_PER_S)
        where = _destination(frame, index, event), place
        return self._judge(frame, event, process, where, strobe=strobe)

    def _process(self, frame: Frame, index: int) -> Process:
        """What is remembered of whose beacon it would be."""
        if not index or self.left_out(frame, index):
            return _LEFT_OUT
        return self._memory.processes.at(frame.owners[_owner(frame.scene, index)])

    def _strobes(self, process: Process, place: int, now_s: int) -> bool:
        """Whether a destination was contacted more than once a second for a window (RITA: 86,400 a day)."""
        counted_s = now_s - process.counted_s
        if counted_s < self._window_s:
            return False
        found = process.counts[place] >= counted_s
        process.counts = [0] * len(process.counts)
        process.counted_s = now_s
        return found

    def _judge(
        self,
        frame: Frame,
        event: Mapping[str, Any],
        process: Process,
        where: tuple[str, int],
        *,
        strobe: bool,
    ) -> Sighting | None:
        destination, place = where
        now_ns = event["ktime_ns"] + frame.offset_ns
        now_s = now_ns // _NS_PER_S
        window = (now_s - self._window_s, now_s + 1)
        severity: Severity | None = None
        says = ""
        own = process.connections(window[0], place)
        score = rita.beacon_score([each[0] for each in own], [each[1] for each in own], window)
        if score is not None and score.regularity >= REGULARITY:
            total = score.score * self._prevalence.factor(destination, now_ns)
            if total >= self._score:
                severity = "HIGH" if total > _FULL_BAND else "MEDIUM" if total >= _HIGH_BAND else "LOW"
                says = _words(score, total, len(own))
        if strobe:
            severity, says = "HIGH", "more than once a second (strobe)"
        whole = process.connections(now_s - elastic.BUCKET_S * elastic.BUCKETS)
        if (
            whole
            and now_s - whole[0][0] >= _LEAST_SPAN_S
            and elastic.has_all_points(whole, now_s)
            and rita.regularity(each[0] for each in whole) >= REGULARITY
        ):
            if severity is None:
                severity, place = "MEDIUM", _WHOLE
                says = f"among {len(process.places)} in turn, at even times in even sizes"
            else:
                severity = "HIGH" if severity != "LOW" else "MEDIUM"
        if severity is None or not _worse(severity, process.told.get(place)):
            return None
        process.told[place] = process.told[_WHOLE] = severity
        port = event["remote_port"]
        address = endpoint(event["remote_address"], port)
        named = f"{shown(destination)} ({address})" if destination != event["remote_address"] else address
        return Sighting(
            self.capped(severity),
            f"calls {named} {says}",
            f"calls {named} {says}",
            Destination(event["remote_address"], port, event.get("protocol", 6)),
            destination if destination != event["remote_address"] else None,
            weight=RANK[severity],
        )


def _destination(frame: Frame, index: int, event: Mapping[str, Any]) -> str:
    """A destination by its name, or by its address."""
    address: str = event["remote_address"]
    known = frame.scene.name_behind(index, address, event["ktime_ns"])
    return known.name if known else address


def _owner(scene: Scene, index: int) -> int:
    """Whose beacon it is: a tool's is its launcher's, unless that only keeps time."""
    view = scene.view
    if view.roles[index] not in _BY_LAUNCHER:
        return index
    launcher = view.launcher(index)
    if view.roles[launcher] == "shell":
        return launcher
    keeps_time = program_name(view.processes[launcher]["executable"]) in _SCHEDULERS
    return index if not launcher or keeps_time else launcher


def _words(score: rita.BeaconScore, total: float, count: int) -> str:
    return (
        f"about every {score.period_s} s, {count} times (score {total:.2f}: timing {score.timing:.2f}, "
        f"size {score.size:.2f}, histogram {score.histogram:.2f}, duration {score.duration:.2f})"
    )


def _worse(severity: Severity, than: Severity | None) -> bool:
    return than is None or RANK[severity] > RANK[than]
