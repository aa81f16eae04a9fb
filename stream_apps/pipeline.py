# SPDX-License-Identifier: Apache-2.0
"""Correlate, detect, respond: one batch in, alerts and enforcement out.

Input: a decoded EventBatch and the wall time. Output: an :class:`Outcome`. Work is done per program image
(tens a batch), then per event only a look-up by record name and, for the few kinds somebody watches, by
process. Pure: no Kafka, no clock, no file.

Failure: one bad event, dictionary entry or detector never stops the rest; each is an :class:`EventError` in
the outcome, with its place. A record without a batch's shape raises
:class:`stream_apps.errors.BatchError`. Everything that is dropped, put off or forgotten is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from stream_apps import assembly
from stream_apps.correlate.ledger import LossLedger
from stream_apps.correlate.lineage import descents
from stream_apps.correlate.order import Ordering, all_again
from stream_apps.correlate.pods import PodTable
from stream_apps.correlate.view import BatchView
from stream_apps.detect.alerts import build_alert
from stream_apps.detect.findings import Findings
from stream_apps.detect.observers import build_observers
from stream_apps.detect.observing import Observing
from stream_apps.detect.probe_conduct import probes, sift
from stream_apps.detect.registry import build_detectors
from stream_apps.detect.retune import retuned
from stream_apps.detect.scene import Scene
from stream_apps.detect.self_test import RULE as SELF_TEST_RULE
from stream_apps.detect.suppression import Suppression
from stream_apps.errors import BatchError
from stream_apps.learn.baseline import LearnedBaseline
from stream_apps.profiles.desk import ProfileDesk
from stream_apps.respond.waiting import Waiting
from stream_apps.sigma.build import build_book, build_detector, exclusions_of
from stream_apps.threats import threat_of, threat_of_node

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_apps.config.document import StreamConfig
    from stream_apps.correlate.order import Admission, Event
    from stream_apps.detect.baseline import Baseline
    from stream_apps.detect.findings import Finding
    from stream_apps.detect.node_finding import NodeFinding
    from stream_apps.detect.rule import Detector, Rule, Sighting, Suspect
    from stream_apps.errors import Stage
    from stream_apps.respond.threat import Response, Threat
    from stream_apps.respond.times import TimeToBlock
    from stream_apps.sigma.book import Ready, RuleBook

DNS_ANSWER: Final = "nsp.DnsAnswer"
# Errors of one batch that are reported one by one; a batch of nothing but errors has one cause.
MAX_ERRORS: Final = 32

_Look = Callable[[str, int, "Mapping[str, Any]"], "Iterable[tuple[Rule, Suspect, Sighting]]"]
_Watched = dict[str, dict[int, list[tuple["Detector", "Suspect"]]]]


@dataclass(frozen=True, slots=True)
class EventError:
    """Something in a batch that could not be used.

    Attributes:
        stage: correlate, detect or respond.
        place: Where in the batch.
        reason: Why.
    """

    stage: Stage
    place: str
    reason: str


@dataclass(slots=True)
class Outcome:
    """What a batch came to.

    Attributes:
        alerts: ``Alert`` records.
        enforcements: ``Enforcement`` records, not signed yet.
        waiting: ``PendingResponse`` records, not signed yet.
        audits: ``Alert`` records that say what became of responses.
        events: Events processed.
        duplicates: Events seen before, dropped.
        errors: What could not be used.
    """

    alerts: list[dict[str, Any]] = field(default_factory=list)
    enforcements: list[dict[str, Any]] = field(default_factory=list)
    waiting: list[dict[str, Any]] = field(default_factory=list)
    audits: list[dict[str, Any]] = field(default_factory=list)
    events: int = 0
    duplicates: int = 0
    errors: list[EventError] = field(default_factory=list)


class Pipeline:
    """The pure part of a stream app. Not thread-safe: one thread calls it.

    Attributes:
        ledger: The account of all events.
        learner: What workloads do; None when nothing is learned.
        rules: The Sigma rules in force.
        version: Digest of the configuration in force; each alert has it.
    """

    def __init__(
        self,
        config: StreamConfig,
        pods: PodTable | None = None,
        desk: ProfileDesk | None = None,
        baseline: Baseline | None = None,
        rules: RuleBook | None = None,
    ) -> None:
        self.version = ""
        self.ledger = LossLedger()
        self._pods = pods if pods is not None else PodTable()
        self._desk = desk if desk is not None else ProfileDesk()
        self._programs = assembly.build_programs(config.correlate)
        self._lineage_rules = assembly.build_lineage_rules(config.correlate)
        self._names = assembly.build_names(config.correlate)
        self.learner = assembly.build_learner(config, self._names)
        self._ordering = Ordering()
        self._detectors = build_detectors(config.detect, self._desk)
        if baseline is None and self.learner is not None:
            baseline = LearnedBaseline(self.learner)
        self._baseline = baseline
        self._observers = build_observers(config.detect, baseline)
        self._observing = Observing(self._observers)
        self.rules = build_book(config.detect.sigma) if rules is None else rules
        self._sigma = build_detector(config.detect.sigma, self.rules)
        self._silence = assembly.build_silence(config, self._pods)
        self._self_tests = assembly.build_self_tests(config)
        self._suppression = Suppression(config.detect.repeat_after_s * assembly.NS_PER_S)
        self._response = assembly.build_response(config, self._pods)
        self._replaying = self._again = False
        self._counts: Counter[tuple[str, str]] = Counter()

    def reconfigure(self, config: StreamConfig, version: str, rules: Ready, now_ns: int) -> None:
        """Go over to another configuration between two batches; what is remembered stays.

        All that can fail is built first: the configuration is in force whole, or the one before is.

        Args:
            config: The configuration; what needs a restart (``config.changes``) is passed over.
            version: Its digest.
            rules: The Sigma rules of its directories.
            now_ns: Wall time.
        """
        programs = assembly.build_programs(config.correlate)
        lineage_rules = assembly.build_lineage_rules(config.correlate)
        detectors = build_detectors(config.detect, self._desk)
        observers = build_observers(config.detect, self._baseline)
        exclusions = exclusions_of(config.detect.sigma)
        silence = assembly.build_silence(config, self._pods)
        self_tests = assembly.build_self_tests(config)
        tuning = assembly.build_tuning(config.respond)
        learning = assembly.learning(config, self._names)
        names = assembly.name_limits(config.correlate)
        self.rules.retune(rules)
        # From here on nothing is left that could fail.
        self._programs, self._lineage_rules = programs, lineage_rules
        self._names.retune(names, config.correlate.names.trusted_resolvers)
        if self.learner is not None:
            self.learner.retune(*learning)
        self._detectors = retuned(self._detectors, detectors)
        self._observers = retuned(self._observers, observers)
        self._observing = Observing(self._observers)
        sigma = config.detect.sigma
        self._sigma.retune(exclusions, sigma.severity, enabled=sigma.enabled)
        if self._silence is not None and silence is not None:
            self._silence.retune(silence)
        else:
            self._silence = silence
        self._self_tests.retune(self_tests)
        self._suppression.retune(config.detect.repeat_after_s * assembly.NS_PER_S)
        self._response.retune(tuning, now_ns)
        self.version = version

    def process(
        self, batch: dict[str, Any], now_ns: int, *, replaying: bool = False, again: bool = False
    ) -> Outcome:
        """Process a batch.

        Args:
            batch: A decoded EventBatch.
            now_ns: Wall time.
            replaying: Only remember: the batch was decided on before. Alerts and enforcement are not
                repeated; the decisions are taken at the time of the batch.
            again: A person sent it again because it, or a part of it, could not be used: it is judged though
                its place in the order is long past. Nothing is learned of it, and no account is changed.

        Raises:
            BatchError: The record cannot be used at all.
        """
        view = BatchView(batch, self._programs)
        try:
            admission = all_again(batch) if again else self._ordering.admit(batch)
            if not again:
                self.ledger.add(batch, admission)
        except (KeyError, TypeError, ValueError) as error:
            raise BatchError(f"not the shape of an EventBatch: {type(error).__name__}: {error}") from error
        outcome = Outcome(events=len(admission.events), duplicates=admission.duplicates)
        self._desk.node(view.node)
        for place, reason in view.problems:
            self._report(outcome, EventError("correlate", place, reason))
        self._replaying, self._again = replaying, again
        scene = Scene(view, descents(view, self._lineage_rules), self._names, self._pods)
        decided_ns = batch["clock"]["wall_ns"] if replaying else now_ns
        events = self._without_probe(batch, view, admission, decided_ns, outcome)
        findings = self._detect(scene, events, outcome)
        self._respond(scene, findings, decided_ns, outcome)
        if self._silence is not None and not again:
            self._tell_nodes(self._silence.batch(batch, admission, now_ns), decided_ns, outcome)
        if not again:
            self._learn(scene, batch, (events, admission.gap_bytes), outcome)
        self._count(outcome, admission.gap_bytes)
        if replaying:
            outcome.alerts, outcome.enforcements, outcome.waiting, outcome.audits = [], [], [], []
        return self._marked(outcome)

    def tick(self, now_ns: int) -> Outcome:
        """Let time pass: who sends no more is told; responses that are over, and those that have waited."""
        produced = self._response.tick(now_ns)
        outcome = Outcome(
            enforcements=produced.enforcements, waiting=produced.waiting, audits=produced.events
        )
        if self._silence is not None:
            self._tell_nodes(self._silence.tick(now_ns), now_ns, outcome)
        outcome.alerts += [each.alert() for each in self._desk.try_canaries(now_ns, self.learner)]
        self._counts["respond", "enforcements_by_the_clock"] += len(outcome.enforcements)
        return self._marked(outcome)

    def takes(self, is_ours: Callable[[str], bool]) -> None:
        """Which nodes' batches come here from now on."""
        if self._silence is not None:
            self._silence.takes(is_ours)
        self._self_tests.takes(is_ours)
        self._response.takes(is_ours)

    def on_status(self, status: Mapping[str, Any]) -> TimeToBlock | None:
        """Take an ``EnforcementStatus``; the times of the enforcement it is about, if it was issued here."""
        self._counts["respond", f"status_{status['outcome'].lower()}"] += 1
        return self._response.on_status(status)

    def on_enforcement(self, enforcement: Mapping[str, Any]) -> None:
        """Take an ``Enforcement`` read from its topic: our own after a restart, or a person's order."""
        self._response.on_enforcement(enforcement)

    def on_waiting(self, record: Mapping[str, Any]) -> None:
        """Take a ``PendingResponse`` read from its topic: our own after a restart, or a person's decision."""
        self._response.on_waiting(Waiting.of(record))

    def metrics(self) -> Mapping[tuple[str, str], int]:
        """Counters by stage and reason, and sizes of tables (``*_now``)."""
        totals = self.ledger.totals()
        return {
            **self._counts,
            **self._desk.metrics(),
            **self._observing.metrics(),
            **self._sigma.metrics(),
            **(self._silence.metrics() if self._silence else {}),
            **self._self_tests.metrics(),
            **(self.learner.metrics() if self.learner else {}),
            **self._response.metrics(),
            ("correlate", "events_unaccounted"): totals.unaccounted,
            ("correlate", "events_lost"): totals.lost,
            ("correlate", "names_workload_evicted"): self._names.evicted_workloads,
            ("correlate", "names_address_evicted"): self._names.evicted_addresses,
            ("correlate", "nodes_evicted"): self._ordering.evicted + self.ledger.evicted,
            ("correlate", "pods_refused"): self._pods.refused,
            ("correlate", "pods_now"): len(self._pods),
            ("detect", "suppressed"): self._suppression.suppressed,
            ("detect", "suppression_evicted"): self._suppression.evicted,
        }

    def _marked(self, outcome: Outcome) -> Outcome:
        """With the versions that were in force in each alert."""
        for each in (*outcome.alerts, *outcome.audits):
            each["config_version"], each["rules_version"] = self.version, self.rules.version
        return outcome

    def _watched(self, scene: Scene, outcome: Outcome) -> _Watched:
        watched: _Watched = {}
        for detector in self._detectors:
            try:
                suspects = detector.watch(scene)
            except Exception as error:  # noqa: BLE001 - one detector's fault; the others go on
                self._report(outcome, EventError("detect", f"{detector.rule.id} watch", _words(error)))
                continue
            for kind in detector.kinds if suspects else ():
                table = watched.setdefault(kind, {})
                for index, suspect in suspects.items():
                    table.setdefault(index, []).append((detector, suspect))
        return watched

    def _detect(self, scene: Scene, events: list[Event], outcome: Outcome) -> Findings:
        """The hot loop: most events end at the first look-up."""
        findings = Findings()
        table_of = self._watched(scene, outcome).get
        workload_ids = scene.view.workload_ids
        offset_ns = scene.view.wall_offset_ns
        learn = self._names.learn
        images = len(workload_ids)
        self._observing.begin(scene, events[0][1]["ktime_ns"] if events else 0)
        self._sigma.begin(scene)
        lookers_of = self._lookers().get
        for number, (kind, event) in enumerate(events):
            try:
                process = event["process"]
                if not 0 <= process < images:
                    raise IndexError(f"process {process} is not in the dictionary of {images}")  # noqa: TRY301
                if kind == DNS_ANSWER:
                    learn(workload_ids[process], event, event["ktime_ns"] + offset_ns)
                table = table_of(kind)
                if table is not None and process in table:
                    self._judge(scene, table[process], (kind, event), findings)
                for look in lookers_of(kind, ()):
                    for rule, suspect, sighting in look(kind, process, event):
                        findings.add(scene, rule, suspect, sighting, (kind, event))
            except Exception as error:  # noqa: BLE001 - one bad event; the rest are processed
                place = f"events[{number}] {kind} at {_position(event)}"
                stage: Stage = "correlate" if kind == DNS_ANSWER else "detect"
                self._report(outcome, EventError(stage, place, _words(error)))
        self._report_faults(outcome)
        return findings

    def _lookers(self) -> dict[str, tuple[_Look, ...]]:
        """Who looks at all events of a kind: observers, and Sigma rules, which may have changed."""
        found: dict[str, tuple[_Look, ...]] = dict.fromkeys(self._observing.kinds, (self._observing.see,))
        for kind in self._sigma.kinds:
            found[kind] = (*found.get(kind, ()), self._sigma.see)
        return found

    @staticmethod
    def _judge(
        scene: Scene, suspects: list[tuple[Detector, Suspect]], place: Event, findings: Findings
    ) -> None:
        kind, event = place
        for detector, suspect in suspects:
            sighting = detector.judge(scene, suspect, kind, event)
            if sighting is not None:
                findings.add(scene, detector.rule, suspect, sighting, place)

    def _report_faults(self, outcome: Outcome) -> None:
        """Observers that raised."""
        for rule_id, error, at in self._observing.faults:
            where = f"{rule_id} {at[0]} at {_position(at[1])}" if at else f"{rule_id} at the beginning"
            self._report(outcome, EventError("detect", where, _words(error)))

    def _respond(self, scene: Scene, findings: Findings, now_ns: int, outcome: Outcome) -> None:
        for finding in findings.in_order():
            try:
                self._conclude(scene, finding, now_ns, outcome)
            except Exception as error:  # noqa: BLE001 - one finding; the others are concluded
                place = f"{finding.rule.id} at {finding.position}"
                self._report(outcome, EventError("respond", place, _words(error)))

    def _conclude(self, scene: Scene, finding: Finding, now_ns: int, outcome: Outcome) -> None:
        view = scene.view
        node, boot_id = view.node, view.boot_id
        wall_ns = scene.wall_ns(finding.boot_ns)
        own_id = finding.alert_id(node, boot_id)
        told = self._suppression.told(node, boot_id, finding, wall_ns)
        if self._again and told and told.alert_id == own_id:
            # It may have been told only to ourselves, while we read back; readers drop what they know.
            told = None
        threat = threat_of(scene, finding, told.alert_id if told else own_id)
        if self._again:
            threat = replace(threat, again=True)
        if told:
            further = self._response.block_further(threat, now_ns)
            if further:
                self._issue(further, threat, view, now_ns, outcome)
            return
        finding.summed = self._suppression.summed(node, boot_id, finding)
        response = self._response.respond(threat, now_ns)
        workload = self._pods.describe(threat.workload)
        alert = build_alert(finding, scene, workload, response.record, now_ns)
        outcome.alerts.append(alert)
        self._issue(response, threat, view, now_ns, outcome)
        if not finding.single:
            self._suppression.tell(node, boot_id, finding, alert, response.retry)
        self._counts["respond", response.record["decision"].replace("-", "_")] += 1

    def _without_probe(
        self,
        batch: dict[str, Any],
        view: BatchView,
        admission: Admission,
        now_ns: int,
        outcome: Outcome,
    ) -> list[Event]:
        """Judge what the sensor did to test itself; the events that are left for everybody else."""
        try:
            if self._again:
                return sift(admission.events, probes(view))[0]
            events, found = self._self_tests.batch(batch, view, admission)
        except Exception as error:  # noqa: BLE001 - the other detectors see all of the batch then
            place = f"{SELF_TEST_RULE.id} in batch {batch['sequence']}"
            self._report(outcome, EventError("detect", place, _words(error)))
            return admission.events
        self._tell_nodes(found, now_ns, outcome)
        return events

    def _tell_nodes(self, found: Iterable[NodeFinding], now_ns: int, outcome: Outcome) -> None:
        for each in found:
            response = self._response.respond(threat_of_node(each), now_ns)
            alert = each.alert(self._pods.describe(each.workload), response.record, now_ns)
            outcome.alerts.append(alert)

    def _issue(
        self, response: Response, threat: Threat, view: BatchView, now_ns: int, outcome: Outcome
    ) -> None:
        clock = view.boot_id, view.wall_offset_ns
        produced = self._response.issued(response, threat, clock, now_ns, replaying=self._replaying)
        outcome.enforcements += produced.enforcements
        outcome.waiting += produced.waiting
        outcome.audits += produced.events

    def _learn(
        self, scene: Scene, batch: dict[str, Any], read: tuple[list[Event], int], outcome: Outcome
    ) -> None:
        """After the detectors, whose baseline is what was known before this batch."""
        if self.learner is None:
            return
        try:
            self.learner.observe(scene, batch, *read, on_trial=bool(self._desk.canaries))
        except Exception as error:  # noqa: BLE001 - the alerts of the batch do not depend on it
            self._report(outcome, EventError("learn", f"batch {batch['sequence']}", _words(error)))

    def _count(self, outcome: Outcome, gap_bytes: int) -> None:
        counts = self._counts
        counts["correlate", "batches"] += 1
        counts["correlate", "events"] += outcome.events
        counts["correlate", "duplicates"] += outcome.duplicates
        if gap_bytes:
            counts["correlate", "gaps"] += 1
            counts["correlate", "gap_bytes"] += gap_bytes
        counts["detect", "alerts"] += len(outcome.alerts)
        counts["respond", "enforcements"] += len(outcome.enforcements)

    def _report(self, outcome: Outcome, error: EventError) -> None:
        self._counts[error.stage, "errors"] += 1
        if len(outcome.errors) < MAX_ERRORS:
            outcome.errors.append(error)


def _position(event: Mapping[str, Any]) -> Any:
    return event.get("position", "an unknown position") if isinstance(event, dict) else "an unknown position"


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
