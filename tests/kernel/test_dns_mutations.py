# SPDX-License-Identifier: Apache-2.0
"""Mutated questions and answers on real sockets: each passes, or teaches, exactly what the oracle says.

NSP_MUTATIONS raises the number of datagrams (a million takes half a minute).
"""

from __future__ import annotations

import json
import os
import sys
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING, Final

import pytest

from sensor.kernel.policy_state import ResolverKey
from tests.support.dns_storm import NAMES, RESOLVER, SUFFIXES
from tests.support.kernel_lab import ROOT, Cgroup
from tests.support.profile_lab import ANY_ADDRESS, ProfileLab, network, traffic
from tests.support.ring_records import mapped

if TYPE_CHECKING:
    from tests.support.kernel_watch import Watch

MUTATIONS: Final = int(os.environ.get("NSP_MUTATIONS", "20000"))
BATCH: Final = 1000  # of each kind: what they teach stays below a workload's share
SEED: Final = 0x444E53


@pytest.mark.timeout(120 + MUTATIONS // 1000)
def test_mutated_datagrams_pass_and_teach_what_they_may(watch: Watch) -> None:
    path = watch.cgroup.path / "storm"
    path.mkdir()
    pod, lab = Cgroup(path), ProfileLab(watch.kernel)
    names = [*NAMES, *(f"*.{suffix}" for suffix in SUFFIXES)]
    rules = network(traffic("127.0.0.1/32", names=names), traffic(*ANY_ADDRESS))
    lab.govern(lab.slot_for(pod.id), rules)
    lab.maps.set_resolver(ResolverKey(pod.id, mapped(RESOLVER)))
    command = pod.command(sys.executable, "-m", "tests.support.dns_storm")
    passed = 0
    try:
        with Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=ROOT) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for number in range(max(1, MUTATIONS // (2 * BATCH))):
                process.stdin.write(json.dumps([SEED + number, BATCH]) + "\n")
                process.stdin.flush()
                found = json.loads(process.stdout.readline())
                assert found["wrong"] == []
                passed += found["passed"]
                assert taught(lab, pod) == {bytes.fromhex(each) for each in found["taught"]}
                while chunk := watch.kernel.ring.read(1 << 20):
                    watch.kernel.ring.release(chunk.end)
            process.stdin.close()
    finally:
        pod.remove()
    assert MUTATIONS // 20 < passed < MUTATIONS // 2  # of the questions, some and not all


def taught(lab: ProfileLab, pod: Cgroup) -> set[bytes]:
    """What was learned since the last call; it is taken out."""
    found = set()
    for key, _ in list(lab.maps.learned()):
        if key.workload_cgroup_id == pod.id:
            lab.maps.drop_learned(key)
            is_ipv4 = key.address.startswith(bytes(10) + b"\xff\xff")
            found.add(key.address[12:] if is_ipv4 else key.address)
    return found
