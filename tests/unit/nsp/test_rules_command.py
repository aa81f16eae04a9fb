# SPDX-License-Identifier: Apache-2.0
"""``nsp rules`` as a person runs it, and the rules we ship held by it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from stream_apps.detect.attack import TECHNIQUES
from stream_apps.sigma.cases import CASES_SUFFIX, LEAST_CASES, read_cases
from stream_apps.sigma.loading import files_of
from stream_apps.sigma.reference import field_table
from tests.unit.nsp.test_command import ROOT, nsp

RULES = ROOT / "examples" / "rules"
SHIPPED = sorted(Path(name) for name, _ in files_of(RULES))
GOOD = """title: Curl runs
id: 5c5e2c52-7a0e-4c57-8a59-3d0c5be8f1aa
level: high
logsource: {category: process_creation, product: linux}
detection:
  selection:
    Image|endswith: /curl
  condition: selection
"""
CASES = """- {name: curl, expect: alert, events: [{Image: /bin/curl}]}
- {name: wget, expect: nothing, events: [{Image: /bin/wget}]}
- {name: curls, expect: nothing, events: [{Image: /bin/curls}]}
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    (tmp_path / "good.yml").write_text(GOOD)
    (tmp_path / "good.events.yml").write_text(CASES)
    return tmp_path


def test_lint_says_what_becomes_of_each_rule(rules: Path) -> None:
    done = nsp("rules", "lint", str(rules))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{rules}/good.yml:1: loaded: Curl runs" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 loaded, 0 for other logs, 0 refused"


def test_lint_fails_where_a_rule_is_refused_and_says_on_which_line(rules: Path) -> None:
    (rules / "bad.yml").write_text(GOOD.replace("Image", "Imag").replace("5c5e", "5c5f"))
    (rules / "other.yml").write_text(GOOD.replace("product: linux", "product: windows"))
    done = nsp("rules", "lint", str(rules))
    assert done.returncode == 1
    assert (
        f"{rules}/bad.yml:7: refused: no event of this category has a field Imag; did you mean" in done.stdout
    )
    assert f"{rules}/other.yml:4: for other logs: for windows" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 loaded, 1 for other logs, 1 refused"


def test_lint_as_json(rules: Path) -> None:
    (rules / "bad.yml").write_text("- no rule")
    done = nsp("rules", "lint", str(rules), "-o", "json")
    assert done.returncode == 1
    bad, good = json.loads(done.stdout)
    assert (bad["status"], bad["line"]) == ("refused", 1)
    assert (good["status"], good["rule_id"]) == ("loaded", "5c5e2c52-7a0e-4c57-8a59-3d0c5be8f1aa")


def test_lint_takes_users_and_placeholders_from_the_configuration(rules: Path) -> None:
    (rules / "good.yml").write_text(
        GOOD.replace("    Image|endswith: /curl", "    User: app\n    CommandLine|expand: '%tools%'")
    )
    assert nsp("rules", "lint", str(rules)).returncode == 1
    config = rules / "stream.conf"
    config.write_text("detect: {sigma: {users: {'1000': app}, placeholders: {tools: [nmap]}}}")
    assert nsp("rules", "lint", str(rules), "--config", str(config)).returncode == 0


@pytest.mark.parametrize("command", ["lint", "test"])
def test_a_directory_without_rules_is_a_mistake(tmp_path: Path, command: str) -> None:
    done = nsp("rules", command, str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "no rules in it" in done.stderr
    assert nsp("rules", command, str(tmp_path / "absent")).returncode == 1


def test_cases_that_come_as_expected(rules: Path) -> None:
    report = rules / "report.xml"
    done = nsp("rules", "test", str(rules), "--junit", str(report))
    assert (done.returncode, done.stdout) == (0, "3 cases of 1 rule files, 0 failed\n")
    suite = ET.parse(report).getroot()[0]  # noqa: S314 - our own file
    assert (suite.get("tests"), suite.get("failures"), len(suite)) == ("3", "0", 3)


@pytest.mark.parametrize(
    ("cases", "told"),
    [
        (CASES.replace("/bin/curls", "/bin/curl"), "curls: alerted: Curl runs"),
        (CASES.replace("{Image: /bin/curl}", "{Image: /bin/curly}"), "curl: no alert"),
        (CASES.replace("{Image: /bin/curl}", "{Imag: /bin/curl}"), "curl: no event has a field Imag"),
        (CASES.splitlines()[0], "at least 3"),
        (CASES.replace("alert", "perhaps"), "good.events.yml: 0.expect"),
        ("[", "not YAML"),
    ],
)
def test_cases_that_do_not_are_failures(rules: Path, cases: str, told: str) -> None:
    (rules / "good.events.yml").write_text(cases)
    report = rules / "report.xml"
    done = nsp("rules", "test", str(rules), "--junit", str(report))
    assert done.returncode == 1
    assert told in done.stdout
    assert ET.parse(report).getroot()[0].get("failures") == "1"  # noqa: S314 - our own file


def test_a_rule_without_cases_or_that_is_refused_fails(rules: Path) -> None:
    (rules / "good.events.yml").unlink()
    assert "no good.events.yml beside it" in nsp("rules", "test", str(rules)).stdout
    (rules / "good.yml").write_text(GOOD.replace("Image", "Imag"))
    assert "line 7" in nsp("rules", "test", str(rules)).stdout


def test_help_needs_no_sigma() -> None:
    program = "import sys, nsp.cli; sys.exit(any(name.partition('.')[0] == 'sigma' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_the_document_has_the_table_of_fields() -> None:
    assert field_table() in (ROOT / "docs" / "sigma.md").read_text(), "write it anew: nsp rules fields"
    assert nsp("rules", "fields").stdout.strip() == field_table()


def test_the_rules_we_ship_are_enough_and_load_and_come_as_expected() -> None:
    assert len(SHIPPED) >= 15
    assert nsp("rules", "lint", str(RULES)).returncode == 0
    done = nsp("rules", "test", str(RULES))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_each_rule_we_ship_tells_an_analyst_what_to_think(path: Path) -> None:
    documents: list[dict[str, Any]] = list(yaml.safe_load_all(path.read_text()))
    for each in documents:
        assert each["description"]
        assert each["level"]
    telling = documents[-1]
    assert telling["falsepositives"]
    techniques = [
        tag.removeprefix("attack.").upper() for tag in telling["tags"] if tag.startswith("attack.t1")
    ]
    assert techniques
    assert set(techniques) <= TECHNIQUES
    cases = read_cases(path.with_name(f"{path.stem}{CASES_SUFFIX}.yml").read_bytes())
    assert len(cases) >= LEAST_CASES
