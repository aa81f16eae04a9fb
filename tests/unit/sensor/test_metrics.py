# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from sensor.errors import SettingsError
from sensor.metrics import MetricsServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Sensor:
    """What the server tells of."""

    healthy = True

    def totals(self) -> Mapping[str, Mapping[str, int]]:
        return {"produce": {"events_acknowledged": 12}}

    def losses(self) -> list[dict[str, Any]]:
        return [{"stage": "kernel", "reason": "ring_full", "count": 3}]

    def gauges(self) -> Mapping[str, float]:
        return {"ring_held_bytes": 64}

    def health(self) -> tuple[bool, dict[str, Any]]:
        return self.healthy, {"adopted": True}


@pytest.fixture
def sensor() -> Sensor:
    return Sensor()


@pytest.fixture
def server(sensor: Sensor) -> Iterator[MetricsServer]:
    running = MetricsServer(sensor, ("127.0.0.1", 0))
    running.start()
    yield running
    running.stop()


def get(server: MetricsServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_have_stage_and_reason(server: MetricsServer) -> None:
    status, text = get(server, "/metrics")
    assert status == 200
    assert "nsp_produce_events_acknowledged_total 12.0" in text
    assert 'nsp_sensor_lost_total{reason="ring_full",stage="kernel"} 3.0' in text
    assert "nsp_ring_held_bytes 64.0" in text


def test_health_is_json_and_503_when_not_well(server: MetricsServer, sensor: Sensor) -> None:
    status, text = get(server, "/healthz")
    assert (status, json.loads(text)) == (200, {"healthy": True, "adopted": True})
    sensor.healthy = False
    assert get(server, "/healthz")[0] == 503


def test_other_paths_are_not_there(server: MetricsServer) -> None:
    assert get(server, "/")[0] == 404


def test_a_port_that_is_taken_is_named(server: MetricsServer, sensor: Sensor) -> None:
    with pytest.raises(SettingsError, match=f"127.0.0.1:{server.port}"):
        MetricsServer(sensor, ("127.0.0.1", server.port))
