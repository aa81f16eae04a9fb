# SPDX-License-Identifier: Apache-2.0
"""``nsp config``: what is wrong, what it means, what would change."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

import pytest

from nsp.config_diff import differences, rule_differences
from nsp.config_explain import explained
from stream_apps.config.changes import name_of, settings
from stream_apps.config.document import StreamConfig, parse, parse_document
from tests.unit.nsp.test_command import ROOT, nsp
from tests.unit.nsp.test_rules_command import GOOD

if TYPE_CHECKING:
    from pathlib import Path

WRONG = """kafka:
  properties: {security.protocol: 3, sasl.password: 7}
detect:
  repeat_after_s: "300"
  nsp.port-scan: {ports: 1, severity: hihg}
  nsp.beacn: {}
kafka: {properties: {security.protocol: 3, sasl.password: 7}}
respond:
  dry_run: no thanks
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "stream.yaml"


def test_everything_wrong_is_told_with_place_value_and_cure(file: Path, tmp_path: Path) -> None:
    file.write_text(WRONG)
    done = nsp("config", "validate", "stream.yaml", cwd=tmp_path)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    expected = [
        ("4:19: detect.repeat_after_s: ", '(it is "300"); write a whole number, without quotes'),
        ("5:26: detect.nsp.port-scan.ports: ", "greater than or equal to 2 (it is 1)"),
        ("5:39: detect.nsp.port-scan.severity: ", '(it is "hihg"); did you mean HIGH?'),
        ("6:3: detect.nsp.beacn: ", "did you mean nsp.beacon?"),
        ("7:1: kafka is given twice", "keep one"),
        ("9:12: respond.dry_run: ", '(it is "no thanks"); write true or false, without quotes'),
    ]
    for place, cure in expected:
        (line,) = [each for each in lines if each.startswith(f"stream.yaml:{place}")]
        assert line.endswith(cure)
    # What may be a password is not repeated.
    secret = [each for each in lines if "kafka.properties" in each]
    assert len(secret) == 2
    assert not [each for each in secret if "it is" in each]
    assert lines == sorted(lines, key=lambda each: [int(part) for part in each.split(":")[1:3]])
    document = json.loads(nsp("config", "validate", str(file), "-o", "json", cwd=tmp_path).stdout)
    assert document["good"] is False
    assert document["problems"][0]["mark"] == {"line": 4, "column": 19}


