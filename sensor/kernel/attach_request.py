# SPDX-License-Identifier: Apache-2.0
"""What the sensor and its attaching child say to each other, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace and whose it is.

    Attributes:
        netns: Its inode number.
        path: A way to open it, good as long as the process it names lives.
        workload_cgroup_id: Of the workload that lives in it; 0: the host's.
    """

    netns: int
    path: str
    workload_cgroup_id: int = 0

    @property
    def is_host(self) -> bool:
        """Whether it is the node's own."""
        return not self.workload_cgroup_id


@dataclass(frozen=True, slots=True)
class AttachRequest:
    """All namespaces there are, the host's first; what is attached elsewhere is taken off."""

    pin_directory: str
    namespaces: tuple[Namespace, ...]
    tcx: bool = True

    def to_bytes(self) -> bytes:
        """As sent."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> AttachRequest:
        """As received."""
        content = json.loads(data)
        namespaces = tuple(Namespace(**each) for each in content.pop("namespaces"))
        return cls(namespaces=namespaces, **content)


@dataclass(slots=True)
class AttachReply:
    """What became of it: interfaces judged, programs on them, and what failed."""

    interfaces: int = 0
    attached: int = 0
    failed: list[str] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        """As sent."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> AttachReply:
        """As received."""
        return cls(**json.loads(data))
