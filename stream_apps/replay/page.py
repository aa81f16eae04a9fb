# SPDX-License-Identifier: Apache-2.0
"""The report as one HTML file: nothing from elsewhere, no script, everything escaped. Pure.

Names, arguments and paths in it were chosen by workloads, some of them hostile, and whoever reads the page is
an analyst with a session elsewhere. So every text goes through :func:`_t`, a policy in the page forbids it to
load or run anything, and what would reorder or hide text is written as its escape.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from stream_apps.detect.scene import shown
from stream_apps.replay.text import missing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from stream_apps.replay.report import Report

_CHARACTERS: Final = 2000
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE: Final = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;color:#1b1f24;
background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}
table{border-collapse:collapse;width:100%;margin:.6rem 0}
th,td{text-align:left;vertical-align:top;padding:.35rem .6rem;border-bottom:1px solid #d8dee4;
overflow-wrap:anywhere}
th{font-weight:600;color:#57606a}td.n{text-align:right;white-space:nowrap}
.bad{background:#fff1f0;border-left:4px solid #cf222e;padding:.6rem 1rem}
.good{background:#effaf1;border-left:4px solid #1a7f37;padding:.6rem 1rem}
.CRITICAL,.HIGH,.refused{color:#a40e26;font-weight:600}.MEDIUM,.alerted{color:#8a5300;font-weight:600}
code{font:13px ui-monospace,monospace}details{margin:.2rem 0}
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}th{color:#9198a1}
th,td{border-color:#30363d}.bad{background:#2d1214}.good{background:#0f2417}
.CRITICAL,.HIGH,.refused{color:#ff8a80}.MEDIUM,.alerted{color:#e3b341}}
"""


def page(report: Report) -> str:
    """The file."""
    document = report.document
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">',
            '<meta name="viewport" content="width=device-width"><title>Replay</title>',
            f"<style>{_STYLE}</style></head><body>",
            *_head(document),
            *_alerts(document["alerts"]),
            *(_stops(document["profiles"]) if document["profiles"] is not None else ()),
            "</body></html>",
            "",
        ]
    )


def _t(value: Any) -> str:
    """Any value as text that is nothing but text."""
    return escape(shown(str(value), _CHARACTERS))


def _head(document: Mapping[str, Any]) -> Iterator[str]:
    read = document["read"]
    yield f"<h1>Replay of {_t(document['since'])} to {_t(document['until'])}</h1>"
    yield (
        f"<p>{read['messages']:,} batches with {read['events']:,} events, "
        f"{_t(document['firstMessage'] or 'none')} to {_t(document['lastMessage'] or 'none')}.</p>"
    )
    yield f'<div class="{"good" if document["complete"] else "bad"}">'
    yield "<br>".join(_t(each) for each in missing(document))
    yield "</div>"
    if document["notes"]:
        yield "<ul>" + "".join(f"<li>{_t(each)}</li>" for each in document["notes"]) + "</ul>"
    rules = document["rules"]
    if rules["loaded"] or rules["refused"]:
        yield (
            f"<p>Sigma rules: {rules['loaded']} loaded, {len(rules['refused'])} refused "
            f"(version {_t(rules['version'])}).</p>"
        )
        yield from (f"<p class='MEDIUM'>{_t(each)}</p>" for each in rules["refused"])


def _alerts(alerts: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2>Would have alerted {alerts['total']:,} times</h2>"
    if alerts["passedOver"]:
        yield f"<p>{alerts['passedOver']:,} more are not asked for.</p>"
    if alerts["beyond"]:
        yield f"<p>{alerts['beyond']:,} are beyond the rows that are kept.</p>"
    yield from _table(
        ("Rule", "Title", "Alerts"),
        ([_t(each["rule"]), _t(each["title"]), each["count"]] for each in alerts["byRule"]),
    )
    yield from _table(
        ("Workload", "Alerts"), ([_t(each["workload"]), each["count"]] for each in alerts["byWorkload"])
    )
    yield from _table(
        ("Severity", "Rule", "Workload", "Process", "Destination", "Examples", "Alerts"),
        (
            [
                f'<span class="{_t(row["severity"])}">{_t(row["severity"])}</span>',
                _t(row["rule"]),
                _t(row["workload"]),
                f"<code>{_t(row['process'])}</code>",
                _t(row["destination"]),
                "".join(map(_alert_example, row["examples"])),
                row["count"],
            ]
            for row in alerts["rows"]
        ),
    )


def _alert_example(example: Mapping[str, Any]) -> str:
    return (
        f"<details><summary>{_t(example['observedAt'])} <code>{_t(example['id'])}</code></summary>"
        f"{_t(example['node'])}: {_t(example['description'])}</details>"
    )


def _stops(stops: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2>Profiles {_t(', '.join(stops['tried']))}</h2>"
    yield (
        f"<p>Would have refused {stops['refused']:,}, and only told of {stops['alerted']:,} under a mode "
        "that refuses nothing.</p>"
    )
    if stops["beyond"]:
        yield f"<p>{stops['beyond']:,} are beyond the rows that are kept.</p>"
    yield from _table(
        ("Outcome", "Workload", "Process", "What", "Why", "Rule would be in", "Seen", "Times"),
        (
            [
                f'<span class="{_t(row["outcome"])}">{_t(row["outcome"])}</span>',
                _t(row["workload"]),
                f"<code>{_t(row['process'])}</code>",
                _t(row["what"]),
                _t(row["reason"]),
                _t(row["place"]),
                f"{_t(row['first'])}<br>{_t(row['last'])}",
                row["count"],
            ]
            for row in stops["rows"]
        ),
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """A table; texts in its rows are escaped already, numbers are numbers."""
    body = [
        "<tr>"
        + "".join(
            f'<td class="n">{each:,}</td>' if isinstance(each, int) else f"<td>{each}</td>" for each in row
        )
        + "</tr>"
        for row in rows
    ]
    if body:
        head = "".join(f"<th>{escape(each)}</th>" for each in heads)
        yield f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
