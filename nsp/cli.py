# SPDX-License-Identifier: Apache-2.0
"""The command a person types. It imports the other packages, lazily; nobody imports it.

Exit status: 0 when done, 1 when it could not be done, 2 when the command line is wrong. Errors are one line
on stderr with what to do about it.
"""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated, NoReturn

import typer

from nsp import config, dead_letter, inventory, keys, override, profiles, responses, rules, tail, topics
from nsp.errors import CommandError
from nsp.modules import become, sensor_check, sensor_unload

DISTRIBUTION = "network-security-probe"

app = typer.Typer(
    name="nsp",
    help="Process-level network security: see, decide, cut in the kernel.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(topics.app, name="topics")
app.add_typer(inventory.app, name="inventory")
app.add_typer(keys.app, name="keys")
app.add_typer(config.app, name="config")
app.add_typer(dead_letter.app, name="dead-letter")
app.add_typer(rules.app, name="rules")
app.add_typer(responses.app, name="responses")
app.command("tail")(tail.tail)
app.command("quarantine")(override.quarantine)
app.command("release")(override.release)
app.command("apply")(profiles.apply)
app.command("get")(profiles.get)
app.command("delete")(profiles.delete)

# Everything after the name belongs to the module that is started, its --help too.
_HANDED_OVER = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command("sensor", context_settings=_HANDED_OVER, add_help_option=False)
def sensor(context: typer.Context) -> None:
    """Run the sensor of this node; `sensor check` and `sensor unload` look and clean up."""
    match context.args:
        case ["check", *rest]:
            sensor_check(rest)
        case ["unload", *rest]:
            sensor_unload(rest)
        case arguments:
            become("sensor", arguments)


@app.command("stream", context_settings=_HANDED_OVER, add_help_option=False)
def stream(context: typer.Context) -> None:
    """Run one stream app process: --config FILE."""
    become("stream_apps", context.args)


@app.command("demo", context_settings=_HANDED_OVER, add_help_option=False)
def demo(context: typer.Context) -> None:
    """Attack a small shop in namespaces and watch the kernel cut the attacker (as root)."""
    become("demo", context.args)


@app.command("broker", context_settings=_HANDED_OVER, add_help_option=False)
def broker(context: typer.Context) -> None:
    """Run an in-memory Kafka broker for trying things out."""
    become("nsp.embedded_broker", context.args)


@app.command("explain", context_settings=_HANDED_OVER, add_help_option=False)
def explain(context: typer.Context) -> None:
    """Say which profiles a workload has, what would happen to a flow of it, and which rule decides."""
    become("nsp.explain", context.args)


@app.command("learn", context_settings=_HANDED_OVER, add_help_option=False)
def learn(context: typer.Context) -> None:
    """List what was learned of workloads, or draft the SecurityProfile of one."""
    become("nsp.learn", context.args)


@app.command("replay", context_settings=_HANDED_OVER, add_help_option=False)
def replay(context: typer.Context) -> None:
    """Say what rules and profiles would have said of events that are on Kafka already."""
    become("nsp.replay", context.args)


@app.command("version")
def version(*, short: Annotated[bool, typer.Option("--short", help="the number alone")] = False) -> None:
    """Print the version."""
    try:
        number = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError as error:
        raise CommandError(
            f"{DISTRIBUTION} is not installed here", "run `make setup`, or pip install it"
        ) from error
    print(number if short else f"{DISTRIBUTION} {number}")


def main() -> NoReturn:
    """Run the command line and exit."""
    try:
        app()
    except CommandError as error:
        print(f"nsp: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(0)
