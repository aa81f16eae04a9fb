# SPDX-License-Identifier: Apache-2.0
"""Figures of a stream app, apart from Faust's own, and the page that shows them with the health.

``/metrics`` for Prometheus, ``/healthz`` for whoever restarts processes: 200 with ``ok``, or 503 with what
is wrong in a line. Served by a thread, so that both answer while the event loop is busy.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from stream_apps.streaming.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

_PROCESS_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0)
_DELAY_BUCKETS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0)
# A client that sends nothing must not hold a thread for ever.
_CLIENT_TIMEOUT_S: Final = 5.0
_SIZE: Final = "_now"
_TEXT: Final = "text/plain; charset=utf-8"


class Metrics:
    """Every figure, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.messages = Counter(
            "nsp_stream_messages", "Messages taken from a topic.", ["topic", "outcome"], registry=registry
        )
        self.events = Counter("nsp_stream_events", "Events in processed batches.", registry=registry)
        self.replayed = Counter(
            "nsp_stream_replayed", "Batches read back to rebuild windows.", registry=registry
        )
        self.dead_letters = Counter(
            "nsp_stream_dead_letters",
            "Messages that could not be used.",
            ["topic", "stage"],
            registry=registry,
        )
        self.alerts = Counter(
            "nsp_stream_alerts", "Alerts decided.", ["rule", "action", "decision"], registry=registry
        )
        self.enforcements = Counter("nsp_stream_enforcements", "Enforcement issued.", registry=registry)
        self.outputs = Counter(
            "nsp_stream_outputs", "Outputs by what became of them.", ["topic", "outcome"], registry=registry
        )
        self.output_waits = Counter(
            "nsp_stream_output_waits", "Times a full output queue made processing wait.", registry=registry
        )
        self.output_queue = Gauge(
            "nsp_stream_output_queue", "Outputs not acknowledged yet.", registry=registry
        )
        self.pipeline = PipelineFigures()
        registry.register(self.pipeline)
        self.rules = Info("nsp_stream_rules", "The Sigma rules in force.", registry=registry)
        self._add_config(registry)
        self.process_seconds = Histogram(
            "nsp_stream_process_seconds",
            "Decode, correlate, detect and respond for one batch.",
            buckets=_PROCESS_BUCKETS,
            registry=registry,
        )
        self.batch_age_seconds = Histogram(
            "nsp_stream_batch_age_seconds",
            "From a batch's closing on its node to its processing, by the two clocks.",
            buckets=_DELAY_BUCKETS,
            registry=registry,
        )
        self.statuses = Counter(
            "nsp_stream_enforcement_status", "Reports of sensors.", ["outcome"], registry=registry
        )
        self.time_to_block_seconds = Histogram(
            "nsp_stream_time_to_block_seconds",
            "From the first forbidden event to the map written, by the node's clock.",
            buckets=_DELAY_BUCKETS,
            registry=registry,
        )

    def _add_config(self, registry: CollectorRegistry) -> None:
        self.config = Info(
            "nsp_stream_config",
            "The configuration in force: SHA-256 of its file, cut.",
            registry=registry,
        )
        self.config_since = Gauge(
            "nsp_stream_config_since_seconds", "Since when it is in force, Unix time.", registry=registry
        )
        self.config_loads = Counter(
            "nsp_stream_config_loads",
            "Files that were read again: taken, refused, or in need of a restart.",
            ["outcome"],
            registry=registry,
        )
        self.config_differs = Gauge(
            "nsp_stream_config_differs", "1: the file on disk is not the one in force.", registry=registry
        )
        for outcome in ("taken", "refused", "needs_restart"):
            self.config_loads.labels(outcome)

    def config_in_force(self, version: str) -> None:
        """Another configuration is in force, that of the file."""
        self.config.info({"version": version})
        self.config_since.set_to_current_time()
        self.config_differs.set(0)


class PipelineFigures(Collector):
    """The pipeline's own counters and sizes, as they were last copied.

    Copied on the event loop, because the pipeline is not to be read while it works.
    """

    def __init__(self) -> None:
        self._figures: dict[tuple[str, str], int] = {}

    def update(self, figures: Mapping[tuple[str, str], int]) -> None:
        """Take a copy."""
        self._figures = dict(figures)

    def collect(self) -> Iterator[Metric]:
        """For Prometheus: ``*_now`` are sizes, the rest only grows."""
        counts = CounterMetricFamily(
            "nsp_stream_pipeline", "Pipeline counts by stage and reason.", labels=["stage", "reason"]
        )
        sizes = GaugeMetricFamily(
            "nsp_stream_pipeline_size", "Sizes of the pipeline's tables.", labels=["stage", "table"]
        )
        for (stage, reason), value in sorted(self._figures.items()):
            if reason.endswith(_SIZE):
                sizes.add_metric([stage, reason.removesuffix(_SIZE)], value)
            else:
                counts.add_metric([stage, reason], value)
        yield counts
        yield sizes


class MetricsServer:
    """The HTTP endpoint."""

    def __init__(self, address: str, port: int, metrics: Metrics, problem: Callable[[], str | None]) -> None:
        """Bind.

        Args:
            address: Address to listen on.
            port: Port; 0 for any free one.
            metrics: What to show.
            problem: What is wrong now, or None; called from another thread.

        Raises:
            StartError: The port cannot be had.
        """

        class Handler(_Handler):
            shown = metrics
            ask = staticmethod(problem)

        try:
            self._server = ThreadingHTTPServer((address, port), Handler)
        except OSError as error:
            raise StartError(f"metrics cannot listen on {address}:{port}: {error.strerror}") from error
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]

    def start(self) -> None:
        """Serve in a thread until the process ends or :meth:`stop`."""
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def stop(self) -> None:
        """Stop serving and let go of the port."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    shown: Metrics
    ask: Callable[[], str | None]
    timeout = _CLIENT_TIMEOUT_S

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self._answer(200, CONTENT_TYPE_LATEST, generate_latest(self.shown.registry))
        elif self.path == "/healthz":
            problem = self.ask()
            self._answer(503 if problem else 200, _TEXT, f"{problem or 'ok'}\n".encode())
        else:
            self._answer(404, _TEXT, b"/metrics or /healthz\n")

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Keep requests out of the log."""
