# SPDX-License-Identifier: Apache-2.0
"""The one configuration file: read whole, or refused whole with place, reason and cure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stream_apps.assembly import build_names, build_responder
from stream_apps.config.document import (
    MAX_FILE_BYTES,
    StreamConfig,
    json_schema,
    json_schema_text,
    load,
    parse,
)
from stream_apps.detect.registry import RULE_IDS, build_detectors
from stream_apps.errors import ConfigError
from stream_apps.pipeline import Pipeline
from stream_apps.profiles.desk import ProfileDesk
from stream_apps.respond.desired import DesiredStates

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "stream.yaml"
PUBLISHED = ROOT / "schemas" / "config" / "stream.schema.json"


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        parse(text, "stream.yaml")
    return str(refused.value)


def test_an_empty_file_is_the_default_configuration_and_cuts_nothing() -> None:
    assert parse("") == parse("# nothing") == parse("{}") == StreamConfig()
    assert StreamConfig().respond.dry_run


def test_the_example_is_valid_and_makes_a_pipeline() -> None:
    config = load(EXAMPLE)
    Pipeline(config)
    assert config.detect.rce_egress.exclusions[0].dns_names == ("hooks.partner.example",)


def test_the_example_shows_the_defaults_where_it_says_so() -> None:
    config, default = load(EXAMPLE), StreamConfig()
    assert config.kafka == default.kafka
    assert config.signing == default.signing
    assert config.service == default.service
    assert config.respond == default.respond
    assert config.learn == default.learn
    changed = {
        "names": default.correlate.names.model_copy(
            update={"trusted_resolvers": config.correlate.names.trusted_resolvers}
        )
    }
    assert config.correlate == default.correlate.model_copy(update=changed)
    assert config.detect.reverse_shell == default.detect.reverse_shell


def test_the_published_schema_is_the_models() -> None:
    assert PUBLISHED.read_text() == json_schema_text(), "write it anew: nsp config schema"


def test_every_field_says_what_it_means() -> None:
    schema = json_schema()
    sections = [schema, *schema["$defs"].values()]
    silent = [
        f"{section['title']}.{name}"
        for section in sections
        for name, field in section.get("properties", {}).items()
        # A section that is described as its field is says it once.
        if "description" not in field | schema["$defs"].get(field.get("$ref", "").rpartition("/")[2], {})
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("kafka:\n  grup: x\n", "stream.yaml:2: kafka.grup: ", "did you mean group?"),
        ("\n\nbogus: 1\n", "stream.yaml:3: bogus: ", "known here: kafka, signing"),
        ("respond:\n  dry_run: 'no'\n", "stream.yaml:2: respond.dry_run: ", 'it is "no"'),
        ("detect:\n  repeat_after_s: 1.5\n", "stream.yaml:2: detect.repeat_after_s: ", "valid integer"),
        (
            "detect:\n  repeat_after_s: 0\n",
            "stream.yaml:2: detect.repeat_after_s: ",
            "greater than or equal to 1",
        ),
        ("kafka:\n  brokers: []\n", "stream.yaml:2: kafka.brokers: ", "at least 1 item"),
        ("kafka:\n  brokers:\n    - a\n", "stream.yaml:3: kafka.brokers.0: ", "host:port"),
        ("service: {metrics_address: 'h:99999'}\n", "stream.yaml:1: service.metrics_address: ", "host:port"),
        (
            "respond:\n  nsp.rce-egres: {}\n",
            "stream.yaml:2: respond.nsp.rce-egres: ",
            "did you mean nsp.rce-egress?",
        ),
        (
            "detect:\n  nsp.rce-egress:\n    severity: BAD\n",
            "stream.yaml:3: detect.nsp.rce-egress.severity: ",
            "'CRITICAL'",
        ),
        (
            "detect:\n  nsp.rce-egress:\n    exclusions:\n      - reason: x\n",
            "stream.yaml:4: detect.nsp.rce-egress.exclusions.0: ",
            "set enabled: false",
        ),
        (
            "detect:\n  nsp.rce-egress:\n    exclusions:\n      - actors: [a]\n",
            "stream.yaml:4: detect.nsp.rce-egress.exclusions.0.reason: ",
            "add it",
        ),
        (
            "detect:\n  nsp.rce-egress:\n    exclusions:\n      - {reason: x, destinations: [300.1.1.1]}\n",
            "stream.yaml:4: detect.nsp.rce-egress.exclusions.0.destinations.0: ",
            "does not appear to be an IPv4 or IPv6 network",
        ),
        (
            "detect:\n  nsp.rce-egress:\n    exclusions:\n      - {reason: hook, dns_names: [a]}\n",
            "stream.yaml:1: the file: ",
            "list the networks of your resolvers there",
        ),
        (
            "respond:\n  nsp.rce-egress:\n    actions: [{action: alert}, {action: alert}]\n",
            "stream.yaml:2: respond.nsp.rce-egress: ",
            "each action may be given once",
        ),
        (
            "respond:\n  nsp.rce-egress:\n    actions: [{action: quarantine-process, ttl_s: 60}]\n",
            "stream.yaml:1: the file: ",
            "make that the shorter one",
        ),
        ("a: [", "stream.yaml:1: ", "not YAML"),
        ("kafka: {}\nkafka: {}\n", "stream.yaml:2: ", "kafka is given twice; keep one"),
        ("kafka: {group: 2020-01-01}\n", "stream.yaml: ", "in quotes"),
        ("- 1\n", "stream.yaml:1: the file: ", "object"),
        ("a: &a [*a]\n", "stream.yaml: ", "alias within itself"),
        ("!!python/object:os.system x\n", "stream.yaml:1: ", "not YAML"),
    ],
)
def test_a_refusal_names_line_place_reason_and_cure(text: str, place: str, reason: str) -> None:
    problem = refusal(text)
    assert problem.startswith(place)
    assert reason in problem


def test_all_problems_are_told_at_once() -> None:
    assert len(refusal("kafka:\n  grup: x\nrespond:\n  dry_run: 3\nbogus: 1\n").splitlines()) == 3


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "absent.yaml")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than"):
        load(large)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\x00\xff\xfe")
    with pytest.raises(ConfigError, match="not YAML"):
        load(binary)


def test_every_rule_has_a_place_in_the_configuration() -> None:
    names: dict[str, Any] = json_schema()["$defs"]["Detect"]["properties"]
    assert set(RULE_IDS) < set(names)
    assert [each.rule.id for each in build_detectors(StreamConfig().detect, ProfileDesk())] == list(RULE_IDS)


def test_what_the_file_says_reaches_the_parts() -> None:
    config = parse(
        "correlate: {names: {trusted_resolvers: [10.9.0.0/16], max_addresses: 7}}\n"
        "detect: {nsp.reverse-shell: {enabled: false}}\n"
    )
    assert build_names(config.correlate).is_trusted("10.9.1.1")
    assert "nsp.reverse-shell" not in [each.rule.id for each in build_detectors(config.detect, ProfileDesk())]
    responder, situation = build_responder(config, DesiredStates())
    assert situation.limits.disarmed_rules() == []
    assert {each.name for each in responder.book.policies} == {"nsp.rce-egress", "nsp.reverse-shell"}
