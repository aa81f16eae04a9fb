# SPDX-License-Identifier: Apache-2.0
"""``nsp rules``: Sigma rules, checked, tried, and put in force.

Input: a directory of rules, as SigmaHQ's repository has them, or one file. What a stream app would refuse is
refused here, by the same code, with line and reason. ``push`` and ``rm`` change what is on ``nsp.rules``;
the rest sends nothing anywhere.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from nsp.errors import FAILED, CommandError
from nsp.kafka import Brokers, Cluster, KafkaOptions

if TYPE_CHECKING:
    from stream_apps.sigma.loading import Loaded, Status, Verdict
    from stream_apps.sigma.translate import Surroundings

app = typer.Typer(help="Sigma rules: check, try and publish them.", no_args_is_help=True)

_WORDS: Final[dict[Status, str]] = {"loaded": "loaded", "elsewhere": "for other logs", "refused": "refused"}


class Output(StrEnum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


Directory = Annotated[Path, typer.Argument(help="directory of rules, or one file")]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="a stream app's configuration, for its placeholders and users"),
]
How = Annotated[Output, typer.Option("--output", "-o", help="text or json")]


@app.command("lint")
def lint(directory: Directory, *, config: Config = None, output: How = Output.TEXT) -> None:
    """Say of each rule whether it loads, is for other logs than ours, or is refused, and why."""
    verdicts = _load(directory, config).verdicts
    counts = Counter(each.status for each in verdicts)
    if output is Output.JSON:
        print(json.dumps([asdict(each) for each in verdicts], indent=2))
    else:
        for each in verdicts:
            print(_line(each))
            for warning in each.warnings:
                print(f"{each.source}:{each.line}: warning: {warning}")
        print(", ".join(f"{counts[status]} {words}" for status, words in _WORDS.items()))
    if counts["refused"]:
        raise typer.Exit(FAILED)


@app.command("test")
def try_rules(
    directory: Directory,
    *,
    config: Config = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="write the results as JUnit XML")] = None,
) -> None:
    """Try each rule on the events that lie beside it, in NAME.events.yml: what must match, and what not."""
    from nsp import rule_cases  # noqa: PLC0415 - other commands need no Sigma

    tried = rule_cases.run(directory, _surroundings(config))
    for each in tried:
        for failure in each.failures:
            print(f"{each.source}: {failure.name}: {failure.reason}")
    if junit is not None:
        junit.write_bytes(rule_cases.junit(tried))
    failed = sum(len(each.failures) for each in tried)
    print(f"{sum(len(each.results) for each in tried)} cases of {len(tried)} rule files, {failed} failed")
    if failed:
        raise typer.Exit(FAILED)


@app.command("push")
def push(
    directory: Directory,
    brokers: Brokers,
    *,
    config: Config = None,
    kafka_option: KafkaOptions = None,
) -> None:
    """Put rules in force: all that are for our logs, or none if one of these is refused."""
    loaded = _load(directory, config)
    if refused := [each for each in loaded.verdicts if each.status == "refused"]:
        raise CommandError("refused, nothing was sent:\n" + "\n".join(map(_line, refused)))
    from nsp import rule_topic  # noqa: PLC0415 - other commands need no Sigma

    wanted = rule_topic.records(
        directory, {each.rule_id for each in loaded.verdicts if each.status == "loaded"}
    )
    cluster = Cluster(brokers, kafka_option)
    known = rule_topic.published(cluster)
    changed = [each for each in wanted if known.get(each["id"], {}).get("text") != each["text"]]
    rule_topic.publish(cluster, changed)
    counts = Counter(each.status for each in loaded.verdicts)
    print(
        f"{len(changed)} pushed, {len(wanted) - len(changed)} unchanged, {counts['elsewhere']} for other logs"
    )


@app.command("rm")
def remove(
    ids: Annotated[list[str], typer.Argument(help="ids of published rules")],
    brokers: Brokers,
    *,
    kafka_option: KafkaOptions = None,
) -> None:
    """Withdraw published rules; those of files stay."""
    from nsp import rule_topic  # noqa: PLC0415 - other commands need no Sigma

    cluster = Cluster(brokers, kafka_option)
    known = rule_topic.published(cluster)
    wanted = [each.removeprefix("sigma.") for each in ids]
    if missing := [each for each in wanted if each not in known]:
        raise CommandError(f"no rule {', '.join(missing)} is published", "`nsp rules list` shows them")
    rule_topic.withdraw(cluster, wanted)
    for each in wanted:
        print(f"{each} withdrawn")


@app.command("list")
def list_published(brokers: Brokers, *, output: How = Output.TEXT, kafka_option: KafkaOptions = None) -> None:
    """Show the rules that are published, beside those of files."""
    from nsp import rule_topic  # noqa: PLC0415 - other commands need no Sigma

    known = rule_topic.published(Cluster(brokers, kafka_option))
    if output is Output.JSON:
        print(json.dumps(list(known.values()), indent=2))
        return
    for each in known.values():
        print(f"{each['id']}  {rule_topic.when(each)}  {each['title']}")


@app.command("fields")
def fields() -> None:
    """Print the fields that rules can ask for, as a table in Markdown."""
    from stream_apps.sigma.reference import field_table  # noqa: PLC0415 - other commands need no Sigma

    print(field_table())


def _line(verdict: Verdict) -> str:
    told = verdict.title if verdict.status == "loaded" else verdict.reason
    return f"{verdict.source}:{verdict.line}: {_WORDS[verdict.status]}: {told}"


def _load(directory: Path, config: Path | None) -> Loaded:
    from stream_apps.sigma.loading import files_of, load  # noqa: PLC0415 - other commands need no Sigma

    try:
        texts = list(files_of(directory))
    except OSError as error:
        raise CommandError(f"{directory}: {error.strerror or error}") from error
    if not texts:
        raise CommandError(f"{directory}: no rules in it", "rules are in files named *.yml or *.yaml")
    return load(texts, _surroundings(config))


def _surroundings(config: Path | None) -> Surroundings:
    from stream_apps.config.document import StreamConfig, load  # noqa: PLC0415 - other commands need no pydantic
    from stream_apps.errors import ConfigError  # noqa: PLC0415 - same
    from stream_apps.sigma.build import surroundings  # noqa: PLC0415 - same

    try:
        return surroundings((load(config) if config else StreamConfig()).detect.sigma)
    except ConfigError as error:
        raise CommandError(str(error)) from error
