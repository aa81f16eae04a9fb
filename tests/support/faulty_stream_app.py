# SPDX-License-Identifier: Apache-2.0
"""The stream app with a detector that raises: ``python -m tests.support.faulty_stream_app --config FILE``."""

from __future__ import annotations

from typing import Any, NoReturn

from stream_apps.__main__ import main
from stream_apps.detect.rce_egress import RceEgress


def _judge(*_: Any) -> NoReturn:
    raise ZeroDivisionError("the detector is \x1b[31mfaulty")


RceEgress.judge = _judge  # type: ignore[method-assign]  # what the test is about

if __name__ == "__main__":
    main()
