# SPDX-License-Identifier: Apache-2.0
"""Why a measurement could not be made."""

from __future__ import annotations


class BenchError(Exception):
    """A benchmark cannot run or its run is not valid; the text says why."""
