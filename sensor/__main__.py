# SPDX-License-Identifier: Apache-2.0
"""``python -m sensor``: read the settings, run the agent, say in one line why it ended."""

from __future__ import annotations

import os
import sys
from typing import Final

from sensor.errors import SettingsError
from sensor.logs import configure_logs
from sensor.memory import left_out
from sensor.settings import parse_settings

EXIT_USAGE: Final = 2
EXIT_FAILED: Final = 1


def main(arguments: list[str] | None = None) -> int:
    """Run the sensor.

    Args:
        arguments: Flags; the process's own when None.

    Returns:
        0 after SIGTERM, 1 when the kernel or a key refuses, 2 for settings that cannot be used.
    """
    try:
        settings = parse_settings(sys.argv[1:] if arguments is None else arguments, os.environ)
    except SettingsError as error:
        print(f"sensor: {error}", file=sys.stderr)  # noqa: T201 - there is no log yet
        return EXIT_USAGE
    configure_logs(settings.log_format, settings.log_level)
    # Only now: importing them costs half a second, and --help needs none of it.
    import structlog  # noqa: PLC0415

    with left_out("cramjam"):  # compression of Avro files, which fastavro imports when it is installed
        from schemas.errors import SchemaError  # noqa: PLC0415
        from sensor.agent import run_sensor  # noqa: PLC0415
    from sensor.kernel.errors import KernelError  # noqa: PLC0415

    log = structlog.get_logger("sensor")
    try:
        return run_sensor(settings)
    except SettingsError as error:
        log.error("settings_refused", error=str(error))  # noqa: TRY400 - the text is for a person
        return EXIT_USAGE
    except (KernelError, SchemaError) as error:
        log.error("cannot_run", error=str(error))  # noqa: TRY400 - the text is for a person
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
