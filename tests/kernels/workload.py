# SPDX-License-Identifier: Apache-2.0
"""A workload under a profile, and somebody outside it, for the checks of this folder.

Input: a started kernel part. Output: a cgroup with a slot of its own and a process in it that does as told;
all gone afterwards. Failure: what a lab of tests/support asserts.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.support.kernel_lab import Cgroup
from tests.support.kernel_watch import Actor, Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.profile_lab import ProfileLab

REFUSED: Final = 1
# An emulated machine, on a busy host: what is to arrive may take this long.
_ARRIVAL_S: Final = 30.0
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Workload:
    """A cgroup with its policy slot, who acts in it, and a peer that no profile governs."""

    watch: Watch
    lab: ProfileLab
    pod: Cgroup
    slot: int
    actor: Actor
    peer: Actor

    def reasons(self, kind: int, generation: int) -> list[int]:
        """Why a profile's generation refused what the actor did, as reported."""
        return [
            seen["reason"]
            for seen in self.watch.events(kind, tgid=self.actor.tgid)
            if seen["generation"] == generation and seen["verdict"] == REFUSED
        ]


@contextlib.contextmanager
def pod_below(watch: Watch) -> Iterator[Cgroup]:
    """A cgroup below that of the kernel part; nothing of it stays."""
    path = watch.cgroup.path / f"pod-{next(_numbers)}"
    path.mkdir()
    try:
        yield Cgroup(path)
    finally:
        Cgroup(path).remove()


@contextlib.contextmanager
def workload(watch: Watch, lab: ProfileLab) -> Iterator[Workload]:
    """A workload that no profile governs yet."""
    with pod_below(watch) as pod, Actor(pod) as actor, Actor(watch.cgroup) as peer:
        yield Workload(watch, lab, pod, lab.slot_for(pod.id), actor, peer)


def received(actor: Actor, verb: str, name: str) -> Any:
    """What arrives on a socket, however slow the machine is."""
    deadline = time.monotonic() + _ARRIVAL_S
    while (found := actor.tell(verb, name)) == "ETIMEDOUT" and time.monotonic() < deadline:
        pass
    return found
