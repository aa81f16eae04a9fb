# SPDX-License-Identifier: Apache-2.0
"""``nsp.self-test``: what a sensor did to itself, and whether all of it arrived.

Input: batches. A sensor's ``SELF_TEST`` notice says what its probe did; all events of that lie between the
position it names and the notice, so when the notice is read nothing is waited for. Output: findings, when

- events of a test are missing (HIGH): the node is not seen as it should be, although nothing was counted;
- a connection passed that must be refused (CRITICAL): nothing that is ordered is enforced either;
- the probe found something else wrong (HIGH), or could not be run (MEDIUM);
- notices are missing between two, or none came for several intervals while the node went on (HIGH).

Time is the node's own and counts only while batches come. Judged are tests of which everything was read here:
after a restart, or a change of partitions, those that began since. A finding is repeated after a while, not
with each test; all are counted. Failure: bounded in nodes, and in tests under way by node (counted).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_apps.correlate.order import MAX_NODES, NOTICE
from stream_apps.detect.bounded import Bounded
from stream_apps.detect.node_finding import NodeFinding
from stream_apps.detect.probe_conduct import probes, sift
from stream_apps.detect.rule import RANK, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stream_apps.correlate.order import Admission, Event
    from stream_apps.correlate.view import BatchView
    from stream_apps.detect.rule import Severity

RULE: Final = Rule(
    id="nsp.self-test",
    title="A sensor does not see, or not refuse, what it did itself",
    severity="CRITICAL",
    attack=("T1562.001", "T1562.006"),
)

_NS_PER_S: Final = 1_000_000_000
_NS_PER_MS: Final = 1_000_000
# A sensor has one test at a time; those of killed sensors never end.
_MAX_UNDER_WAY: Final = 8
# Between two batches no more than this counts as time in which a test was due: a node that slept sends none.
_COUNTED_PAUSE_NS: Final = 60 * _NS_PER_S
# However short the interval, so late a test is nothing.
_PATIENCE_NS: Final = 60 * _NS_PER_S


@dataclass(frozen=True, slots=True)
class SelfTestLimits:
    """When a node's tests are told.

    Attributes:
        missed_intervals: So many intervals without a test are too many.
        repeat_s: The same of one node is told once within so long.
    """

    missed_intervals: int = 3
    repeat_s: int = 3600


@dataclass(slots=True)
class _Node:
    """What is known of a node.

    Attributes:
        read_from: Everything from this ring position on was read here; -1: not known yet.
        under_way: Parts that arrived, by nonce.
        sequence: Number of the last test; -1: not known.
        interval_ns: Between tests, as the last one said; 0: it never tested itself.
        waited_ns: Time that passed since, while batches came.
        clock_ns: CLOCK_BOOTTIME of the last batch.
        told: By kind until when it is not told again, wall time, and how bad it was.
    """

    read_from: int = -1
    under_way: OrderedDict[str, set[str]] = field(default_factory=OrderedDict)
    sequence: int = -1
    interval_ns: int = 0
    waited_ns: int = 0
    clock_ns: int = 0
    told: dict[str, int] = field(default_factory=dict)


class _Place(NamedTuple):
    """Where something showed: batch, and ring position."""

    batch: Mapping[str, Any]
    view: BatchView
    position: int


class SelfTests:
    """Watches the nodes' tests.

    Args:
        limits: When it is told.
        severity: The highest it gives.
        tells: Whether anything is told, and not only counted.
    """

    def __init__(
        self, limits: SelfTestLimits, severity: Severity | None = None, *, tells: bool = True
    ) -> None:
        self._tells = tells
        self._limits = limits
        self._highest = severity or RULE.severity
        self._nodes: Bounded[str, _Node] = Bounded(MAX_NODES, _Node)
        self._counts: Counter[str] = Counter()

    def retune(self, wanted: SelfTests) -> None:
        """Go over to the limits of another; what is known of the nodes stays."""
        self._limits, self._highest, self._tells = wanted._limits, wanted._highest, wanted._tells

    def metrics(self) -> Mapping[tuple[str, str], int]:
        """Figures; the rate of what is missing in parts of a million."""
        counts = self._counts
        expected = counts["parts_expected"]
        names = (
            "tests", "tests_not_judged", "tests_wrong", "tests_not_run", "tests_missing", "parts_expected",
            "parts_missing", "stopped", "repeated", "under_way_evicted",
        )  # fmt: skip
        return {
            **{("detect", f"self_test_{name}"): counts[name] for name in names},
            ("detect", "self_test_missing_per_million_now"): (
                counts["parts_missing"] * 1_000_000 // expected if expected else 0
            ),
            ("detect", "self_test_evicted"): self._nodes.evicted,
            ("detect", "self_test_nodes_now"): len(self._nodes),
        }

    def takes(self, is_ours: Callable[[str], bool]) -> None:
        """Forget the nodes that another process hears from now on."""
        for name in [each for each, _ in self._nodes.items() if not is_ours(each)]:
            self._nodes.drop(name)

    def batch(
        self, batch: Mapping[str, Any], view: BatchView, admission: Admission
    ) -> tuple[list[Event], list[NodeFinding]]:
        """Take a batch: the events that are left for everybody else, and what was found."""
        node = self._nodes.at(view.node)
        if node.read_from < 0 or admission.new_ring:
            # What was dropped as read before was read, but not here.
            node.read_from = batch["ring_end"] if admission.duplicates else batch["ring_start"]
            node.under_way.clear()
            node.sequence = -1
        events = admission.events
        who = probes(view)
        if who:
            events, arrived = sift(events, who)
            for nonce, part in arrived:
                self._arrived(node, nonce, part)
        found = list(self._pass_time(node, batch, view))
        if admission.notices:
            found += self._notices(node, events, batch, view)
        return events, found

    def _arrived(self, node: _Node, nonce: str, part: str) -> None:
        parts = node.under_way.get(nonce)
        if parts is None:
            parts = node.under_way[nonce] = set()
            if len(node.under_way) > _MAX_UNDER_WAY:
                node.under_way.popitem(last=False)
                self._counts["under_way_evicted"] += 1
        parts.add(part)

    def _pass_time(self, node: _Node, batch: Mapping[str, Any], view: BatchView) -> Iterator[NodeFinding]:
        clock_ns: int = batch["clock"]["boot_ns"]
        node.waited_ns += min(max(0, clock_ns - node.clock_ns), _COUNTED_PAUSE_NS) if node.clock_ns else 0
        node.clock_ns = max(node.clock_ns, clock_ns)
        patience_ns = max(self._limits.missed_intervals * node.interval_ns, _PATIENCE_NS)
        if not node.interval_ns or node.waited_ns < patience_ns:
            return
        node.interval_ns = 0
        self._counts["stopped"] += 1
        says = f"tests itself no more, for {node.waited_ns // _NS_PER_S} s by now, although it sends"
        yield from self._told(node, "stopped", "HIGH", says, _Place(batch, view, batch["ring_end"]))

    def _notices(
        self, node: _Node, events: list[Event], batch: Mapping[str, Any], view: BatchView
    ) -> Iterator[NodeFinding]:
        for kind, event in events:
            if kind != NOTICE:
                continue
            if event["kind"] in ("STARTED", "ADOPTED"):
                node.sequence = 0
            test = event.get("self_test")
            if event["kind"] == "SELF_TEST" and test is not None:
                yield from self._test(node, test, _Place(batch, view, event["position"]))

    def _test(self, node: _Node, test: Mapping[str, Any], place: _Place) -> Iterator[NodeFinding]:
        counts = self._counts
        counts["tests"] += 1
        arrived = node.under_way.pop(test["nonce"], set())
        yield from self._skipped(node, test["sequence"], place)
        node.interval_ns, node.waited_ns = test["interval_ms"] * _NS_PER_MS, 0
        yield from self._local(node, test, place)
        if test["ring_start"] < node.read_from:
            counts["tests_not_judged"] += 1
            return
        missing = [each for each in test["expected"] if each not in arrived]
        counts["parts_expected"] += len(test["expected"])
        counts["parts_missing"] += len(missing)
        if missing:
            says = f"did not report {', '.join(missing)} of its test {test['sequence']} ({test['nonce']})"
            yield from self._told(node, "missing", "HIGH", says, place)

    def _skipped(self, node: _Node, sequence: int, place: _Place) -> Iterator[NodeFinding]:
        before, node.sequence = node.sequence, sequence
        if before < 0 or sequence <= before + 1:
            return
        self._counts["tests_missing"] += sequence - before - 1
        says = f"reported test {sequence} after test {before}: those between never arrived"
        yield from self._told(node, "skipped", "HIGH", says, place)

    def _local(self, node: _Node, test: Mapping[str, Any], place: _Place) -> Iterator[NodeFinding]:
        if test["outcome"] == "PASSED":
            return
        words = "; ".join(f"{each['part']}: {each['says']}" for each in test["problems"])
        if test["outcome"] == "NOT_RUN":
            self._counts["tests_not_run"] += 1
            yield from self._told(node, "not-run", "MEDIUM", f"could not test itself ({words})", place)
            return
        self._counts["tests_wrong"] += 1
        says = f"failed its own test ({words})"
        if any(each["passed"] for each in test["problems"]):
            yield from self._told(node, "not-refused", "CRITICAL", says, place)
        else:
            yield from self._told(node, "wrong", "HIGH", says, place)

    def _told(
        self,
        node: _Node,
        kind: str,
        severity: Severity,
        says: str,
        place: _Place,
    ) -> Iterator[NodeFinding]:
        if not self._tells:
            return
        batch, view, position = place
        wall_ns: int = batch["clock"]["wall_ns"]
        if wall_ns < node.told.get(kind, 0):
            self._counts["repeated"] += 1
            return
        node.told[kind] = wall_ns + self._limits.repeat_s * _NS_PER_S
        yield NodeFinding(
            rule=RULE,
            node=view.node,
            boot_id=view.boot_id,
            workload=view.workloads[0],
            severity=min(severity, self._highest, key=RANK.__getitem__),
            position=position,
            wall_ns=wall_ns,
            boot_ns=batch["clock"]["boot_ns"],
            says=says,
            kind=kind,
            evidence="SensorNotice",
        )
