# SPDX-License-Identifier: Apache-2.0
"""A sensor's profiles on the real maps, with signed orders given by call instead of by Kafka."""

from __future__ import annotations

import copy
import json
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from schemas.codec import encode
from schemas.documents import from_document
from schemas.signing import SigningKey, VerifyingKeys
from schemas.subject import enforcement_key
from sensor.enforce.apply import Applier
from sensor.enforce.clock import SystemClock
from sensor.enforce.controller import Controller
from sensor.enforce.profiles import ProfileOrders
from sensor.enforce.status import Reporter
from sensor.enforce.verify import Verifier
from sensor.policy.layout import SLOT_UNKNOWN
from sensor.policy.node import NodePolicies, NodeSettings
from sensor.policy.safety import Protected
from sensor.workload.table import WorkloadTable
from tests.support.fake_enforcement import FakeWorkloads, Recorder
from tests.support.kernel_lab import Cgroup
from tests.support.kernel_watch import Actor

if TYPE_CHECKING:
    from sensor.policy.remembered import RememberedAnswers
    from tests.support.kernel_watch import Watch

NODE: Final = "node"
BOOT: Final = "6f1d0c52-4a3e-4b5e-9a53-0c7de8a4b1f2"
RESOLVER: Final = "192.0.2.53"
KEY: Final = SigningKey.generate()
_SAMPLE: Final = Path(__file__).parents[2] / "schemas/samples/SecurityProfile/valid/pod.json"
PROFILE: Final = from_document("SecurityProfile", json.loads(_SAMPLE.read_text()))


class Node:
    """A sensor's profiles on the real maps; messages come by call instead of by Kafka."""

    def __init__(
        self,
        watch: Watch,
        mode: str = "allow",
        remembered: RememberedAnswers | None = None,
        resolver: str = RESOLVER,
        protected: Protected | None = None,
    ) -> None:
        self.table = WorkloadTable(NODE, watch.kernel.state)
        self.table.walk(watch.cgroup.path)
        self.table.guard(SLOT_UNKNOWN)
        settings = NodeSettings(NODE, mode, (resolver,), 30 * 10**9, 60 * 10**9, protected or Protected())
        self.policies = NodePolicies(
            settings, watch.kernel.policy, self.table, SystemClock(), remembered=remembered
        )
        self.policies.start()
        self.recorder = Recorder()
        identity = {"node": NODE, "boot_id": BOOT}
        self.counters: dict[str, int] = {}
        orders = ProfileOrders(self.policies, self.recorder, identity, SystemClock(), self.counters)
        self.controller = Controller(
            Verifier(VerifyingKeys.from_pems([KEY.public_pem()]), NODE, BOOT, 1),
            Applier(watch.kernel.state, FakeWorkloads()),
            Reporter(NODE, BOOT),
            self.recorder,
            self.recorder,
            SystemClock(),
            profiles=orders,
        )
        self.controller.history_complete()

    def send(self, record_name: str, record: dict[str, Any]) -> dict[str, Any]:
        """Send one signed order and have it carried out; the last status."""
        key = enforcement_key(NODE, record["subject"])
        self.controller.message(key, KEY.sign(encode(record_name, record)))
        self.controller.profiles.carry_out()
        return self.recorder.statuses[-1] if self.recorder.statuses else {}

    def profile(self, generation: int, *pods: str, name: str = "test", **fields: Any) -> dict[str, Any]:
        """Order a profile for pods; none of its fields given: its removal."""
        profile = None
        if fields:
            profile = copy.deepcopy(PROFILE) | {
                "namespace": "shop", "name": name, "generation": generation, "processes": [],
                "arp_spoofing": False, **fields,
            }  # fmt: skip
        return self.send("ProfileOrder", {
            "node": NODE, "subject": f"profile/shop/{name}", "generation": generation,
            "issued_at_ns": time.time_ns(), "removed": profile is None, "profile": profile,
            "workloads": sorted(pods),
        })  # fmt: skip


class Pod:
    """A pod's cgroup, named as the kubelet names it."""

    def __init__(self, watch: Watch) -> None:
        self.uid = str(uuid.uuid4())
        self.cgroup = Cgroup(watch.cgroup.path / "kubepods" / f"pod{self.uid}")

    def make(self) -> None:
        self.cgroup.path.mkdir()

    def connects_to(self, address: str) -> str:
        """EPERM, or anything else."""
        with Actor(self.cgroup) as actor:
            return str(actor.connect("a", address, 9, kind=2))
