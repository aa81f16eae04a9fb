# SPDX-License-Identifier: Apache-2.0
"""Who writes the batches: node, boot and version, read once at start."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
_DISTRIBUTION = "network-security-probe"


@dataclass(frozen=True)
class NodeIdentity:
    """The part of a batch's header that never changes.

    Attributes:
        node: Node name.
        boot_id: The kernel's.
        sensor_version: Of this package.
    """

    node: str
    boot_id: str
    sensor_version: str

    @cached_property
    def header(self) -> dict[str, str]:
        """As the schema names them."""
        return {"node": self.node, "boot_id": self.boot_id, "sensor_version": self.sensor_version}


def node_identity(node: str) -> NodeIdentity:
    """The identity of this boot of this node."""
    try:
        version = metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        version = "0+source"  # run from a checkout that was never installed
    return NodeIdentity(node, BOOT_ID_FILE.read_text().strip(), version)
