# SPDX-License-Identifier: Apache-2.0
"""Structured logs on stderr: constant messages with fields, as JSON or for a person."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


def _structlog() -> ModuleType:
    # structlog's console renderer imports rich when it is installed: 10 MB this process has no use for.
    missing = "rich" not in sys.modules
    if missing:
        sys.modules["rich"] = None  # type: ignore[assignment]  # how Python says: not importable
    try:
        import structlog  # noqa: PLC0415 - only after the line above
    finally:
        if missing:
            del sys.modules["rich"]
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