def test_rules_of_the_directories_are_loaded_too(file: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    file.write_text(f"detect:\n  sigma:\n    directories:\n      - {rules}\n")
    absent = nsp("config", "validate", str(file), cwd=tmp_path)
    assert absent.returncode == 1
    assert f"{file}:4:9: detect.sigma.directories.0: {rules} cannot be read" in absent.stdout
    rules.mkdir()
    (rules / "a.yml").write_text(GOOD)
    good = nsp("config", "validate", str(file), cwd=tmp_path)
    version = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    assert good.stdout == f"{file}: good, version {version}; 1 rules loaded, 0 for other logs\n"
    assert good.returncode == 0
    (rules / "b.yml").write_text(GOOD.replace("endswith", "endswit"))
    bad = nsp("config", "validate", str(file), cwd=tmp_path)
    assert bad.returncode == 1
    assert re.match(rf"{rules}/b.yml:\d+:1: rule refused: .*endswit", bad.stdout)
    assert nsp("config", "validate", str(file), "--no-rules", cwd=tmp_path).returncode == 0


def test_a_connection_that_the_stream_app_would_refuse_is_told(file: Path, tmp_path: Path) -> None:
    file.write_text("kafka:\n  properties: {sasl.mechanism: PLAIN}\n")
    done = nsp("config", "validate", str(file), cwd=tmp_path)
    assert done.returncode == 1
    assert f"{file}:2:15: kafka.properties: Kafka property sasl.mechanism is not supported" in done.stdout


def test_a_setting_is_explained_with_where_its_value_comes_from(file: Path, tmp_path: Path) -> None:
    file.write_text("detect:\n  repeat_after_s: 300\n")
    done = nsp("config", "explain", str(file), "detect.repeat_after_s", cwd=tmp_path)
    assert done.returncode == 0
    first, second, meaning = done.stdout.splitlines()
    assert first == f"detect.repeat_after_s = 300  ({file}:2:19; default 600)"
    assert second.strip() == "a whole number, 1 to 86400; taken over in flight"
    assert meaning.strip().startswith("One alert for a process tree and rule")
    brokers = nsp("config", "explain", "kafka.brokers", cwd=tmp_path).stdout
    assert '["localhost:9092"]  (default)' in brokers
    assert "needs a restart" in brokers
    wrong = nsp("config", "explain", "detect.repeat_afters", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "did you mean detect.repeat_after_s?" in wrong.stderr


def test_every_setting_is_explained_in_words() -> None:
    found = explained(parse_document(b""), None, None)
    assert [each.name for each in found] == [name_of(each) for each in settings(StreamConfig())]
    assert [each.name for each in found if not each.meaning or "a value" in each.kind] == []
    assert all(each.origin == "default" for each in found)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("detect: {nsp.beacon: {}}", "detect: {nsp.beacon: {enabled: false}}", "nsp.beacon: switched off"),
        (
            "respond: {dry_run: true}",
            "respond: {dry_run: false}",
            "carried out from now on: workloads are cut",
        ),
        ("respond: {dry_run: false}", "", "what is cut stays cut until its time is over"),
        ("", "detect: {nsp.port-scan: {ports: 9}}", "lowered from 15 to 9 (Distinct ports"),
        (
            "",
            "detect: {nsp.beacon: {exclusions: [{reason: backup, namespaces: [b]}]}}",
            "nsp.beacon alerts no more where: backup",
        ),
        ("", "detect: {sigma: {directories: [/r]}}", "rules of /r are judged"),
        ("", "respond: {policies: [{name: p, namespaces: [n]}]}", "policy p is new, number 1"),
        ("respond: {policies: [{name: p}]}", "", "policy p is gone"),
        (
            "respond: {policies: [{name: p}, {name: q}]}",
            "respond: {policies: [{name: q}, {name: p}]}",
            "asked in another order: q, p",
        ),
        (
            "",
            "respond: {nsp.rce-egress: {actions: [{action: kill, ttl_s: 900}]}}",
            "answered by kill for 900 s, and was by quarantine-process for 3600 s",
        ),
        ("", "learn: {forbidden_names: [evil.example]}", 'with "evil.example"'),
        ("", "kafka: {group: g}", 'from "nsp-stream" to "g"'),
    ],
)
def test_a_difference_is_told_by_its_effect(old: str, new: str, words: str) -> None:
    (found,) = differences(parse(old), parse(new))
    assert words in found.text()
    assert found.needs_restart == found.name.startswith("kafka")


def test_rules_that_come_and_go_with_a_directory_are_named(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "a.yml").write_text(GOOD)
    without, judged = parse(""), parse(f"detect: {{sigma: {{directories: ['{rules}']}}}}")
    off = parse(f"detect: {{sigma: {{enabled: false, directories: ['{rules}']}}}}")
    (come,) = rule_differences(without, judged)
    assert come.effect.endswith("(Curl runs) is judged from now on")
    (gone,) = rule_differences(judged, off)
    assert gone.effect.endswith("(Curl runs) is judged no more")
    assert rule_differences(judged, judged) == []
    assert rule_differences(without, parse("detect: {sigma: {directories: [/absent]}}")) == []


def test_the_exit_status_is_that_of_diff(file: Path, tmp_path: Path) -> None:
    file.write_text("service: {log_level: debug}\n")
    other = tmp_path / "other.yaml"
    other.write_text("# the same\nservice:\n  log_level: debug\nrespond: {dry_run: true}\n")
    same = nsp("config", "diff", str(file), str(other), cwd=tmp_path)
    assert (same.returncode, same.stdout) == (0, "")
    other.write_text("")
    differs = nsp("config", "diff", str(file), str(other), cwd=tmp_path)
    assert differs.returncode == 1
    assert "service.log_level: from" in differs.stdout
    assert "[needs a restart]" in differs.stdout
    assert "not taken over by a process that runs" in differs.stdout
    assert nsp("config", "diff", str(file), "absent.yaml", cwd=tmp_path).returncode == 2


def test_examples_name_their_schema_for_editors() -> None:
    for each in [ROOT / "examples" / "stream.yaml"]:
        (line,) = [text for text in each.read_text().splitlines() if "yaml-language-server: $schema=" in text]
        assert (each.parent / line.partition("$schema=")[2]).resolve().is_file()
