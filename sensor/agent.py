# SPDX-License-Identifier: Apache-2.0
"""Wires the sensor: kernel, workloads, drain, enforcement, metrics; and takes them down again.

Start: load or adopt, walk the cgroups, take the inventory, then read orders and drain. End (SIGTERM):
drain and flush for a bounded time, let go of the descriptors; programs, maps and enforcement stay. Failure:
an error of any part ends the process with a non-zero code; the kernel goes on enforcing, and whoever
restarts the sensor gets everything that was not acknowledged.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any, Final

import structlog

from schemas.topics import EVENTS
from sensor import memory
from sensor.enforce.agent import EnforcementAgent
from sensor.enforce.clock import SystemClock
from sensor.errors import SettingsError
from sensor.kernel.interfaces import Interfaces
from sensor.kernel.runtime import Kernel, KernelOptions
from sensor.policy.errors import PolicyRefused
from sensor.policy.exits import spare_sensor
from sensor.policy.layout import SLOT_UNKNOWN
from sensor.policy.node import NodePolicies, NodeSettings
from sensor.policy.protection import protected
from sensor.policy.remembered import RememberedAnswers
from sensor.policy.resolvers import node_resolvers
from sensor.policy.started_with import StartedWith
from sensor.publish.batch import BatchBuilder
from sensor.publish.identity import node_identity
from sensor.publish.layout import REASONS
from sensor.publish.lineage import ProcessTable
from sensor.publish.losses import Losses
from sensor.publish.notices import Notices
from sensor.publish.pipeline import Pipeline
from sensor.publish.producer import BatchProducer, client_config, kafka_client
from sensor.selftest.place import ProbePlace
from sensor.selftest.tester import SelfTester
from sensor.workload.table import WorkloadTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sensor.policy.safety import Protected
    from sensor.settings import Settings

# Within what Kubernetes gives a pod to end (30 s). What is not acknowledged by then waits in the ring.
STOP_TIMEOUT_S: Final = 10.0
# The loop turns every 200 ms; five seconds of silence are no hiccup.
STALLED_S: Final = 5.0
# No acknowledgement for so long while batches wait: the broker is away, or refuses.
UNACKNOWLEDGED_S: Final = 30.0
# A cgroup whose creation was lost is looked for by walking the tree, which costs 10 ms a thousand cgroups.
_WALK_EVERY_S: Final = 5.0
_SECOND_NS: Final = 1_000_000_000

_log = structlog.get_logger(__name__)


class Agent:
    """One running sensor.

    Args:
        settings: What it was told.
        kernel: Loaded or adopted.
    """

    def __init__(self, settings: Settings, kernel: Kernel) -> None:
        self._kernel = kernel
        # Before anything here speaks to the network: the policies of an earlier sensor are in force.
        spare_sensor(kernel.state, kernel.policy)
        self._losses = Losses()
        self.notices = Notices(self._losses)
        self._workloads = WorkloadTable(settings.node, kernel.state)
        self._processes = ProcessTable()
        self._remembered = RememberedAnswers()
        self._pipeline = Pipeline(
            kernel,
            BatchBuilder(self._processes, self._workloads, self._remembered),
            node_identity(settings.node),
            self.notices,
            self._losses,
            (settings.batch_events, settings.batch_ms),
        )
        config = client_config(settings.brokers, settings.node, settings.compression, settings.kafka_options)
        self._producer = BatchProducer(
            kafka_client(config), EVENTS.name, settings.node, self._pipeline.acknowledged, self._losses
        )
        self._pipeline.producer = self._producer
        self._settings = settings
        clock = SystemClock()
        self._policies = NodePolicies(
            node_settings(settings),
            kernel.policy,
            self._workloads,
            clock,
            StartedWith(kernel.cgroup_root, clock),
            self._remembered,
        )
        self._enforcement = EnforcementAgent(kernel, self._workloads, settings, self.notices, self._policies)
        self._interfaces: Interfaces | None = None
        if settings.interfaces == "on":
            root = kernel.cgroup_root
            self._interfaces = Interfaces(settings.pin_directory, lambda: self._workloads.directories(root))
        self._self_test = self._tester(settings, kernel)
        self._stopping = False
        self._walk_at = 0.0
        self._tidy_at = time.monotonic() + memory.TIDY_EVERY_S

    def _tester(self, settings: Settings, kernel: Kernel) -> SelfTester:
        # By the pin directory's name: two sensors that see the same cgroups have a probe each.
        directory = kernel.cgroup_root / f"{settings.pin_directory.name}-selftest"
        place = ProbePlace(directory, kernel.state, self._workloads)
        return SelfTester(
            settings.selftest_interval_s, place, self._pipeline, self.notices.notice, lambda: self.health()[0]
        )

    def stop(self, *_: object) -> None:
        """Ask it to end; also a signal handler."""
        self._stopping = True

    def run(self) -> int:
        """Work until stopped.

        Returns:
            Batches the broker had not acknowledged at the end.
        """
        self._self_test.start()
        cgroups = self._workloads.walk(self._kernel.cgroup_root)
        guarded = self._workloads.guard(SLOT_UNKNOWN, self._settings.guard_cgroups)
        processes = self._pipeline.prepare()
        if not spare_sensor(self._kernel.state, self._kernel.policy):
            _log.warning("sensor-not-spared", cure="run it in the host's pid namespace")
        self._policies.start()
        kind = "ADOPTED" if self._kernel.adopted else "STARTED"
        resumed = self._pipeline.resumed.batch_sequence
        self.notices.notice(kind, "", f"{processes} processes, {cgroups} cgroups, after batch {resumed}")
        _log.info(
            kind.lower(),
            processes=processes,
            cgroups=cgroups,
            guarded_cgroups=guarded,
            resumed_after_batch=resumed,
        )
        self._enforcement.start()
        if self._interfaces is not None:
            self._interfaces.start()
        memory.settle()
        try:
            self._pipeline.run(lambda: self._stopping, self._tick)
            left = self._pipeline.drain(STOP_TIMEOUT_S)
        finally:
            self._self_test.stop()
            self._enforcement.stop()
            if self._interfaces is not None:
                self._interfaces.stop()
            self._producer.close()
        _log.info("stopped", unacknowledged_batches=left)
        return left

    def _tick(self) -> None:
        now = time.monotonic()
        if self._workloads.incomplete and now >= self._walk_at:
            self._walk_at = now + _WALK_EVERY_S
            self._workloads.walk(self._kernel.cgroup_root)
        if self._interfaces is not None:
            self._interfaces.tick(now, self._workloads.changes)
        self._self_test.tick(now)
        if now >= self._tidy_at:
            self._tidy_at = now + memory.TIDY_EVERY_S
            memory.tidy()

    def totals(self) -> Mapping[str, Mapping[str, int]]:
        """Counters by stage, for the metrics."""
        return {
            "produce": self._producer.counters,
            "enforce": dict(self._enforcement.counters),
            **self._verdicts(),
            "selftest": self._self_test.counters,
            "interfaces": {} if self._interfaces is None else self._interfaces.totals(),
            "enforce_refused": {_word(each): n for each, n in dict(self._enforcement.refused).items()},
        }

    def _verdicts(self) -> Mapping[str, Mapping[str, int]]:
        """What profiles refused and alerted, as the kernel counts it, with what became of the profiles."""
        counted = self._kernel.policy.policy_totals()
        reasons = zip(REASONS, counted.by_reason[1:], strict=False)
        return {
            "policy": {
                **self._policies.counters,
                "refused_calls": counted.refused_calls,
                "refused_packets": counted.refused_packets,
                "alerted": counted.alerted,
            },
            "policy_reason": {reason.lower(): count for reason, count in reasons},
        }

    def losses(self) -> list[dict[str, Any]]:
        """The loss counters, as in a batch."""
        return self._pipeline.losses()

    def gauges(self) -> Mapping[str, float]:
        """What is so now."""
        ring = self._kernel.ring
        return {
            "ring_unread_bytes": ring.unread_bytes,
            "ring_held_bytes": ring.held_bytes,
            "ring_size_bytes": ring.size_bytes,
            "produce_unacknowledged_batches": self._producer.unacknowledged,
            "produce_waiting_seconds": self._producer.waiting_s,
            "produce_broker_reachable": self._producer.reachable,
            "lineage_processes": len(self._processes),
            "workload_cgroups": len(self._workloads),
            **({} if self._interfaces is None else self._interfaces.gauges()),
            **self._self_test.gauges(),
            "enforce_in_force": self._enforcement.in_force,
            **{f"policy_{name}": count for name, count in self._policies.usage().items()},
            "kernel_events_attempted": sum(self._kernel.sequences()),
        }

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Healthy: the loop turns, the broker acknowledges, and orders are being read."""
        ring = self._kernel.ring
        stalled_s = time.monotonic() - self._pipeline.last_step
        waiting_s = self._producer.waiting_s
        healthy = stalled_s < STALLED_S and waiting_s < UNACKNOWLEDGED_S and self._enforcement.alive
        return healthy, {
            "adopted": self._kernel.adopted,
            "ring_unread_bytes": ring.unread_bytes,
            "ring_held_bytes": ring.held_bytes,
            "last_step_age_s": round(stalled_s, 3),
            "last_acknowledgement_age_s": round(time.monotonic() - self._producer.last_acknowledged, 3),
            "unacknowledged_batches": self._producer.unacknowledged,
            "broker_reachable": self._producer.reachable,
            "enforcement_running": self._enforcement.alive,
            "enforcement_ready": self._enforcement.ready,
        }


