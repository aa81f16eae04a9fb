# SPDX-License-Identifier: Apache-2.0
"""The table of scenarios. To add one: an entry in ``shells``, ``attacks`` or ``benign``; see ``scenario``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.support.scenarios.attacks import ATTACKS
from tests.support.scenarios.benign import BENIGN

if TYPE_CHECKING:
    from tests.support.scenarios.scenario import Scenario

SCENARIOS: Final[tuple[Scenario, ...]] = (*ATTACKS, *BENIGN)
