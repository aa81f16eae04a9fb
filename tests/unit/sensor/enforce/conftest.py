# SPDX-License-Identifier: Apache-2.0
"""A sensor's enforcement without Kafka and without a kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from schemas.codec import encode
from schemas.signing import SigningKey, VerifyingKeys
from schemas.subject import enforcement_key
from sensor.enforce.apply import Applier
from sensor.enforce.controller import Controller
from sensor.enforce.kill import Killer, Protection
from sensor.enforce.status import Reporter
from sensor.enforce.verify import Verifier
from tests.support.fake_enforcement import (
    FakeMaps,
    FakeSignals,
    FakeWorkloads,
    ManualClock,
    Recorder,
    no_profiles,
)

NODE = "worker-1"
BOOT = "6f1d0c52-4a3e-4b5e-9a53-0c7de8a4b1f2"
PARTITIONS = 6
SENSOR = 90
KEY = SigningKey.generate()


def subject_of(tgid: int, boot: str = BOOT) -> str:
    return f"process/{boot}/{tgid}/{1000 + tgid}"


@dataclass
class Lab:
    """A node: init 1, a service 10, a shell 20 under it with a tool 21; a workload "pod" in cgroup 7."""

    maps: FakeMaps = field(default_factory=FakeMaps)
    workloads: FakeWorkloads = field(default_factory=lambda: FakeWorkloads(pod=(7,)))
    clock: ManualClock = field(default_factory=ManualClock)
    recorder: Recorder = field(default_factory=Recorder)
    protection: Protection = field(default_factory=lambda: Protection(services=("rescue.service",)))
    signals: FakeSignals = field(init=False)
    controller: Controller = field(init=False)

    def __post_init__(self) -> None:
        for tgid, parent in ((1, None), (10, 1), (20, 10), (21, 20)):
            self.maps.spawn(tgid, parent)
        self.maps.spawn(SENSOR, 10)
        self.signals = FakeSignals(self.maps)
        self.signals.set(SENSOR, "/usr/bin/python3", parent=10)
        self.start()

    def start(self, *, with_history: bool = False) -> None:
        """Start a sensor on what is in the kernel now; an empty history unless the test brings one."""
        self.controller = Controller(
            Verifier(VerifyingKeys.from_pems([KEY.public_pem()]), NODE, BOOT, PARTITIONS),
            Applier(self.maps, self.workloads, Killer(self.maps, self.signals, self.protection, SENSOR)),
            Reporter(NODE, BOOT),
            self.recorder,
            self.recorder,
            self.clock,
            profiles=no_profiles(self.recorder, self.clock),
        )
        self.recorder.statuses.clear()
        self.recorder.notices.clear()
        if not with_history:
            self.controller.history_complete()

    def order(self, subject: str = subject_of(20), **fields: Any) -> tuple[bytes, bytes]:
        """A signed message: quarantine for ten minutes, unless said otherwise."""
        record = {
            "node": NODE,
            "subject": subject,
            "generation": 1,
            "issued_at_ns": self.clock.wall,
            "expires_at_ns": self.clock.wall + 600 * 10**9,
            "quarantined": True,
            "blocked_destinations": [],
            "alert_id": "a1",
            "reason": "test",
            "evidence_boot_ns": 77,
            **fields,
        }
        return enforcement_key(NODE, subject), KEY.sign(encode("Enforcement", record))

    def send(self, subject: str = subject_of(20), **fields: Any) -> None:
        self.controller.message(*self.order(subject, **fields))

    def tick(self, after_ms: int = 100) -> None:
        self.clock.pass_ms(after_ms)
        self.controller.tick()

    def last(self) -> dict[str, Any]:
        return self.recorder.statuses[-1]


@pytest.fixture
def lab() -> Lab:
    return Lab()
