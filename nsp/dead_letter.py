# SPDX-License-Identifier: Apache-2.0
"""``nsp dead-letter``: what the stream apps could not use, why, and once more.

``show`` only reads. ``retry`` writes to the topics that the letters came from.
"""

from __future__ import annotations

import json
import re
import sys
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from nsp import letters, retry
from nsp.errors import FAILED, MISUSED, CommandError
from nsp.kafka import Brokers, Cluster, KafkaOptions
from schemas.topics import DEAD_LETTER

if TYPE_CHECKING:
    from nsp.letters import Found, Wanted

app = typer.Typer(help="Messages that the stream apps could not use.", no_args_is_help=True)

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_NS_PER_S: Final = 1_000_000_000
# Each may be half a megabyte.
_MOST: Final = 1000


class Output(StrEnum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


Ids = Annotated[list[str] | None, typer.Option("--id", help="a letter, e.g. 0/17; repeatable")]
Since = Annotated[str | None, typer.Option("--since", help="failed within, e.g. 30m, 12h, 7d")]
Reason = Annotated[str, typer.Option("--reason", help="words of the reason; * and ? stand for others")]
Source = Annotated[str, typer.Option("--topic", help="source topic")]
Stage = Annotated[str, typer.Option("--stage", help="decode, correlate, detect, respond or learn")]
How = Annotated[Output, typer.Option("--format", "-o", help="text, or json, one object a line")]
Limit = Annotated[int, typer.Option(min=1, max=_MOST, help="the newest so many")]


@app.command("show")
def show(  # noqa: PLR0913 - options
    brokers: Brokers,
    *,
    letter_id: Ids = None,
    since: Since = None,
    reason: Reason = "",
    topic: Source = "",
    stage: Stage = "",
    limit: Limit = 100,
    output: Annotated[
        Output, typer.Option("--format", "-o", help="text, or json, one object a line")
    ] = Output.TEXT,
    kafka_option: KafkaOptions = None,
) -> None:
    """Show letters, oldest first: from where, which stage, why, the cure if one is known, and the value."""
    wanted = _wanted(letter_id, since, reason, topic, stage)
    found = _read(Cluster(brokers, kafka_option), wanted, limit)
    for each in found.letters:
        retried = found.retried.get(str(each.place), 0)
        if output is Output.JSON:
            print(json.dumps(letters.as_json(each, retried)), flush=True)
        else:
            print("\n".join(letters.as_text(each, retried)), flush=True)
    _say_rest(found)


@app.command("retry")
def retry_letters(  # noqa: PLR0913 - options
    brokers: Brokers,
    *,
    letter_id: Ids = None,
    since: Since = None,
    reason: Reason = "",
    topic: Source = "",
    stage: Stage = "",
    limit: Limit = 100,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what would be sent, and send nothing")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="also what was retried, failed often, or is older than what is there"),
    ] = False,
    kafka_option: KafkaOptions = None,
) -> None:
    """Send the messages of letters to their topics again, and wait until the broker has them."""
    if not (letter_id or reason or topic or stage or since):
        raise CommandError("say which letters", "--id, --reason, --topic, --stage or --since", MISUSED)
    cluster = Cluster(brokers, kafka_option)
    found = _read(cluster, _wanted(letter_id, since, reason, topic, stage), limit)
    missing = sorted(set(letter_id or ()) - {str(each.place) for each in found.letters})
    if missing:
        raise CommandError(f"no letter {', '.join(missing)}", "`nsp dead-letter show` lists them")
    planned = retry.plan(cluster, found.letters, found.retried, force=force)
    if not dry_run:
        retry.send(cluster, planned)
    for each in planned:
        done = "would be sent" if dry_run else "sent"
        said = f"not sent: {each.refusal}" if each.refusal else f"{done} to {each.letter.record['topic']}"
        print(f"{each.letter.place}  {each.letter.origin}  {said}")
    _say_rest(found)
    refused = sum(bool(each.refusal) for each in planned)
    print(f"{len(planned) - refused} {'would be sent' if dry_run else 'sent'}, {refused} not")
    if refused:
        raise typer.Exit(FAILED)


def _read(cluster: Cluster, wanted: Wanted, limit: int) -> Found:
    partitions = range(cluster.partitions_of(DEAD_LETTER.name))
    return letters.read(cluster.read_all(DEAD_LETTER.name, partitions), wanted, limit)


def _say_rest(found: Found) -> None:
    if found.left_out:
        print(f"nsp: {found.left_out} older ones are left out; --limit shows more", file=sys.stderr)
    if found.unreadable:
        print(f"nsp: {found.unreadable} messages on the topic are no letters", file=sys.stderr)


def _wanted(ids: list[str] | None, since: str | None, reason: str, topic: str, stage: str) -> Wanted:
    return letters.Wanted(frozenset(map(_place, ids or ())), reason, topic, stage, _since_ns(since))


def _place(text: str) -> letters.Place:
    found = re.fullmatch(r"(\d{1,9})/(\d{1,18})", text)
    if found is None:
        raise CommandError(f"--id {text}", "write it as partition/offset, e.g. 0/17", MISUSED)
    return letters.Place(int(found[1]), int(found[2]))


def _since_ns(text: str | None) -> int:
    if text is None:
        return 0
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if found is None:
        raise CommandError(f"--since {text}", "write it as 30m, 12h or 7d", MISUSED)
    return time.time_ns() - int(found[1]) * _UNITS_S[found[2]] * _NS_PER_S
