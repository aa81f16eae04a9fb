# SPDX-License-Identifier: Apache-2.0
"""``/metrics`` for Prometheus and ``/healthz`` for whoever restarts sensors.

Input: plain ints that the parts keep anyway, read when somebody asks; the hot loop does nothing for it.
Output: one small HTTP server in a thread of its own, on loopback unless told otherwise. Failure: a port that
is taken ends the start; a source that fails costs that one answer (500).
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from sensor.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.core import Metric

# A caller that sends nothing must not hold a thread for ever.
_REQUEST_TIMEOUT_S: Final = 5
_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Status(Protocol):
    """What is told about the sensor; sensor.agent.Agent is the real one. Called from the server's threads."""

    def totals(self) -> Mapping[str, Mapping[str, int]]:
        """Stage to name to count: ``nsp_<stage>_<name>_total``."""

    def losses(self) -> list[dict[str, Any]]:
        """The loss counters as a batch has them: stage, reason, count."""

    def gauges(self) -> Mapping[str, float]:
        """``nsp_<name>`` to value now."""

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether all is well, and what it is judged by."""


class _Collector:
    """Reads the counters at scrape time."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        for stage, counters in self._status.totals().items():
            for name, value in counters.items():
                text = f"{stage}: {name.replace('_', ' ')}"
                yield CounterMetricFamily(f"nsp_{stage}_{name}", text, value=value)
        lost = CounterMetricFamily("nsp_sensor_lost", "Lost, cut or done again.", labels=("stage", "reason"))
        for entry in self._status.losses():
            lost.add_metric((entry["stage"], entry["reason"]), entry["count"])
        yield lost
        for name, now in self._status.gauges().items():
            yield GaugeMetricFamily(f"nsp_{name}", name.replace("_", " "), value=now)


class MetricsServer:
    """The HTTP server.

    Args:
        status: What to tell.
        address: Host and port; port 0 takes a free one.

    Raises:
        SettingsError: The address cannot be bound.
    """

    def __init__(self, status: Status, address: tuple[str, int]) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(status))

        class Handler(_Handler):
            answers = {"/metrics": lambda: _metrics(registry), "/healthz": lambda: _health(status)}  # noqa: RUF012

        try:
            self._server = ThreadingHTTPServer(address, Handler)
        except OSError as error:
            cure = f"an address of this host with a free port ({error.strerror})"
            raise SettingsError("metrics-address", f"{address[0]}:{address[1]}", cure) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="nsp-metrics", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close the socket."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    timeout = _REQUEST_TIMEOUT_S
    answers: Mapping[str, Any] = {}

    def do_GET(self) -> None:
        answer = self.answers.get(self.path.partition("?")[0])
        code, content_type, body = (
            answer() if answer is not None else (404, _CONTENT_TYPE, b"there are /metrics and /healthz\n")
        )
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Say nothing: a scrape is no news."""


def _metrics(registry: CollectorRegistry) -> tuple[int, str, bytes]:
    return 200, _CONTENT_TYPE, generate_latest(registry)


def _health(status: Status) -> tuple[int, str, bytes]:
    healthy, details = status.health()
    body = json.dumps({"healthy": healthy, **details}, indent=1).encode() + b"\n"
    return (200 if healthy else 503), "application/json", body
