# SPDX-License-Identifier: Apache-2.0
"""Files of rules: what is loaded, what is for others, what is refused and on which line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stream_apps.sigma.loading import MAX_RULE_BYTES, files_of, load
from tests.support.sigma import AROUND, document, identity, loaded

if TYPE_CHECKING:
    from pathlib import Path

    from stream_apps.sigma.loading import Verdict

RULE = """title: Curl runs
id: 5c5e2c52-7a0e-4c57-8a59-3d0c5be8f1aa
level: high
tags:
  - attack.execution
  - attack.t1059.004
  - attack.t1001.999
  - attack.t1999
logsource:
  category: process_creation
  product: linux
detection:
  selection:
    Image|endswith: /curl
    CommandLine|contains:
      - http
  filter:
    - User: root
    - ParentImage: /bin/sh
  condition: selection and not filter
"""


def judged(text: str) -> Verdict:
    (verdict,) = load([("rule.yml", text)], AROUND).verdicts
    return verdict


def test_a_rule_is_loaded_with_what_alerts_need() -> None:
    found = load([("rule.yml", RULE)], AROUND)
    rule = found.rules.rules[0].rule
    assert (rule.id, rule.title) == ("sigma.5c5e2c52-7a0e-4c57-8a59-3d0c5be8f1aa", "Curl runs")
    assert (rule.severity, rule.attack) == ("HIGH", ("T1059.004", "T1999"))
    (verdict,) = found.verdicts
    assert (verdict.status, verdict.line, verdict.title) == ("loaded", 1, "Curl runs")
    assert any("T1001.999 is no technique" in each for each in verdict.warnings)
    assert any("T1999 is newer" in each for each in verdict.warnings)


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("Image|endswith", "Imag|endswith", 14, "did you mean Image?"),
        ("CommandLine|contains", "CommandLine|contain", 15, "Unknown modifier"),
        ("    - User: root", "    - User: nobody", 18, "no user id is known"),
        ("ParentImage: /bin/sh", "OriginalFileName: sh", 19, "is read from Windows executables"),
        ("selection and not", "selektion and not", 20, "not defined"),
        ("selection and not", "selection and not not (", 20, "Unbalanced parentheses"),
        ("id: 5c5e2c52", "id: 5c5e", 2, "must be an UUID"),
        ("id: 5c5e2c52-7a0e-4c57-8a59-3d0c5be8f1aa\n", "", 1, "no id"),
        ("level: high", "level: huge", 3, "not a valid Sigma rule level"),
        ("category: process_creation", "category: proces_creation", 10, "did you mean process_creation?"),
        ("level: high", "level: high\nlevel: low", 4, "level is given twice"),
        (
            "    Image|endswith: /curl",
            "    Image|endswith: /curl\n    Image|endswith: /nc",
            15,
            "is given twice",
        ),
        ("title: Curl runs", "title: [", 3, "not YAML"),
        ("title: Curl runs\n", "", 1, "must have a title"),
        ("detection:", "detections:", 1, "must have a detection"),
        ("  product: linux", "  product: linux\ntaxonomy: ecs", 12, "fields of the taxonomy ecs"),
        ("      - http", "      - {a: b}", 15, "Unsupported type"),
    ],
)
def test_a_refusal_has_its_line_and_reason(old: str, new: str, line: int, reason: str) -> None:
    assert old in RULE
    verdict = judged(RULE.replace(old, new, 1))
    assert verdict.status == "refused"
    assert reason in verdict.reason
    assert verdict.line == line


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("product: linux", "product: windows", "for windows"),
        ("product: linux", "product: linux\n  service: auditd", "the log of auditd"),
        ("category: process_creation", "category: file_event", "no events of category file_event"),
        ("  category: process_creation\n", "", "the text of any log"),
    ],
)
def test_rules_for_other_logs_are_nobodys_fault(old: str, new: str, reason: str) -> None:
    verdict = judged(RULE.replace(old, new, 1))
    assert (verdict.status, reason in verdict.reason) == ("elsewhere", True)


@pytest.mark.parametrize(
    "text",
    [
        "", "- a\n- b\n", "just text", "\x00", "a: &a [*a]\n", "title: x\nfilter: {}\n", "action: global\n",
        "correlation: 5\ntitle: x\n", "title: 5\nid: 5\nlogsource: 5\ndetection: 5\n", "[" * 5000,
        "title: x\nlogsource: {category: [1]}\ndetection: {a: {1: 2}, condition: 3}\n",
        "&a [a, *a]: 1\n", "? {a: b}\n: c\n", "title: !!python/name:os.system x\n",
    ],
)  # fmt: skip
def test_no_text_stops_the_others(text: str) -> None:
    found = load([("bad.yml", text), ("good.yml", RULE)], AROUND)
    assert [each.status for each in found.verdicts] == ["refused", "loaded"]
    assert found.verdicts[0].reason
    assert len(found.rules) == 1


def test_a_bomb_of_aliases_is_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    bomb = RULE.replace("detection:\n", "detection:\n  " + "\n  ".join(lines) + "\n")
    assert judged(bomb).status == "refused"


def test_a_text_that_is_too_large_is_not_read() -> None:
    assert "larger than" in judged(RULE + "#" * MAX_RULE_BYTES).reason


def test_an_id_is_taken_once() -> None:
    found = load([("a.yml", RULE), ("b.yml", RULE)], AROUND)
    assert [each.status for each in found.verdicts] == ["loaded", "refused"]
    assert found.verdicts[1].reason == "a.yml has the same id"


def test_several_documents_of_one_file_are_judged_one_by_one() -> None:
    second = (
        RULE.replace("5c5e2c52", "5c5e2c53")
        .replace("/curl", "/wget")
        .replace("selection and", "selektion and")
    )
    verdicts = load([("both.yml", f"{RULE}---\n{second}")], AROUND).verdicts
    assert [(each.status, each.line) for each in verdicts] == [("loaded", 1), ("refused", 41)]


def test_what_has_no_level_is_medium() -> None:
    written = document({"s": {"Image": "/x"}, "condition": "s"})
    del written["level"]
    found = loaded(written)
    assert found.rules.rules[0].rule.severity == "MEDIUM"
    assert found.verdicts[0].warnings == ("no level; alerts will be MEDIUM",)


def test_a_directory_is_read_in_order_with_its_folders(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.yaml").write_text(RULE)
    (tmp_path / "one.yml").write_text(RULE)
    (tmp_path / "readme.md").write_text("no rule")
    assert [name.removeprefix(f"{tmp_path}/") for name, _ in files_of(tmp_path)] == ["b/two.yaml", "one.yml"]
    assert [name for name, _ in files_of(tmp_path / "one.yml")] == [str(tmp_path / "one.yml")]


def test_rules_are_judged_where_their_fields_are() -> None:
    by_kind = {
        kind: set(loaded(document({"s": item, "condition": "s"}, category)).rules.indexes)
        for kind, category, item in (
            ("out", "network_connection", {"DestinationPort": 22}),
            ("ends", "network_connection", {"SourcePort": 22, "DestinationPort": 22}),
            ("question", "dns_query", {"QueryName": "a"}),
            ("answer", "dns_query", {"QueryStatus": 3, "QueryName": "a"}),
            ("dns", "dns", {"answer": "a", "query": "b"}),
        )
    }
    assert by_kind["out"] == {"nsp.SocketConnect", "nsp.DatagramSend", "nsp.SocketAccept"}
    assert by_kind["ends"] == {"nsp.SocketClose"}
    assert by_kind["question"] == {"nsp.DnsQuestion"}
    assert by_kind["answer"] == by_kind["dns"] == {"nsp.DnsAnswer"}


def test_ids_of_the_support_module_are_stable() -> None:
    assert identity("a rule") == identity("a rule") != identity("another")