def _word(text: str) -> str:
    return text.replace("-", "_")


def kernel_options(settings: Settings) -> KernelOptions:
    """The kernel part of the settings."""
    return KernelOptions(
        pin_directory=settings.pin_directory,
        cgroup_root=settings.cgroup_root,
        cache_directory=settings.compile_cache,
        ring_bytes=settings.ring_bytes,
    )


def node_settings(settings: Settings) -> NodeSettings:
    """The part of the settings that profiles need."""
    return NodeSettings(
        node=settings.node,
        unknown_workload=settings.unknown_workload,
        resolvers=settings.resolvers or node_resolvers(),
        learned_floor_ns=settings.learned_floor_s * _SECOND_NS,
        learned_grace_ns=settings.learned_grace_s * _SECOND_NS,
        protected=_protected(settings),
        guards_pods=not settings.guard_cgroups,
    )


def _protected(settings: Settings) -> Protected:
    try:
        spoken = settings.kafka_options.get("security.protocol", "")
        return protected(
            settings.brokers,
            settings.break_glass,
            settings.resolvers or node_resolvers(),
            encrypted=spoken.lower().endswith("ssl"),
        )
    except PolicyRefused as refusal:
        raise SettingsError("break-glass", refusal.message, refusal.cure) from refusal


def run_sensor(settings: Settings) -> int:
    """Start, run until SIGTERM or SIGINT, end.

    Returns:
        Exit code: 0.

    Raises:
        KernelError: The programs cannot be loaded.
        SettingsError: Something that was given cannot be used.
    """
    memory.bound_arenas()
    with Kernel.start(kernel_options(settings)) as kernel:
        agent = Agent(settings, kernel)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, agent.stop)
        server = None
        if settings.metrics_address is not None:
            from sensor.metrics import MetricsServer  # noqa: PLC0415 - 3 MB that are only needed here

            server = MetricsServer(agent, settings.metrics_address)
            server.start()
        try:
            agent.run()
        finally:
            if server is not None:
                server.stop()
    return 0
