# SPDX-License-Identifier: Apache-2.0
"""The stream app with a detector that raises: ``python -m tests.support.faulty_stream_app --config FILE``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from stream_apps import pipeline
from stream_apps.__main__ import main
from stream_apps.detect.rce_egress import RceEgress
from stream_apps.detect.registry import build_detectors

if TYPE_CHECKING:
    from stream_apps.detect.rule import Detector


class FaultyRceEgress(RceEgress):
    """Raises at each event it judges."""

    def judge(self, *_: Any) -> NoReturn:
        """See :class:`stream_apps.detect.rule.Detector`."""
        raise ZeroDivisionError("the detector is \x1b[31mfaulty")


def faulty(*arguments: Any) -> list[Detector]:
    """The detectors, one of them faulty."""
    found = build_detectors(*arguments)
    return [FaultyRceEgress() if isinstance(each, RceEgress) else each for each in found]


if __name__ == "__main__":
    setattr(pipeline, build_detectors.__name__, faulty)
    main()
