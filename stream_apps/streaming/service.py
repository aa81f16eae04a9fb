# SPDX-License-Identifier: Apache-2.0
"""The process around a runtime: its event loop, its exit status."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING, NoReturn

import structlog
import uvloop

from stream_apps.streaming.errors import StreamError
from stream_apps.streaming.runtime import Runtime, RuntimeSettings

if TYPE_CHECKING:
    from stream_apps.correlate.pods import PodTable
    from stream_apps.pipeline import Pipeline
    from stream_apps.profiles.desk import ProfileDesk

_log = structlog.get_logger(__name__)


def serve(settings: RuntimeSettings, pipeline: Pipeline, pods: PodTable, desk: ProfileDesk) -> NoReturn:
    """Run until a signal or a failure, and exit: 0 or 1."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    status = loop.run_until_complete(_run(settings, pipeline, pods, desk))
    logging.shutdown()
    sys.stderr.flush()
    # Not sys.exit: after a crash Faust's thread and tasks may wait for a broker that is away, for ever. All
    # that matters is delivered and committed, or will be read again.
    os._exit(status)


async def _run(settings: RuntimeSettings, pipeline: Pipeline, pods: PodTable, desk: ProfileDesk) -> int:
    try:
        await Runtime(settings, pipeline, pods, desk).run()
    except StreamError as error:
        _log.error("the stream app ends; a restart goes on from the committed offsets", reason=str(error))
        return 1
    except Exception:  # noqa: BLE001 - the end of the process; logged whole
        _log.exception("the stream app failed")
        return 1
    return 0
