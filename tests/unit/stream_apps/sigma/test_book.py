# SPDX-License-Identifier: Apache-2.0
"""Rules of files and published rules: which are in force."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from stream_apps.sigma import book as module
from stream_apps.sigma.book import RuleBook
from stream_apps.sigma.errors import RuleRefusedError
from tests.support.sigma import AROUND, document, identity


def text(name: str, image: str = "/x", **fields: Any) -> bytes:
    written = document({"s": {"Image": image}, "condition": "s"}, id=identity(name), title=name, **fields)
    return yaml.safe_dump(written).encode()


def titles(book: RuleBook) -> list[str]:
    return sorted(each.rule.title for each in book.rules.rules)


@pytest.fixture
def book() -> RuleBook:
    found = RuleBook(AROUND)
    found.base([("a.yml", text("a"))])
    return found


def test_a_published_rule_is_in_force_once_settled(book: RuleBook) -> None:
    book.publish("b", text("b"))
    assert titles(book) == ["a"]
    assert book.settle()
    assert titles(book) == ["a", "b"]
    assert not book.settle()


def test_a_bad_rule_is_refused_and_the_one_before_stays(book: RuleBook) -> None:
    book.publish("b", text("b", "/good"))
    book.settle()
    before = book.version
    with pytest.raises(RuleRefusedError, match=r"line \d+: .*not defined"):
        book.publish("b", text("b").replace(b"condition: s", b"condition: t"))
    with pytest.raises(RuleRefusedError, match="for windows"):
        book.publish("b", text("b", logsource={"category": "process_creation", "product": "windows"}))
    assert not book.settle()
    assert (titles(book), book.version) == (["a", "b"], before)
    assert book.counts["rules_refused"] == 2


def test_what_is_withdrawn_is_gone(book: RuleBook) -> None:
    before = book.version
    book.publish("b", text("b"))
    book.settle()
    book.withdraw("b")
    assert book.settle()
    assert (titles(book), book.version) == (["a"], before)
    book.withdraw("never there")
    assert not book.settle()


def test_a_published_rule_goes_before_a_file_of_the_same_id(book: RuleBook) -> None:
    book.publish("a", text("a", "/published"))
    book.settle()
    assert len(book.rules.rules) == 1
    assert book.rules.rules[0].condition.literal == "/published"  # type: ignore[union-attr] # a text
    book.withdraw("a")
    book.settle()
    assert book.rules.rules[0].condition.literal == "/x"  # type: ignore[union-attr] # same


def test_a_correlation_may_come_before_its_rule(book: RuleBook) -> None:
    many = {
        "title": "many", "id": identity("many"), "correlation": {
            "type": "event_count", "rules": [identity("c")], "timespan": "1m", "condition": {"gte": 2},
        },
    }  # fmt: skip
    book.publish("many", yaml.safe_dump(many).encode())
    book.settle()
    assert [each.status for each in book.verdicts] == ["refused", "loaded"]
    book.publish("c", text("c"))
    book.settle()
    assert len(book.rules.correlations) == 1


def test_published_rules_are_bounded(book: RuleBook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PUBLISHED", 1)
    book.publish("b", text("b"))
    book.publish("b", text("b", "/y"))
    with pytest.raises(RuleRefusedError, match="more than 1 rules"):
        book.publish("c", text("c"))
