# SPDX-License-Identifier: Apache-2.0
"""``nsp config``: look at a stream app's configuration before it is used.

Nothing is sent anywhere. Exit status of ``validate``: 1 when something is wrong; of ``diff``, as of diff(1):
1 when the two differ, 2 when one of them cannot be read.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nsp.errors import FAILED, MISUSED, CommandError

if TYPE_CHECKING:
    from stream_apps.config.document import Document

app = typer.Typer(help="Configuration of the stream apps.", no_args_is_help=True)

_YAML = (".yaml", ".yml")


class Output(StrEnum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


How = Annotated[Output, typer.Option("--output", "-o", help="text or json")]


@app.command("validate")
def validate(
    file: Annotated[Path, typer.Argument(help="the YAML file")],
    *,
    rules: Annotated[bool, typer.Option(help="also load the Sigma rules of its directories")] = True,
    output: How = Output.TEXT,
) -> None:
    """Say everything that is wrong with a configuration and its rules, with place, value and cure."""
    from nsp import config_check  # noqa: PLC0415 - other commands need no pydantic

    if not file.is_file():
        raise CommandError(f"{file}: no such file")
    checked = config_check.check(file, with_rules=rules)
    if output is Output.JSON:
        print(json.dumps(config_check.as_json(checked), indent=2))
    else:
        for each in checked.problems:
            print(each.whole())
        if not checked.problems:
            print(f"{file}: good, version {checked.version}; {checked.rules}")
    if checked.problems:
        raise typer.Exit(FAILED)


@app.command("explain")
def explain(
    file_or_place: Annotated[str | None, typer.Argument(metavar="[FILE]", help="the YAML file")] = None,
    place: Annotated[
        str | None, typer.Argument(metavar="[PATH]", help="a setting or section, e.g. detect.repeat_after_s")
    ] = None,
    *,
    output: How = Output.TEXT,
) -> None:
    """Say what each setting means, its default, its value here, and where that comes from."""
    from nsp import config_explain  # noqa: PLC0415 - other commands need no pydantic

    if place is None and file_or_place and not file_or_place.endswith(_YAML) and "/" not in file_or_place:
        file_or_place, place = (
            (file_or_place, None) if Path(file_or_place).exists() else (None, file_or_place)
        )
    file = Path(file_or_place) if file_or_place else None
    found = config_explain.explained(_document(file), file, place)
    if output is Output.JSON:
        print(json.dumps([each.as_json() for each in found], indent=2))
        return
    for each in found:
        print(each.text(whole=len(found) == 1))


@app.command("diff")
def diff(
    old: Annotated[Path, typer.Argument(help="the YAML file as it is")],
    new: Annotated[Path, typer.Argument(help="as it would be")],
    *,
    output: How = Output.TEXT,
) -> None:
    """Say in words what another configuration would change, and what of it needs a restart."""
    from nsp import config_diff  # noqa: PLC0415 - other commands need no pydantic

    try:
        before, after = _document(old).config, _document(new).config
    except CommandError as error:
        raise CommandError(str(error), exit_code=MISUSED) from error
    found = config_diff.differences(before, after) + config_diff.rule_differences(before, after)
    if output is Output.JSON:
        print(json.dumps([each.as_json() for each in found], indent=2))
    else:
        for each in found:
            print(each.text())
        if any(each.needs_restart for each in found):
            print("\nThe file is not taken over by a process that runs: what needs a restart is part of it.")
    if found:
        raise typer.Exit(FAILED)


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    from stream_apps.config.document import json_schema  # noqa: PLC0415 - other commands need no pydantic

    print(json.dumps(json_schema(), indent=2))


def _document(file: Path | None) -> Document:
    from stream_apps.config.document import load_document, parse_document  # noqa: PLC0415 - other commands need none
    from stream_apps.errors import ConfigError  # noqa: PLC0415 - same

    try:
        return load_document(file) if file else parse_document(b"")
    except ConfigError as error:
        raise CommandError("\n".join(each.whole() for each in error.problems)) from error
