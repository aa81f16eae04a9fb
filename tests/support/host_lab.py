# SPDX-License-Identifier: Apache-2.0
"""Services of a host as systemd lays them out, and profiles that select them.

No systemd runs where the tests do: its cgroups are made as it makes them. What is not tried is systemd
itself.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from tests.support.kernel_lab import Cgroup
from tests.support.kernel_watch import Actor
from tests.support.profile_lab import network, traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.kernel_watch import Watch

LISTED: Final = "198.51.100.1"
_TOP: Final = ("system.slice", "user.slice", "kubepods")


class Service:
    """A service's cgroup, as systemd makes it."""

    def __init__(self, watch: Watch, unit: str, where: str = "system.slice") -> None:
        self.cgroup = Cgroup(watch.cgroup.path / where / unit)
        self.cgroup.path.mkdir(parents=True)

    def connects_to(self, address: str) -> str:
        """EPERM, or anything else."""
        with Actor(self.cgroup) as actor:
            return str(actor.connect("a", address, 9, kind=2))


@contextlib.contextmanager
def host_cgroups(watch: Watch) -> Iterator[None]:
    """The slices of a host below the test's cgroup; no policy and no name is left of them afterwards."""
    # The root of a real host is no workload; an earlier test's walk took this one for a service.
    watch.kernel.state.drop_workload(watch.cgroup.id)
    policy = watch.kernel.policy
    for name in _TOP:
        (watch.cgroup.path / name).mkdir()
    yield
    for name in _TOP:
        Cgroup(watch.cgroup.path / name).remove()
    for slot, _ in list(policy.policy_slots()):
        policy.set_policy_slot(slot, 0)
    for waiting, _ in list(policy.expected_workloads()):
        policy.drop_expected_workload(waiting)
    for entry in list(policy.break_glass()):
        policy.drop_break_glass(entry)
    for tgid, _ in list(policy.exempt()):
        policy.drop_exempt(tgid)


def host_profile(mode: str = "ENFORCE", **service: str) -> dict[str, Any]:
    """A profile of the host that lets pass what goes to LISTED, and nothing else."""
    selector = {"unit": "", "cgroup_path": "", "executable": "", **service}
    listed = network(traffic(f"{LISTED}/32"))
    return {"scope": "NODE", "services": [selector], "default": listed, "mode": mode}
