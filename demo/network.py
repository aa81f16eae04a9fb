# SPDX-License-Identifier: Apache-2.0
"""Four hosts on one wire: network namespaces joined by a bridge in a fifth.

Everything is made by ``ip`` (iproute2) under names that carry our process id, so that two runs do
not meet and clean-up removes only what this run made. Nothing is added to the host's own namespace.
"""

from __future__ import annotations

import ipaddress
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from demo.errors import DemoError

if TYPE_CHECKING:
    from types import TracebackType

NETWORK = ipaddress.ip_network("10.77.0.0/24")
COMMAND_TIMEOUT_S = 20


def run_command(*command: str) -> None:
    """Run one set-up command; raise DemoError with its own words when it fails."""
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
    except FileNotFoundError as error:
        message = f"{command[0]} is not installed"
        raise DemoError(message) from error
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        detail = getattr(error, "stderr", "") or str(error)
        message = f"`{' '.join(command)}` failed: {str(detail).strip()}"
        raise DemoError(message) from error


@dataclass(frozen=True, slots=True)
class Host:
    """One host of the demonstration."""

    name: str
    address: str
    namespace: str


class Network:
    """The hosts' namespaces; a context manager that removes them again."""

    def __init__(self, run_id: int, addresses: dict[str, str]) -> None:
        """Plan hosts ``{name: address}``; nothing is made before ``__enter__``."""
        self._fabric = f"nsp-demo-{run_id}-wire"
        self._made: list[str] = []
        self.hosts = {
            name: Host(name, address, f"nsp-demo-{run_id}-{name}") for name, address in addresses.items()
        }

    def __enter__(self) -> Self:
        """Make the namespaces and wires."""
        try:
            self._add_namespace(self._fabric)
            run_command("ip", "-n", self._fabric, "link", "add", "wire", "type", "bridge")
            run_command("ip", "-n", self._fabric, "link", "set", "wire", "up")
            for host in self.hosts.values():
                self._add_host(host)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the namespaces; the wires go with them."""
        self._remove()

    def _add_namespace(self, name: str) -> None:
        run_command("ip", "netns", "add", name)
        self._made.append(name)
        run_command("ip", "-n", name, "link", "set", "lo", "up")

    def _add_host(self, host: Host) -> None:
        self._add_namespace(host.namespace)
        port = f"to-{host.name}"[:15]
        run_command(
            "ip", "-n", self._fabric, "link", "add", port, "type", "veth",
            "peer", "name", "eth0", "netns", host.namespace,
        )  # fmt: skip
        run_command("ip", "-n", self._fabric, "link", "set", port, "master", "wire", "up")
        address = f"{host.address}/{NETWORK.prefixlen}"
        run_command("ip", "-n", host.namespace, "address", "add", address, "dev", "eth0")
        run_command("ip", "-n", host.namespace, "link", "set", "eth0", "up")

    def _remove(self) -> None:
        while self._made:
            subprocess.run(
                ["ip", "netns", "delete", self._made.pop()],
                check=False, capture_output=True, timeout=COMMAND_TIMEOUT_S,
            )  # fmt: skip
