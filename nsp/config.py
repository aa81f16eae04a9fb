# SPDX-License-Identifier: Apache-2.0
"""``nsp config``: look at a stream app's configuration before it is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nsp.errors import CommandError

app = typer.Typer(help="Configuration of the stream apps.", no_args_is_help=True)


@app.command("check")
def check(file: Annotated[Path, typer.Argument(help="the YAML file")]) -> None:
    """Say what is wrong with a configuration, with the place, or that it is good."""
    from stream_apps.config import load  # noqa: PLC0415 - other commands need no pydantic
    from stream_apps.errors import ConfigError  # noqa: PLC0415 - same

    try:
        load(file)
    except ConfigError as error:
        raise CommandError(str(error)) from error
    print(f"{file}: good")


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    from stream_apps.config import json_schema  # noqa: PLC0415 - other commands need no pydantic

    print(json.dumps(json_schema(), indent=2))
