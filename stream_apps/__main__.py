# SPDX-License-Identifier: Apache-2.0
"""``python -m stream_apps --config FILE``: one stream app process; run as many as there is work for.

Exit status: 0 stopped by a signal, 1 it could not start or go on (start it again), 2 the configuration or
the command line is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from schemas.errors import KeyFileError
from schemas.signing import SigningKey
from stream_apps.assembly import read_back_s
from stream_apps.config import load
from stream_apps.correlate.pods import PodTable
from stream_apps.errors import ConfigError
from stream_apps.pipeline import Pipeline
from stream_apps.profiles.desk import ProfileDesk
from stream_apps.sigma.build import build_book

if TYPE_CHECKING:
    from stream_apps.config import StreamConfig
    from stream_apps.sigma.book import RuleBook

MISUSED = 2


def main() -> NoReturn:
    """Read the configuration and run."""
    parser = argparse.ArgumentParser(prog="python -m stream_apps", description="Correlate, detect, respond.")
    parser.add_argument("--config", type=Path, required=True, help="the YAML file; see `nsp config schema`")
    parser.add_argument(
        "--instance",
        default=os.environ.get("NSP_STREAM_INSTANCE"),
        help="name of this process that outlives restarts (overrides kafka.instance; NSP_STREAM_INSTANCE)",
    )
    arguments = parser.parse_args()
    try:
        config = load(arguments.config)
        signing_key = SigningKey.from_file(config.signing.key_file)
    except (ConfigError, KeyFileError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - logs are not set up yet
        sys.exit(MISUSED)
    _serve(config, signing_key, arguments.instance)


def _serve(config: StreamConfig, signing_key: SigningKey, instance: str | None) -> NoReturn:
    # Faust is slow to import; a wrong configuration is told before.
    from stream_apps.streaming.connection import KafkaConnection  # noqa: PLC0415
    from stream_apps.streaming.errors import StartError  # noqa: PLC0415
    from stream_apps.streaming.logs import configure_logs, log_refused  # noqa: PLC0415
    from stream_apps.streaming.runtime import RuntimeSettings  # noqa: PLC0415
    from stream_apps.streaming.service import serve  # noqa: PLC0415

    try:
        connection = KafkaConnection(",".join(config.kafka.brokers), config.kafka.properties)
        connection.ssl_context()
    except StartError as error:
        print(error, file=sys.stderr)  # noqa: T201 - logs are not set up yet
        sys.exit(MISUSED)
    rules = _rules(config)
    configure_logs(config.service.log_level, config.service.log_format)
    log_refused(rules.verdicts)
    settings = RuntimeSettings(
        connection=connection,
        group=config.kafka.group,
        instance=instance or config.kafka.instance,
        signing_key=signing_key,
        metrics_address=_address(config.service.metrics_address),
        window_s=read_back_s(config, rules.remembers_s),
    )
    pods = PodTable()
    desk = ProfileDesk()
    serve(settings, Pipeline(config, pods, desk, rules=rules), pods, desk)


def _rules(config: StreamConfig) -> RuleBook:
    """The Sigma rules of the configuration's directories; a single bad rule stops nothing."""
    try:
        return build_book(config.detect.sigma)
    except OSError as error:
        print(f"detect.sigma.directories: {error}", file=sys.stderr)  # noqa: T201 - logs are not set up yet
        sys.exit(MISUSED)


def _address(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


if __name__ == "__main__":
    main()
