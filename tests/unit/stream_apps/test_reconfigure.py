# SPDX-License-Identifier: Apache-2.0
"""Another configuration between two batches: what is remembered stays, and what is wanted takes effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from schemas.codec import decode_as, encode
from stream_apps.config.changes import changed, name_of, restart_needed, settings
from stream_apps.config.document import StreamConfig, parse
from stream_apps.detect.observers import build_observers
from stream_apps.detect.registry import build_detectors
from stream_apps.detect.retune import retuned
from stream_apps.pipeline import Pipeline
from stream_apps.profiles.desk import ProfileDesk
from stream_apps.respond.disarmer import Attempt, DisarmerLimits
from stream_apps.respond.limits import Allowance, Limits, Rate
from stream_apps.sigma.book import make_ready
from stream_apps.sigma.build import surroundings
from tests.support.attacks import attack_batch
from tests.support.stream import config as quiet_config

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_apps.config.basis import Section

SECOND = 1_000_000_000
NOW = 1_790_000_000 * SECOND
RULE = """
title: curl is started
id: 5c5e2c52-0000-4000-8000-000000000001
status: test
logsource: {category: process_creation, product: linux}
detection:
  selection: {Image|endswith: /curl}
  condition: selection
level: high
"""


def reconfigure(
    through: Pipeline, config: StreamConfig, rules: Iterable[tuple[str, bytes | str]] = (), at_ns: int = NOW
) -> None:
    ready = make_ready(rules, surroundings(config.detect.sigma), through.rules.held())
    through.reconfigure(config, "0123456789ab", ready, at_ns)


def told(through: Pipeline, number: int, node: str = "n") -> list[tuple[str, str]]:
    outcome = through.process(attack_batch(node, number, NOW + number * SECOND), NOW + number * SECOND)
    assert outcome.errors == []
    return [(each["rule_id"], each["response"]["decision"]) for each in outcome.alerts]


def test_the_next_batch_is_judged_by_the_new_configuration_and_its_alerts_say_so() -> None:
    through = Pipeline(quiet_config())
    assert told(through, 1) == [("nsp.rce-egress", "issued")]
    reconfigure(through, quiet_config(detect={"nsp.rce-egress": {"enabled": False}}))
    assert told(through, 2) == []
    reconfigure(through, quiet_config(respond={"dry_run": True}))
    (alert,) = through.process(attack_batch("n", 3, NOW), NOW).alerts
    assert alert["response"]["decision"] == "dry-run"
    assert alert["config_version"] == "0123456789ab"
    assert alert["rules_version"] == through.rules.version
    assert decode_as("Alert", encode("Alert", alert)) == alert


def test_an_attack_that_was_told_is_not_told_again_nor_answered_twice() -> None:
    through = Pipeline(quiet_config())
    batch = attack_batch("n", 1, NOW)
    first = through.process(batch, NOW)
    assert len(first.alerts) == len(first.enforcements) == 1
    reconfigure(through, quiet_config(detect={"repeat_after_s": 300}))
    batch["events"] = [
        (kind, {**event, "position": event["position"] + 4096}) for kind, event in batch["events"]
    ]
    batch |= {"sequence": 2, "ring_start": batch["ring_end"], "ring_end": batch["ring_end"] + 4096}
    again = through.process(batch, NOW + SECOND)
    assert again.events > 0
    assert (again.alerts, again.enforcements) == ([], [])


def test_sigma_rules_come_and_go_and_a_file_that_went_bad_keeps_its_rule() -> None:
    through = Pipeline(quiet_config())
    rule = "sigma.5c5e2c52-0000-4000-8000-000000000001"
    assert rule not in dict(told(through, 1))
    reconfigure(through, quiet_config(), [("rules/a.yml", RULE)])
    assert rule in dict(told(through, 2))
    version = through.rules.version
    reconfigure(
        through, quiet_config(), [("rules/a.yml", RULE.replace("condition: selection", "condition: x"))]
    )
    assert rule in dict(told(through, 3))
    assert through.rules.version == version
    reconfigure(through, quiet_config(), [])
    assert rule not in dict(told(through, 4))


def test_exclusions_and_severity_of_sigma_rules_are_taken_over() -> None:
    through = Pipeline(quiet_config())
    rule = "sigma.5c5e2c52-0000-4000-8000-000000000001"
    reconfigure(through, quiet_config(detect={"sigma": {"severity": "LOW"}}), [("a.yml", RULE)])
    alerts = through.process(attack_batch("n", 1, NOW), NOW).alerts
    assert [each["severity"] for each in alerts if each["rule_id"] == rule] == ["LOW"]
    excluded = {"reason": "known", "rules": ["sigma.*"], "actors": ["*/curl"]}
    reconfigure(through, quiet_config(detect={"sigma": {"exclusions": [excluded]}}), [("a.yml", RULE)])
    assert rule not in dict(told(through, 2))


def test_switched_off_no_sigma_rule_is_judged_not_even_a_published_one() -> None:
    off = quiet_config(detect={"sigma": {"enabled": False}})
    through = Pipeline(off)
    through.rules.publish("k", RULE.encode())
    through.rules.settle()
    assert len(told(through, 1)) == 1
    reconfigure(through, quiet_config())
    assert len(told(through, 2)) == 2
    reconfigure(through, off)
    assert len(told(through, 3)) == 1


def test_a_published_rule_is_judged_with_the_new_surroundings() -> None:
    through = Pipeline(quiet_config())
    text = RULE.replace("Image|endswith: /curl", "Image|expand: '%tools%'")
    reconfigure(through, quiet_config(detect={"sigma": {"placeholders": {"tools": ["*/wget"]}}}))
    through.rules.publish("k", text.encode())
    through.rules.settle()
    assert len(told(through, 1)) == 1
    reconfigure(through, quiet_config(detect={"sigma": {"placeholders": {"tools": ["*/curl"]}}}))
    assert len(told(through, 2)) == 2


def observers(**changes: Any) -> list[Any]:
    detect = parse(yaml.safe_dump({"detect": changes})).detect
    return [*build_observers(detect), *build_detectors(detect, ProfileDesk())]


def variants() -> list[tuple[str, str, Any]]:
    """Each setting of each rule, with another value."""
    found = []
    for place, each in settings(StreamConfig()).items():
        if (
            place[0] != "detect"
            or len(place) != 3
            or not str(place[1]).startswith("nsp.")
            or place[2] == "enabled"
        ):
            continue
        found.append((str(place[1]), str(place[2]), _other(str(place[2]), each.value)))
    return found


def _other(name: str, value: Any) -> Any:
    if name == "severity":
        return "LOW"
    if name == "exclusions":
        return [{"reason": "r", "actors": ["/x"]}]
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return value[:-1]
    return value * 0.9 if isinstance(value, float) else value + 1


@pytest.mark.parametrize(("rule", "name", "value"), variants(), ids=lambda each: str(each)[:20])
def test_each_setting_of_a_rule_reaches_the_detector_that_runs(rule: str, name: str, value: Any) -> None:
    before = next((each for each in observers() if each.rule.id == rule), None)
    wanted = next((each for each in observers(**{rule: {name: value}}) if each.rule.id == rule), None)
    if before is None or wanted is None:
        assert rule in {"nsp.sensor-silence", "nsp.self-test"}  # the pipeline's own, below
        return
    for attribute in wanted.settings:
        assert attribute in vars(before)
    memory = {key: id(each) for key, each in vars(before).items() if key not in before.settings}
    differing = [
        key
        for key, each in vars(wanted).items()
        if isinstance(each, int | float | str | tuple | frozenset | set) and each != vars(before)[key]
    ]
    differing += [key for key in ("_limits",) if vars(wanted).get(key) != vars(before).get(key)]
    assert set(differing) <= set(wanted.settings)
    (running,) = retuned([before], [wanted])
    assert running is before
    for key in wanted.settings:
        assert vars(running)[key] == vars(wanted)[key]
    assert {key: id(vars(running)[key]) for key in memory} == memory


def test_silence_keeps_its_nodes_and_takes_its_limits() -> None:
    through = Pipeline(quiet_config())
    assert through._silence
    told(through, 1)
    reconfigure(through, quiet_config(detect={"nsp.sensor-silence": {"silent_s": 10}}))
    assert len(through._silence._nodes) == 1
    assert through._silence._limits.silent_s == 10
    reconfigure(through, quiet_config(detect={"nsp.sensor-silence": {"enabled": False}}))
    assert ("detect", "sensor_silence_nodes_now") not in through.metrics()
    reconfigure(through, quiet_config())
    assert through.metrics()["detect", "sensor_silence_nodes_now"] == 0


def test_self_tests_keep_their_nodes_and_take_their_limits() -> None:
    through = Pipeline(quiet_config())
    told(through, 1)
    reconfigure(through, quiet_config(detect={"nsp.self-test": {"enabled": False, "repeat_s": 60}}))
    assert through.metrics()["detect", "self_test_nodes_now"] == 1
    assert (through._self_tests._tells, through._self_tests._limits.repeat_s) == (False, 60)


def test_names_of_resolvers_that_are_trusted_no_more_excuse_nothing() -> None:
    trusting = {"correlate": {"names": {"trusted_resolvers": ["0.0.0.0/0"]}}}
    through = Pipeline(quiet_config(**trusting))
    told(through, 1)
    assert [each.trusted for table in through._names._workloads.values() for each in table.values()] == [True]
    reconfigure(through, quiet_config(**trusting))
    assert [each.trusted for table in through._names._workloads.values() for each in table.values()] == [True]
    reconfigure(through, quiet_config())
    assert [each.trusted for table in through._names._workloads.values() for each in table.values()] == [
        False
    ]
    assert not through._names.is_trusted("10.96.0.10")


def test_what_cannot_be_built_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    through = Pipeline(quiet_config())
    before = {key: each for key, each in vars(through).items() if key != "_counts"}

    def broken(*_: object) -> None:
        raise ValueError("no")

    monkeypatch.setattr("stream_apps.sigma.book.load", broken)
    with pytest.raises(ValueError, match="no"):
        through.reconfigure(quiet_config(respond={"dry_run": True}), "x", make_ready_of(through), NOW)
    assert {key: vars(through)[key] for key in before} == before
    assert told(through, 1) == [("nsp.rce-egress", "issued")]


def make_ready_of(through: Pipeline) -> Any:
    from stream_apps.sigma.book import Ready  # noqa: PLC0415 - beside the patched function

    return Ready(surroundings(quiet_config().detect.sigma), (), {})


def test_a_batch_that_is_sent_again_is_judged_though_it_is_old_and_moves_no_account() -> None:
    through = Pipeline(quiet_config())
    batch = attack_batch("n", 1, NOW)
    through.process(attack_batch("n", 2, NOW), NOW)
    assert through.process(batch, NOW).alerts == []  # an old one by itself is a duplicate
    totals = through.ledger.totals()
    outcome = through.process(batch, NOW, again=True)
    assert [each["rule_id"] for each in outcome.alerts] == ["nsp.rce-egress"]
    assert len(outcome.enforcements) == 1
    assert through.ledger.totals() == totals


def test_what_was_only_told_while_reading_back_is_told_and_ordered_when_sent_again() -> None:
    through = Pipeline(quiet_config())
    batch = attack_batch("n", 1, NOW)
    assert through.process(batch, NOW, replaying=True).alerts == []
    outcome = through.process(batch, NOW, again=True)
    assert len(outcome.alerts) == len(outcome.enforcements) == 1
    # Further evidence of the same attack is still no news.
    assert through.process(attack_batch("n", 1, NOW), NOW).alerts == []


# Limits.

PLENTY = Rate(100_000, 100_000)
FLEET = DisarmerLimits(1000, 1000)


def limits_with(allowance: Allowance, count: int) -> Limits:
    made = Limits(PLENTY, FLEET)
    for number in range(count):
        made.objection(allowance, "r", Attempt("n", f"w{number}", f"t{number}"), NOW)
    made.changes(NOW)
    return made


def test_a_dismantled_rule_is_armed_by_loading_again_and_a_disarmed_one_is_not() -> None:
    new = Allowance("p", PLENTY, DisarmerLimits(2, 99, new_for_ns=3600 * SECOND))
    dismantled = limits_with(new, 4)
    assert dismantled.held_back(new, "r")
    dismantled.load_again(PLENTY, FLEET, ([new], [new]), NOW + SECOND)
    assert dismantled.held_back(new, "r") is None
    assert [(each.name, each.state) for each in dismantled.changes(NOW + SECOND)] == [("r", "armed")]
    old = Allowance("p", PLENTY, DisarmerLimits(2, 99))
    disarmed = limits_with(old, 4)
    disarmed.load_again(PLENTY, FLEET, ([old], [old]), NOW + SECOND)
    assert disarmed.held_back(old, "r")
    assert disarmed.changes(NOW + SECOND) == []


def test_other_limits_apply_to_what_was_counted_before() -> None:
    before = Allowance("p", PLENTY, DisarmerLimits(10, 99))
    after = Allowance("p", PLENTY, DisarmerLimits(3, 99))
    limits = limits_with(before, 3)
    limits.load_again(PLENTY, FLEET, ([before], [after]), NOW)
    assert limits.objection(after, "r", Attempt("n", "w9", "t9"), NOW)
    # A disarmed rule does not come back because its policy was given other limits.
    wider = Allowance("p", PLENTY, DisarmerLimits(50, 99))
    limits.load_again(PLENTY, FLEET, ([after], [wider]), NOW)
    assert limits.objection(wider, "r", Attempt("n", "w9", "t9"), NOW)
    limits.load_again(PLENTY, FLEET, ([wider], []), NOW)
    assert limits.disarmed_rules() == []
    assert "armed" in [each.state for each in limits.changes(NOW)]


def test_policies_that_shared_a_disarmer_part_with_what_it_counted() -> None:
    same = DisarmerLimits(3, 99)
    one, two = Allowance("one", PLENTY, same), Allowance("two", PLENTY, same)
    limits = limits_with(one, 3)
    parted = Allowance("two", PLENTY, DisarmerLimits(3, 50))
    limits.load_again(PLENTY, FLEET, ([one, two], [one, parted]), NOW)
    assert limits.objection(one, "r", Attempt("n", "w9", "t9"), NOW)
    assert limits.objection(parted, "r", Attempt("n", "w9", "t9"), NOW)


def test_an_empty_bucket_is_not_filled_by_a_reload() -> None:
    allowance = Allowance("p", Rate(1, 2), DisarmerLimits(99, 99))
    limits = limits_with(allowance, 2)
    more = Allowance("p", Rate(1, 100), DisarmerLimits(99, 99))
    limits.load_again(PLENTY, FLEET, ([allowance], [more]), NOW)
    found = limits.objection(more, "r", Attempt("n", "w", "t"), NOW)
    assert found
    assert found.kind == "rate-limited"


def test_a_kill_that_waits_is_not_done_when_the_configuration_says_otherwise_by_then() -> None:
    kill = {"actions": [{"action": "kill", "ttl_s": 3600}]}
    others: list[dict[str, Any]] = [
        {"dry_run": True, "nsp.rce-egress": kill},
        {"nsp.rce-egress": {}},
        {"nsp.rce-egress": kill, "never_cut": {"workloads": ["*"]}},
    ]
    for changes in others:
        through = Pipeline(quiet_config(respond={"nsp.rce-egress": kill}))
        assert told(through, 1) == [("nsp.rce-egress", "queued")]
        reconfigure(through, quiet_config(respond=changes))
        outcome = through.tick(NOW + 60 * SECOND)
        assert outcome.enforcements == []
        assert [each["audit"]["status"] for each in outcome.audits if each["audit"]] == ["refused"]
        assert [each["state"] for each in outcome.waiting] == ["DROPPED"]
    through = Pipeline(quiet_config(respond={"nsp.rce-egress": kill}))
    told(through, 1)
    reconfigure(through, quiet_config(respond={"nsp.rce-egress": kill, "kill_after_s": 9}))
    assert [each["killed"] for each in through.tick(NOW + 60 * SECOND).enforcements] == [True]


def test_what_was_learned_stays_and_is_judged_by_the_new_thresholds() -> None:
    through = Pipeline(quiet_config())
    assert through.learner
    told(through, 1)
    shards = list(through.learner._shelf.shards.values())
    reconfigure(
        through,
        quiet_config(learn={"gate": {"min_pods": 7}, "never_programs": ["zzz"], "forbidden_networks": []}),
    )
    assert list(through.learner._shelf.shards.values()) == shards
    assert through.learner._shelf._settings.thresholds.min_pods == 7
    assert through.learner._mistrust.never_programs == {"zzz"}
    assert {each.limits.never for each in shards} == {()}


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("kafka: {group: other}", ["kafka.group"]),
        ("signing: {key_file: /k}", ["signing.key_file"]),
        (
            "service: {metrics_address: null, log_level: debug}",
            ["service.metrics_address", "service.log_level"],
        ),
        ("learn: {enabled: false, warm_up_s: 5}", ["learn.enabled"]),
        ("learn: {bounds: {programs: 7}}", ["learn.bounds.programs"]),
        ("detect: {repeat_after_s: 60}\nrespond: {dry_run: false}", []),
    ],
)
def test_what_needs_a_restart_is_named(section: str, expected: list[str]) -> None:
    assert restart_needed(StreamConfig(), parse(section)) == expected


def test_an_item_that_says_a_default_differs_from_none_that_does_not() -> None:
    one = parse("respond: {policies: [{name: a}]}")
    two = parse("respond: {policies: [{name: a, burst: 200}]}")
    assert changed(one, two) == []
    assert [name_of(each.place) for _, each in changed(one, StreamConfig())] == ["respond.policies"]


def test_every_setting_has_a_place() -> None:
    def leaves(section: Section) -> int:
        values = [getattr(section, name) for name in type(section).model_fields]
        return sum(leaves(each) if hasattr(each, "model_fields_set") else 1 for each in values)

    assert len(settings(StreamConfig())) == leaves(StreamConfig())
