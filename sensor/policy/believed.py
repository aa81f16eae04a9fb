# SPDX-License-Identifier: Apache-2.0
"""Which resolvers each workload believes, in the kernel's map.

Input: the node's resolvers, those each workload was started with, those its profiles name. Output: entries
in ``resolvers``. Failure: what the kernel refuses raises, and is tried again with the next plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas.addresses import to_mapped
from sensor.kernel.policy_state import ResolverKey
from sensor.policy.resolvers import is_loopback

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sensor.policy.ports import NodeMaps
    from sensor.policy.started_with import StartedWith
    from sensor.workload.table import Workload

# The workload of what is none, and, but for the loopback, of every one.
_EVERYONE: Final = 0


class Believed:
    """The map ``resolvers``.

    Args:
        maps: The kernel's.
        node: Addresses of the node's resolvers, or of those the operator gave instead.
        started_with: What workloads were started with; None: that is not asked.
    """

    def __init__(self, maps: NodeMaps, node: Collection[str], started_with: StartedWith | None) -> None:
        self._maps = maps
        self._node = node
        self._started_with = started_with
        self._held: set[ResolverKey] = set()
        self._named: set[ResolverKey] = set()

    @property
    def waiting(self) -> bool:
        """A workload has no process yet: look again."""
        return self._started_with is not None and self._started_with.waiting

    def believes(self, workload_cgroup_id: int, address: str) -> bool:
        """Whether what this server answers a workload is learned."""
        mapped = to_mapped(address)
        return (
            ResolverKey(workload_cgroup_id, mapped) in self._held
            or ResolverKey(_EVERYONE, mapped) in self._held
        )

    def adopt(self) -> None:
        """Take over what an earlier sensor left."""
        self._held = set(self._maps.resolvers())

    def update(self, workloads: Collection[Workload], named: set[ResolverKey] | None = None) -> None:
        """Write what is new and take out the rest; None: profiles name those they named before."""
        self._named = self._named if named is None else named
        wanted = self._named | resolver_keys(_EVERYONE, self._node)
        stub = [address for address in self._node if is_loopback(address)]
        if stub:  # only of services in the node's own network, which pods and containers are not
            for each in workloads:
                if each.kind == "HOST_SERVICE" and each.workload_cgroup_id:
                    wanted |= resolver_keys(each.workload_cgroup_id, stub)
        if self._started_with is not None:
            for cgroup_id, addresses in self._started_with.resolvers(workloads).items():
                wanted |= resolver_keys(cgroup_id, addresses)
        for key in wanted - self._held:
            self._maps.set_resolver(key)
            self._held.add(key)
        for key in self._held - wanted:
            self._maps.drop_resolver(key)
        self._held = wanted


def resolver_keys(workload_cgroup_id: int, addresses: Iterable[str]) -> set[ResolverKey]:
    """Keys of addresses given as text."""
    return {ResolverKey(workload_cgroup_id, to_mapped(address)) for address in addresses}
