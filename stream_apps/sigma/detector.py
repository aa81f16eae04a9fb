# SPDX-License-Identifier: Apache-2.0
"""Sigma rules over the events of a batch: what matches, who did it, and what shows it.

Input: events, one by one. Output: rule, suspect and sighting of each match, as from any detector.
Correlations are fed with the matches, those of silent rules too. A match of an excluded process, and a rule
that raises, leave the others as they are; both are counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from stream_apps.detect.exclusions import apply_exclusions, matches
from stream_apps.detect.observer import suspect_of
from stream_apps.detect.rule import RANK, Destination, Sighting
from stream_apps.detect.scene import shown
from stream_apps.sigma import taxonomy
from stream_apps.sigma.correlation import Correlator
from stream_apps.sigma.evidence import explanation_of
from stream_apps.sigma.facts import FactMaker
from stream_apps.sigma.quiet import Quiet
from stream_apps.sigma.ruleset import RuleSet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.detect.exclusions import Exclusion
    from stream_apps.detect.rule import Rule, Severity, Suspect
    from stream_apps.detect.scene import Scene
    from stream_apps.sigma.book import RuleBook
    from stream_apps.sigma.evidence import Explanation
    from stream_apps.sigma.facts import Facts
    from stream_apps.sigma.ruleset import EventRule

Seen = tuple["Rule", "Suspect", "Sighting"]
Place = tuple[int, "Mapping[str, Any]"]
"""An image and an event of it."""

_NOTHING: Final[tuple[Seen, ...]] = ()
# Where no process is known, matches of one rule and node are one finding.
_NOBODY: Final = 1
# Of one value in a summary; the whole is in the lineage.
_SHOWN_VALUE: Final = 120
_NS_PER_S: Final = 1_000_000_000
_PROTOCOL_NUMBERS: Final = {"tcp": 6, "udp": 17, "sctp": 132, "udplite": 136}


@dataclass(frozen=True, slots=True)
class SigmaExclusion:
    """An exclusion and the rules it is for, as patterns of ids."""

    rules: tuple[str, ...]
    exclusion: Exclusion


class SigmaDetector:
    """Judges events by the rules of a book. Not thread-safe; one batch at a time.

    Args:
        book: The rules; replaced whole when they change, seen at the next batch.
        exclusions: What is known and wanted.
        severity: The highest to give.

    Attributes:
        counts: Matches, and what became of them.
    """

    def __init__(
        self, book: RuleBook, exclusions: Sequence[SigmaExclusion] = (), severity: Severity = "CRITICAL"
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._book = book
        self._exclusions = tuple(exclusions)
        self._severity = severity
        self._enabled = True
        self._correlators: dict[str, Correlator] = {}
        self._errors: Counter[str] = Counter()
        self._scene: Scene | None = None
        self._rules = RuleSet()
        self._take(book.rules)

    def retune(
        self, exclusions: Sequence[SigmaExclusion], severity: Severity, *, enabled: bool = True
    ) -> None:
        """Other exclusions, another highest severity, on or off; correlations go on counting."""
        self._exclusions, self._severity, self._enabled = tuple(exclusions), severity, enabled
        self._of_rule.clear()

    @property
    def kinds(self) -> frozenset[str]:
        """Record names that some rule is about; none while no rule is to be judged, published ones too."""
        return self._kinds if self._enabled else frozenset()

    def begin(self, scene: Scene) -> None:
        """Take up a batch, with the rules as they are now."""
        if self._rules is not self._book.rules:
            self._take(self._book.rules)
        self._scene = scene
        self._maker.begin()
        self._quiet.begin(scene)

    def see(self, kind: str, process: int, event: Mapping[str, Any]) -> Sequence[Seen]:
        """Show an event of one of :attr:`kinds`: what matches. Mostly nothing."""
        scene = self._scene
        if scene is None:
            return _NOTHING
        quiet = self._quiet
        place = quiet.place(scene, kind, process, event)
        if place is not None and quiet.knows(scene, process, place):
            return _NOTHING
        facts = self._maker.make(scene, kind, process, event)
        index = self._rules.indexes[kind]
        faults = index.faults
        matched = index.matches(facts)
        if not matched:
            if place is not None and faults == index.faults:
                quiet.add(scene, process, place)
            return _NOTHING
        return [seen for rule in matched for seen in self._told(scene, rule, facts, process, event)]

    def metrics(self) -> Mapping[tuple[str, str], int]:
        """Counters and sizes."""
        evicted = sum(each.evicted for each in self._correlators.values())
        faults = sum(sum(each.errors.values()) for each in set(self._rules.indexes.values()))
        found = Counter({f"sigma_{name}": count for name, count in self.counts.items()})
        found.update({f"sigma_{name}": count for name, count in self._book.counts.items()})
        found["sigma_groups_evicted"] += evicted
        found["sigma_rule_errors"] += faults + sum(self._errors.values())
        sizes = {
            "sigma_rules_now": len(self._book.rules),
            "sigma_quiet_places_now": len(self._quiet),
            "sigma_groups_now": sum(map(len, self._correlators.values())),
            "sigma_rules_unusable_now": sum(each.status == "refused" for each in self._book.verdicts),
        }
        return {("detect", name): count for name, count in {**found, **sizes}.items()}

    def _take(self, rules: RuleSet) -> None:
        """Go over to other rules; a correlation that is the same goes on counting."""
        before = self._correlators
        for index in set(self._rules.indexes.values()):
            self._errors.update(index.errors)
        self._rules = rules
        self._kinds = frozenset(rules.indexes)
        self._maker = FactMaker(self._book.users, rules.needed)
        self._quiet = Quiet(by_name=self._maker.needs_host)
        self._correlators = {}
        self._fed: dict[str, list[Correlator]] = {}
        for each in rules.correlations:
            known = before.get(each.rule.id)
            correlator = known if known is not None and known.rule == each else Correlator(each)
            self._correlators[each.rule.id] = correlator
            for member in dict.fromkeys(each.members):
                self._fed.setdefault(member, []).append(correlator)
        self._of_rule: dict[str, tuple[Exclusion, ...]] = {}
        self._explanations: dict[str, Explanation] = {}

    def _told(
        self, scene: Scene, matched: EventRule, facts: Facts, process: int, event: Mapping[str, Any]
    ) -> list[Seen]:
        rule_id = matched.rule.id
        self.counts["matches"] += 1
        suspect = suspect_of(scene, process)
        sighting = self._sighting(scene, matched, facts, (process, event))
        if self._is_excluded(scene, rule_id, suspect, event, sighting):
            self.counts["excluded"] += 1
            return []
        found: list[Seen] = []
        if matched.alerts:
            found.append((self._capped(matched.rule), suspect, sighting))
        at_ns = scene.wall_ns(event["ktime_ns"])
        for correlator in self._fed.get(rule_id, ()):
            if correlator.take(scene.view.node, rule_id, facts, at_ns):
                correlation = correlator.rule
                self.counts["correlations"] += 1
                if self._is_excluded(scene, correlation.rule.id, suspect, event, sighting):
                    continue
                within = f"{correlation.timespan_ns // _NS_PER_S} s"
                says = f"completed the Sigma correlation {shown(correlation.rule.title)} within {within}"
                rule = self._capped(correlation.rule)
                found.append((rule, suspect, replace(sighting, severity=rule.severity, says=says)))
        return found

    def _sighting(self, scene: Scene, matched: EventRule, facts: Facts, place: Place) -> Sighting:
        explain = self._explanations.get(matched.rule.id)
        if explain is None:
            explain = self._explanations[matched.rule.id] = explanation_of(matched.condition)
        told = [f"{name}={shown(str(value), _SHOWN_VALUE)}" for name, value in explain(facts)]
        destination = _destination(facts)
        name: str | None = facts.values[taxonomy.QUERY_NAME]
        if destination is not None:
            process, event = place
            known = scene.name_behind(process, destination.address, event["ktime_ns"])
            name = known.name if known is not None else None
        return Sighting(
            self._capped(matched.rule).severity,
            summary="; ".join(told) or "nothing that would exclude it",
            says=f"matches the Sigma rule {shown(matched.rule.title)}",
            destination=destination,
            dns_name=name,
        )

    def _capped(self, rule: Rule) -> Rule:
        if RANK[rule.severity] <= RANK[self._severity]:
            return rule
        return replace(rule, severity=self._severity)

    def _is_excluded(
        self, scene: Scene, rule_id: str, suspect: Suspect, event: Mapping[str, Any], sighting: Sighting
    ) -> bool:
        exclusions = self._of_rule.get(rule_id)
        if exclusions is None:
            exclusions = self._of_rule[rule_id] = tuple(
                each.exclusion for each in self._exclusions if matches(each.rules, rule_id)
            )
        if not exclusions:
            return False
        remaining = apply_exclusions(scene, suspect, exclusions)
        if not remaining:
            return remaining is None
        address, name = None, None
        if sighting.destination is not None:
            address = sighting.destination.address
            known = scene.name_behind(suspect.actor, address, event["ktime_ns"])
            name = known.name if known and known.trusted else None
        elif "server_address" in event and scene.names.is_trusted(event["server_address"]):
            name = sighting.dns_name
        return any(each.covers_destination(address, name) for each in remaining)


def _destination(facts: Facts) -> Destination | None:
    """Where it went; a connection that came in went nowhere."""
    values = facts.values
    if values[taxonomy.INITIATED] != "true":
        return None
    protocol = values[taxonomy.PROTOCOL]
    number = _PROTOCOL_NUMBERS.get(protocol)
    if number is None:
        number = int(protocol) if protocol.isdecimal() else 0
    return Destination(values[taxonomy.DESTINATION_IP], values[taxonomy.DESTINATION_PORT], number)
