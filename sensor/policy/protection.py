# SPDX-License-Identifier: Apache-2.0
"""What this sensor is and whom it talks to, for the check that no profile cuts it off (safety.py).

Input: the settings and /proc/self, read once at start. Output: :class:`~sensor.policy.safety.Protected`.
Failure: a broker name that does not resolve now protects no address: the kernel spares the sensor's own
process in any case, this only lets a mistake be told.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.addresses import to_mapped
from sensor.policy.safety import Broker, Protected, parse_break_glass
from sensor.workload.paths import identify

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def protected(
    brokers: str, break_glass: Iterable[str], resolvers: Iterable[str] = (), *, encrypted: bool = False
) -> Protected:
    """What holds for this process.

    Args:
        brokers: ``host:port``, with commas between.
        break_glass: Entries as safety.py has them.
        resolvers: The node's DNS servers.
        encrypted: Brokers are spoken to by TLS.

    Raises:
        PolicyRefused: An entry of the break-glass list is none.
    """
    cgroup = _own_cgroup()
    identity = identify(cgroup)
    return Protected(
        brokers=tuple(_addresses(brokers, encrypted)),
        resolvers=tuple(to_mapped(each) for each in resolvers),
        sensor_unit=identity.unit or "",
        sensor_pod=identity.pod_uid or "",
        sensor_cgroup=cgroup,
        sensor_executable=str(Path("/proc/self/exe").readlink()),
        break_glass=parse_break_glass(break_glass),
    )


def _own_cgroup() -> str:
    lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    return next((line[3:] for line in lines if line.startswith("0::")), "/")


def _addresses(brokers: str, encrypted: bool) -> Iterator[Broker]:
    for each in brokers.split(","):
        host, _, port = each.strip().rpartition(":")
        host = host.strip("[]")
        try:
            found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except OSError:
            continue
        for _, _, _, _, sockaddr in found:
            address = str(sockaddr[0])
            yield Broker(to_mapped(address), int(port), "" if address == host else host.lower(), encrypted)
