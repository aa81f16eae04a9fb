# SPDX-License-Identifier: Apache-2.0
"""The report as text and as a page: whatever workloads call themselves, it stays text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

from stream_apps.config.document import parse
from stream_apps.pipeline import Pipeline
from stream_apps.replay.page import page
from stream_apps.replay.report import Asked, Report, build
from stream_apps.replay.session import Received, Replay
from stream_apps.replay.tally import StopKey, Tally
from stream_apps.replay.text import lines

HOSTILE = "\x1b[2J<script>alert(1)</script>\n<img src=//evil.example/x onerror=alert(1)>'\"&\u202egnp"
_ALLOWED_TAGS = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "br", "ul", "li", "table",
    "thead", "tbody", "tr", "th", "td", "span", "code", "details", "summary",
}  # fmt: skip


class Tags(HTMLParser):
    """Which tags and attributes a page has."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(tag, name) for name, _ in attrs}


def hostile_alert() -> dict[str, Any]:
    return {
        "id": "a" * 32, "rule_id": f"sigma.{HOSTILE}", "title": HOSTILE, "description": HOSTILE,
        "severity": "HIGH", "node": HOSTILE, "observed_at_ns": 1_790_000_000_000_000_000,
        "workload": {"id": HOSTILE, "namespace": HOSTILE, "owner": HOSTILE, "pod": HOSTILE},
        "lineage": [{"executable": HOSTILE}], "dns_name": HOSTILE, "remote_address": HOSTILE,
        "remote_port": 1,
        "response": {"action": HOSTILE, "decision": HOSTILE},
    }  # fmt: skip


def hostile_report() -> Report:
    replay = Replay(Pipeline(parse("")), Tally(), 0)
    replay.take(Received(f"nsp.events/0@1{HOSTILE}", b"x", 1))
    replay.tally.alert(hostile_alert())
    replay.tally.stop(StopKey("refused", *[HOSTILE] * 5), 1, HOSTILE, 7)
    return build(replay, Asked(1, 2, HOSTILE, 1, [HOSTILE], [HOSTILE], [HOSTILE]))


def test_nothing_hostile_becomes_markup() -> None:
    tags = Tags()
    tags.feed(page(hostile_report()))
    assert tags.tags <= _ALLOWED_TAGS
    assert {name for _, name in tags.attributes} <= {
        "lang",
        "charset",
        "http-equiv",
        "content",
        "name",
        "class",
    }


def test_the_page_loads_nothing_and_forbids_itself_to() -> None:
    text = page(hostile_report())
    assert "default-src &#x27;none&#x27;" in text
    assert not re.search(r"(?:src|href|url)\s*[=(]\s*[\"']?(?:https?:)?//(?!evil)", text)
    assert "<script" not in text


def test_nothing_hostile_moves_the_cursor_or_breaks_a_line() -> None:
    for text in ("\n".join(page(hostile_report()).splitlines()), *lines(hostile_report())):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert all("\n" not in each for each in lines(hostile_report()))


def test_what_is_missing_comes_before_what_was_found() -> None:
    text = "\n".join(lines(hostile_report()))
    assert text.index("INCOMPLETE") < text.index("would have alerted")
    assert "would have refused 1" in text


def test_a_complete_replay_without_alerts_says_so() -> None:
    said = "\n".join(lines(build(Replay(Pipeline(parse("")), Tally(), 0), Asked(1, 2))))
    assert "nothing is missing" in said
    assert "would have alerted: 0 times" in said
