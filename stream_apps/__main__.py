# SPDX-License-Identifier: Apache-2.0
"""``python -m stream_apps --config FILE``: one stream app process; run as many as there is work for.

Exit status: 0 stopped by a signal, 1 it could not start or go on (start it again), 2 the configuration or
the command line is wrong.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from schemas.errors import KeyFileError
from schemas.signing import SigningKey
from stream_apps.collector import spare_the_collector
from stream_apps.config.file import load_all
from stream_apps.correlate.pods import PodTable
from stream_apps.errors import ConfigError
from stream_apps.pipeline import Pipeline
from stream_apps.profiles.desk import ProfileDesk
from stream_apps.sigma.book import RuleBook
from stream_apps.sigma.build import surroundings

if TYPE_CHECKING:
    from stream_apps.config.file import Loaded

MISUSED = 2


def main() -> NoReturn:
    """Read the configuration and run."""
    # It would end us until the loop listens; what changes meanwhile is seen then anyway.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    parser = argparse.ArgumentParser(prog="python -m stream_apps", description="Correlate, detect, respond.")
    parser.add_argument("--config", type=Path, required=True, help="the YAML file; see `nsp config schema`")
    parser.add_argument(
        "--instance",
        default=os.environ.get("NSP_STREAM_INSTANCE"),
        help="name of this process that outlives restarts (overrides kafka.instance; NSP_STREAM_INSTANCE)",
    )
    arguments = parser.parse_args()
    try:
        loaded = load_all(arguments.config)
        signing_key = SigningKey.from_file(loaded.config.signing.key_file)
    except (ConfigError, KeyFileError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - logs are not set up yet
        sys.exit(MISUSED)
    _serve(arguments.config, loaded, signing_key, arguments.instance)


def _serve(file: Path, loaded: Loaded, signing_key: SigningKey, instance: str | None) -> NoReturn:
    # Faust is slow to import; a wrong configuration is told before.
    from stream_apps.streaming.connection import KafkaConnection  # noqa: PLC0415
    from stream_apps.streaming.errors import StartError  # noqa: PLC0415
    from stream_apps.streaming.logs import configure_logs, log_refused  # noqa: PLC0415
    from stream_apps.streaming.runtime import RuntimeSettings  # noqa: PLC0415
    from stream_apps.streaming.service import serve  # noqa: PLC0415

    config = loaded.config
    try:
        connection = KafkaConnection(",".join(config.kafka.brokers), config.kafka.properties)
        connection.ssl_context()
    except StartError as error:
        print(error, file=sys.stderr)  # noqa: T201 - logs are not set up yet
        sys.exit(MISUSED)
    rules = RuleBook(surroundings(config.detect.sigma))
    rules.base(loaded.rules)
    configure_logs(config.service.log_level, config.service.log_format)
    log_refused(rules.verdicts)
    settings = RuntimeSettings(
        connection=connection,
        group=config.kafka.group,
        instance=instance or config.kafka.instance,
        signing_key=signing_key,
        metrics_address=_address(config.service.metrics_address),
        config_file=file,
        loaded=loaded,
    )
    pods = PodTable()
    desk = ProfileDesk()
    pipeline = Pipeline(config, pods, desk, rules=rules)
    spare_the_collector()
    serve(settings, pipeline, pods, desk)


def _address(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


if __name__ == "__main__":
    main()
