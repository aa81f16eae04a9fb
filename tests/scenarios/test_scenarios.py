# SPDX-License-Identifier: Apache-2.0
"""Every attack of the catalogue is told by the rules it is for, and nothing is told of its benign twins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.scenarios.attacks import ATTACKS
from tests.support.scenarios.benign import BENIGN
from tests.support.scenarios.catalogue import SCENARIOS
from tests.support.scenarios.judge import alerts_of, rules_of
from tests.support.scenarios.mutations import in_time
from tests.support.scenarios.stage import Stage

if TYPE_CHECKING:
    from tests.support.scenarios.recording import Recording
    from tests.support.scenarios.scenario import Scenario

pytestmark = pytest.mark.timeout(300)  # the first test waits for all scenarios


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Recording], dict[str, str]]:
    with Stage(tmp_path_factory.mktemp("stage")) as stage:
        recordings, unable = stage.play(SCENARIOS)
    return {each.scenario.name: each for each in recordings}, unable


def recorded(played: tuple[dict[str, Recording], dict[str, str]], scenario: Scenario) -> Recording:
    recordings, unable = played
    if scenario.name in unable:
        reason = unable[scenario.name]
        assert "is not installed" in reason, reason
        pytest.skip(reason)
    recording = recordings[scenario.name]
    assert recording.events, "nothing was seen of it"
    return in_time(recording, scenario.slower)


def by_name(scenario: Scenario) -> str:
    return scenario.name.replace(" ", "-")


@pytest.mark.parametrize("scenario", ATTACKS, ids=by_name)
def test_an_attack_is_told(played: tuple[dict[str, Recording], dict[str, str]], scenario: Scenario) -> None:
    told = rules_of(alerts_of(recorded(played, scenario)))
    assert set(scenario.expects) <= told, told


@pytest.mark.parametrize("scenario", BENIGN, ids=by_name)
def test_nothing_is_told_of_what_is_harmless(
    played: tuple[dict[str, Recording], dict[str, str]], scenario: Scenario
) -> None:
    alerts = alerts_of(recorded(played, scenario))
    assert [(each["rule_id"], each["severity"], each["description"]) for each in alerts] == []
