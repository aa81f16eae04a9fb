# SPDX-License-Identifier: Apache-2.0
"""The page for Prometheus and for whoever restarts processes."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from stream_apps.streaming.errors import StartError
from stream_apps.streaming.metrics import Metrics, MetricsServer

if TYPE_CHECKING:
    from collections.abc import Iterator


class Health:
    problem: str | None = "waiting for Kafka"

    def __call__(self) -> str | None:
        return self.problem


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def server(health: Health) -> Iterator[MetricsServer]:
    metrics = Metrics()
    metrics.dead_letters.labels("nsp.events", "decode").inc()
    server = MetricsServer("127.0.0.1", 0, metrics, health)
    server.start()
    yield server
    server.stop()


def get(server: MetricsServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_health_says_what_is_wrong_until_nothing_is(server: MetricsServer, health: Health) -> None:
    assert get(server, "/healthz") == (503, "waiting for Kafka\n")
    health.problem = None
    assert get(server, "/healthz") == (200, "ok\n")


def test_metrics_are_shown_with_their_labels(server: MetricsServer) -> None:
    status, page = get(server, "/metrics")
    assert status == 200
    assert 'nsp_stream_dead_letters_total{stage="decode",topic="nsp.events"} 1.0' in page


def test_other_paths_are_not_found(server: MetricsServer) -> None:
    assert get(server, "/")[0] == 404


def test_a_port_in_use_is_said_at_start(server: MetricsServer, health: Health) -> None:
    with pytest.raises(StartError, match=str(server.port)):
        MetricsServer("127.0.0.1", server.port, Metrics(), health)
