# SPDX-License-Identifier: Apache-2.0
"""Times as people type them: ``7d``, ``90m`` ago, or an instant in ISO 8601."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from nsp.errors import MISUSED, CommandError

_AGO: Final = re.compile(r"(\d{1,9})(s|m|h|d|w)")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_NS_PER_S: Final = 1_000_000_000


def parse(option: str, text: str, now_ns: int) -> int:
    """Wall ns.

    Args:
        option: Its name, for the error.
        text: What was typed; an instant without a zone is UTC.
        now_ns: Wall time.

    Raises:
        CommandError: It is no time.
    """
    ago = _AGO.fullmatch(text.strip())
    if ago:
        return max(0, now_ns - int(ago[1]) * _UNIT_S[ago[2]] * _NS_PER_S)
    try:
        instant = datetime.fromisoformat(text.strip())
        zoned = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
        return max(0, round(zoned.timestamp() * _NS_PER_S))
    except (ValueError, OverflowError) as error:
        raise CommandError(
            f"{option} {text[:60]!r} is no time", "write 7d, 12h, 90m, or 2026-03-01T12:00:00Z", MISUSED
        ) from error
