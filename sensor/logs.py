# SPDX-License-Identifier: Apache-2.0
"""Structured logs on stderr: constant messages with fields, as JSON or for a person."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from sensor.memory import left_out

if TYPE_CHECKING:
    from types import ModuleType


def _structlog() -> ModuleType:
    # Its console renderer imports rich when it is installed: 10 MB.
    with left_out("rich"):
        import structlog  # noqa: PLC0415 - only within the line above
    return structlog


def configure_logs(log_format: str, log_level: str) -> None:
    """Set up structlog for this process.

    Args:
        log_format: ``json`` or ``console``.
        log_level: ``debug``, ``info``, ``warning`` or ``error``.
    """
    structlog = _structlog()
    renderer = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            *([structlog.processors.format_exc_info] if log_format == "json" else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, log_level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
