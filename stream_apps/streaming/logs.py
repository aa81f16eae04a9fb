# SPDX-License-Identifier: Apache-2.0
"""Logs: one line of JSON an event on stderr, ours and the libraries' alike."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_apps.sigma.loading import Verdict

# Faust and aiokafka tell every step of a rebalance at INFO; what matters of it we say ourselves.
_LIBRARY_LEVEL: Final = logging.WARNING
# aiokafka calls each lost connection an error, several times a second while a broker is away.
# A service of Faust logs under the module its class is from, also ours.
_LIBRARY_LOGGERS: Final = {
    "aiokafka": logging.CRITICAL,
    "stream_apps.streaming.app": _LIBRARY_LEVEL,
    "stream_apps.streaming.driver": _LIBRARY_LEVEL,
}


def configure_logs(level: str, log_format: str) -> None:
    """Set up structlog and the standard library's logging.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``, for our own lines.
        log_format: ``json``, or ``console`` for people.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    last: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if log_format == "console"
        else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.processors.format_exc_info],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LIBRARY_LEVEL)
    logging.getLogger("stream_apps").setLevel(level.upper())
    for name, library_level in _LIBRARY_LOGGERS.items():
        logging.getLogger(name).setLevel(library_level)


def log_refused(verdicts: Iterable[Verdict]) -> None:
    """Say which Sigma rules are not used although they are for our logs."""
    log = structlog.get_logger(__name__)
    for each in verdicts:
        if each.status == "refused":
            log.warning("rule refused", place=f"{each.source}:{each.line}", reason=each.reason)
