# SPDX-License-Identifier: Apache-2.0
"""``nsp replay``: what rules and profiles would have said of the events that are on Kafka already.

Input: ``nsp.events`` from a time on, pods, and what is to be tried. Output: a report as text, JSON or one
HTML file. The pipeline is that of the stream apps and the rules of profiles are asked as `nsp explain` asks
them. Nothing is sent to any topic and nothing committed: there is no producer here and no group.

A process of its own (cli.py becomes it), because it imports the stream apps' and the sensor's code.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from nsp import replay_time
from nsp.errors import MISUSED, CommandError
from nsp.kafka import Brokers, Cluster, KafkaOptions
from nsp.profile_files import load as load_profiles
from nsp.replay_pods import PodHistory
from nsp.replay_profiles import ProfileTrial, Trial
from nsp.replay_reading import EventReader
from schemas.codec import decode_as
from schemas.errors import SchemaError
from schemas.topics import PROFILES, RULES
from sensor.policy.errors import PolicyRefused
from stream_apps.assembly import build_programs, read_back_s
from stream_apps.collector import spare_the_collector
from stream_apps.config.document import StreamConfig
from stream_apps.config.document import load as load_config
from stream_apps.errors import ConfigError
from stream_apps.pipeline import Pipeline
from stream_apps.replay.page import page
from stream_apps.replay.report import Asked, Report, build, moment
from stream_apps.replay.session import Replay
from stream_apps.replay.tally import Tally, Wanted
from stream_apps.replay.text import lines
from stream_apps.sigma.build import build_book
from stream_apps.sigma.errors import RuleRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_apps.sigma.book import RuleBook

_NS_PER_S: Final = 1_000_000_000
# Progress is shown for so many messages at once.
_STEP: Final = 50

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class Format(StrEnum):
    """How the report is written."""

    TEXT = "text"
    JSON = "json"
    HTML = "html"


@dataclass(frozen=True, slots=True)
class _Tried:
    """What is tried.

    Attributes:
        config: The stream apps' configuration.
        rules: The Sigma rules.
        profiles: Profiles, those in force among them; empty without any to try.
        keys: Of those that are tried.
        resolvers: Networks of the nodes' DNS servers.
    """

    config: StreamConfig
    rules: RuleBook
    profiles: dict[str, dict[str, Any]]
    keys: tuple[str, ...]
    resolvers: tuple[str, ...]


@app.command("replay")
def replay(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    brokers: Brokers,
    since: Annotated[str, typer.Option("--since", help="7d, 12h, 90m, or 2026-03-01T12:00:00Z")],
    until: Annotated[str, typer.Option("--until", help="the same; now unless said")] = "0s",
    rules: Annotated[
        list[Path] | None,
        typer.Option("--rules", help="directory of Sigma rules, instead of those in force; repeatable"),
    ] = None,
    profile: Annotated[
        list[Path] | None,
        typer.Option("--profile", help="file of profiles: what they would have stopped; repeatable"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="the stream apps' file; its detectors decide")
    ] = None,
    namespace: Annotated[
        list[str] | None, typer.Option("--namespace", help="report only these; a pattern, repeatable")
    ] = None,
    workload: Annotated[
        list[str] | None,
        typer.Option("--workload", help="report only these, as shop/Deployment/web; a pattern, repeatable"),
    ] = None,
    rule: Annotated[
        list[str] | None, typer.Option("--rule", help="report only these rule ids; a pattern, repeatable")
    ] = None,
    resolver: Annotated[
        list[str] | None,
        typer.Option("--resolver", help="a DNS server of the nodes, for --profile; repeatable"),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="text, json or html")] = Format.TEXT,
    output: Annotated[str, typer.Option("--output", "-o", help="file for the report; - is stdout")] = "-",
    kafka_option: KafkaOptions = None,
) -> None:
    """Say what would have been alerted, and what profiles would have stopped, in a time that is over."""
    now_ns = time.time_ns()
    since_ns = replay_time.parse("--since", since, now_ns)
    until_ns = replay_time.parse("--until", until, now_ns)
    if since_ns >= until_ns:
        raise CommandError("--since is not before --until", exit_code=MISUSED)
    _check_output(output)
    cluster = Cluster(brokers, kafka_option)
    tried = _tried(cluster, config, tuple(rules or ()), tuple(profile or ()), tuple(resolver or ()))
    wanted = Wanted(tuple(namespace or ()), tuple(workload or ()), tuple(rule or ()))
    _write(_run(cluster, tried, wanted, (since_ns, until_ns)), form, output)


def _tried(
    cluster: Cluster,
    config: Path | None,
    directories: tuple[Path, ...],
    files: tuple[Path, ...],
    resolvers: tuple[str, ...],
) -> _Tried:
    settings = _settings(config, directories)
    try:
        book = build_book(settings.detect.sigma)
    except OSError as error:
        raise CommandError(f"{error.filename or directories}: {error.strerror or error}") from error
    if not directories:
        _publish(cluster, book)
    elif not book.verdicts:
        raise CommandError(
            f"{', '.join(map(str, directories))}: no rules in it", "rules are in files named *.yml or *.yaml"
        )
    profiles: dict[str, dict[str, Any]] = {}
    keys: tuple[str, ...] = ()
    if files:
        own = load_profiles(files)
        profiles = {**_in_force(cluster), **own}
        keys = tuple(own)
    trusted = resolvers or settings.correlate.names.trusted_resolvers
    return _Tried(settings, book, profiles, keys, tuple(trusted))


def _settings(file: Path | None, directories: tuple[Path, ...]) -> StreamConfig:
    try:
        settings = load_config(file) if file else StreamConfig()
    except ConfigError as error:
        raise CommandError(str(error)) from error
    if not directories:
        return settings
    sigma = settings.detect.sigma.model_copy(update={"directories": directories, "enabled": True})
    detect = settings.detect.model_copy(update={"sigma": sigma})
    return settings.model_copy(update={"detect": detect})


def _publish(cluster: Cluster, book: RuleBook) -> None:
    """The published rules are in force beside those of files."""
    for key, value in _newest(cluster, RULES.name).items():
        try:
            book.publish(key, decode_as(RULES.value, value)["text"].encode())
        except (SchemaError, RuleRefusedError) as error:
            print(f"nsp: {RULES.name} {key} is left out: {error}", file=sys.stderr)
    book.settle()


def _in_force(cluster: Cluster) -> dict[str, dict[str, Any]]:
    found = {}
    for key, value in _newest(cluster, PROFILES.name).items():
        try:
            found[key] = decode_as(PROFILES.value, value)
        except SchemaError as error:
            print(f"nsp: {PROFILES.name} {key} is left out: {error}", file=sys.stderr)
    return found


def _newest(cluster: Cluster, topic: str) -> dict[str, bytes]:
    newest: dict[str, bytes | None] = {}
    for message in cluster.read_all(topic, range(cluster.partitions_of(topic))):
        newest[(message.key() or b"").decode(errors="replace")] = message.value()
    return {key: value for key, value in newest.items() if value is not None}


def _run(cluster: Cluster, tried: _Tried, wanted: Wanted, span_ns: tuple[int, int]) -> Report:
    since_ns, until_ns = span_ns
    remembered_ns = round(read_back_s(tried.config, tried.rules.remembers_s) * _NS_PER_S)
    reader = EventReader(cluster, since_ns - remembered_ns, until_ns)
    try:
        history = PodHistory.read(cluster, since_ns)
        tally = Tally(wanted)
        pipeline = Pipeline(tried.config, history.pods, rules=tried.rules)
        trial = _trial(tried, history, tally) if tried.keys else None
    except CommandError:
        reader.close()
        raise
    run = Replay(pipeline, tally, since_ns, trial)
    spare_the_collector()
    for message in _with_progress(reader):
        history.until(message.wall_ns)
        run.take(message)
    return build(run, _asked(tried, span_ns, reader, trial))


def _trial(tried: _Tried, history: PodHistory, tally: Tally) -> ProfileTrial:
    try:
        trial = Trial(tuple(tried.profiles.values()), tried.keys, tried.resolvers, time.time_ns())
        return ProfileTrial(trial, history.pods, build_programs(tried.config.correlate), tally)
    except PolicyRefused as refusal:
        raise CommandError(str(refusal)) from refusal


def _asked(tried: _Tried, span_ns: tuple[int, int], reader: EventReader, trial: ProfileTrial | None) -> Asked:
    refused = [
        f"{each.source}:{each.line}: {each.reason}"
        for each in tried.rules.verdicts
        if each.status == "refused"
    ]
    return Asked(
        *span_ns,
        rules_version=tried.rules.version,
        rules=sum(each.status == "loaded" for each in tried.rules.verdicts),
        refused_rules=refused,
        profiles=tried.keys or None,
        notes=tuple(_notes(tried, span_ns[0], reader, trial)),
    )


def _notes(tried: _Tried, since_ns: int, reader: EventReader, trial: ProfileTrial | None) -> Iterator[str]:
    if reader.begins_late:
        yield f"nsp.events is not kept back to {moment(since_ns)} in every partition: it begins later"
    if tried.config.learn.enabled:
        yield (
            "what was learned before this time is not known here: drift and other detectors that ask for it "
            "are told only by what the replayed time taught"
        )
    if trial is None:
        return
    if not tried.resolvers:
        yield "no --resolver and no trusted_resolvers: every DNS server that was asked is believed"
    yield "raw sockets, and payloads that no profile had read at the time, are on no topic and not judged"
    for reason, count in trial.counts.items():
        yield f"{count:,} events are not judged, or not fully: {reason}"


def _with_progress(reader: EventReader) -> Iterator[Any]:
    """The messages, with a bar on a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from reader.messages()
        return
    columns = (TextColumn("replaying"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("replaying", total=reader.total)
        for number, message in enumerate(reader.messages(), 1):
            yield message
            if number % _STEP == 0:
                progress.update(task, completed=number)


def _check_output(output: str) -> None:
    """Before an hour of reading, not after it."""
    if output != "-" and not Path(output).parent.is_dir():
        raise CommandError(f"{output}: there is no such folder", exit_code=MISUSED)


def _write(report: Report, form: Format, output: str) -> None:
    match form:
        case Format.JSON:
            text = json.dumps(report.document, indent=2) + "\n"
        case Format.HTML:
            text = page(report)
        case _:
            text = "".join(f"{line}\n" for line in lines(report))
    if output == "-":
        sys.stdout.write(text)
        return
    try:
        Path(output).write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise CommandError(f"{output}: {error.strerror}") from error
    print(f"{output}: written", file=sys.stderr)


def main() -> NoReturn:
    """Run the command line and exit, as cli.py does."""
    try:
        app(prog_name="nsp replay")
    except CommandError as error:
        print(f"nsp: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(0)


if __name__ == "__main__":
    main()
