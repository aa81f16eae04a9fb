# SPDX-License-Identifier: Apache-2.0
"""The report as text for a terminal: what nothing can be proved without comes first. Pure.

Everything of a workload is shown with nothing in it that moves a cursor or breaks a line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_apps.detect.scene import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_apps.replay.report import Report

# Rows shown; JSON and HTML have all.
MAX_ROWS: Final = 40
_EXAMPLES: Final = 2


def lines(report: Report) -> Iterator[str]:
    """The report, a line at a time."""
    document = report.document
    read = document["read"]
    yield (
        f"replayed {read['messages']:,} batches with {read['events']:,} events, "
        f"{document['firstMessage'] or 'none'} to {document['lastMessage'] or 'none'}"
    )
    for note in document["notes"]:
        yield f"note: {shown(note, 400)}"
    yield from missing(document)
    yield from _rules(document["rules"])
    yield ""
    yield from _alerts(document["alerts"])
    if document["profiles"] is not None:
        yield ""
        yield from _stops(document["profiles"])


def missing(document: Mapping[str, Any]) -> Iterator[str]:
    """What was lost or could not be read, and what that means."""
    lost, unusable = document["missing"], document["unusable"]
    if document["complete"]:
        yield "nothing is missing: no event lost, no gap, no message that cannot be used"
        return
    yield (
        f"INCOMPLETE: {lost['lost']:,} events lost, {lost['unaccounted']:,} unaccounted for, "
        f"{lost['gaps']:,} gaps, {unusable['messages']:,} messages not usable, or not all of them. "
        "What is not below may have happened all the same."
    )
    for each in lost["nodes"][:MAX_ROWS]:
        yield (
            f"  {shown(each['node'])}: {each['lost']:,} lost, {each['unaccounted']:,} unaccounted for, "
            f"{each['gaps']:,} gaps"
        )
    for each in unusable["named"][:MAX_ROWS]:
        yield f"  {shown(each['place'])} ({each['stage']}): {shown(each['reason'])}"


def _rules(rules: Mapping[str, Any]) -> Iterator[str]:
    if rules["loaded"] or rules["refused"]:
        refused = len(rules["refused"])
        yield f"Sigma rules: {rules['loaded']} loaded, {refused} refused, {shown(rules['version'])}"
    for each in rules["refused"][:MAX_ROWS]:
        yield f"  refused: {shown(each, 400)}"


def _alerts(alerts: Mapping[str, Any]) -> Iterator[str]:
    yield f"would have alerted: {alerts['total']:,} times"
    if alerts["passedOver"]:
        yield f"  {alerts['passedOver']:,} more are not asked for"
    for each in alerts["byRule"]:
        yield f"  {each['count']:>6,}  {shown(each['rule'])}  {shown(each['title'])}"
    for row in alerts["rows"][:MAX_ROWS]:
        where = f" to {shown(row['destination'])}" if row["destination"] else ""
        yield ""
        yield (
            f"{row['severity']} {shown(row['rule'])}: {shown(row['workload'])} "
            f"{shown(row['process']) or 'its sensor'}{where}"
        )
        responses = ", ".join(f"{shown(name)} {count}" for name, count in row["responses"].items())
        yield f"  {_times(row)}; responses would have been: {responses}"
        for example in row["examples"][:_EXAMPLES]:
            yield f"  {example['observedAt']} {shown(example['node'])} alert {example['id']}"
            yield f"    {shown(example['description'], 300)}"
    yield from _more(alerts)


def _stops(stops: Mapping[str, Any]) -> Iterator[str]:
    tried = ", ".join(map(shown, stops["tried"]))
    yield (
        f"profiles {tried}: would have refused {stops['refused']:,}, and only told of {stops['alerted']:,} "
        "under a mode that refuses nothing"
    )
    for row in stops["rows"][:MAX_ROWS]:
        yield ""
        yield f"{row['outcome']}: {shown(row['workload'])} {shown(row['process'])} {shown(row['what'])}"
        yield f"  {_times(row)}; {shown(row['reason'])}; rule would be in {shown(row['place'], 400)}"
        for example in row["examples"][:1]:
            yield (
                f"  {example['observedAt']} {shown(example['node'])} at ring position {example['position']}"
            )
    yield from _more(stops)


def _times(row: Mapping[str, Any]) -> str:
    if row["count"] == 1:
        return f"once, {row['first']}"
    return f"{row['count']:,} times, {row['first']} to {row['last']}"


def _more(part: Mapping[str, Any]) -> Iterator[str]:
    rest = len(part["rows"]) - MAX_ROWS
    if rest > 0:
        yield ""
        yield f"and {rest} more rows: --format json or html has them"
    if part["beyond"]:
        yield f"and {part['beyond']:,} beyond what is counted by rows"
