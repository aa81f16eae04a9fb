# SPDX-License-Identifier: Apache-2.0
"""What an output that nobody takes counts as."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from stream_apps.streaming.connection import KafkaConnection
from stream_apps.streaming.errors import StoppedError
from stream_apps.streaming.metrics import Metrics
from stream_apps.streaming.outputs import Outputs

# librdkafka reports that no broker answers within some of its 100 ms.
REPORTED_S = 1.0


@pytest.fixture
def outputs() -> Outputs:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return Outputs(KafkaConnection(f"127.0.0.1:{port}"), Metrics())


def test_that_no_broker_answers_is_no_output(outputs: Outputs) -> None:
    time.sleep(REPORTED_S)
    assert outputs.waiting == 0


def test_an_output_no_broker_takes_waits_and_a_stop_says_so(
    outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_apps.streaming.outputs.STOP_PATIENCE_S", 0.0)

    async def send_and_stop() -> None:
        await outputs.send("topic", b"key", b"value")
        outputs.stop_soon()
        await outputs.deliver()

    with pytest.raises(StoppedError, match="1 outputs could not be delivered"):
        asyncio.run(send_and_stop())
    assert outputs.waiting == 1
