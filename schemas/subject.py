# SPDX-License-Identifier: Apache-2.0
"""Whom an enforcement is about, and the text that names them in messages and keys.

``process/<boot id>/<tgid>/<start ns>`` is a process and all that descends from it; ``workload/<id>`` is
a workload; ``profile/<namespace>/<name>`` is a SecurityProfile on a node and ``workloads/<node>`` the pods a
node has. The text is canonical: parse and print give back the same text, so it can be a key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from schemas.errors import SubjectError

_BOOT_ID: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_NUMBER: Final = r"0|[1-9][0-9]{0,19}"
_PROCESS: Final = re.compile(f"process/({_BOOT_ID})/({_NUMBER})/({_NUMBER})")
# As Kubernetes names objects (RFC 1123).
_OBJECT_NAME: Final = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
_PROFILE: Final = re.compile(f"profile/({_OBJECT_NAME})/({_OBJECT_NAME})")
_U32: Final = 1 << 32
_U64: Final = 1 << 64

# A cgroup path is the longest workload id; the kernel's PATH_MAX bounds it.
MAX_WORKLOAD_ID_CHARACTERS: Final = 4096


@dataclass(frozen=True, slots=True)
class ProcessSubject:
    """A process for ever, and its descendants.

    Attributes:
        boot_id: Boot id of the node's kernel, lower-case UUID.
        tgid: Process id in the initial namespace, never 0.
        start_ns: Start, CLOCK_BOOTTIME.
    """

    boot_id: str
    tgid: int
    start_ns: int

    def __str__(self) -> str:
        return f"process/{self.boot_id}/{self.tgid}/{self.start_ns}"


@dataclass(frozen=True, slots=True)
class WorkloadSubject:
    """A workload: a pod, a container or a host service.

    Attributes:
        workload_id: ``Workload.id`` of the event batches. May contain slashes.
    """

    workload_id: str

    def __str__(self) -> str:
        return f"workload/{self.workload_id}"


@dataclass(frozen=True, slots=True)
class ProfileSubject:
    """A SecurityProfile, as it is in force on one node."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"profile/{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class NodeSubject:
    """The pods a node is known to have."""

    node: str

    def __str__(self) -> str:
        return f"workloads/{self.node}"


Subject = ProcessSubject | WorkloadSubject


def parse_profile_subject(text: str) -> ProfileSubject:
    """Read the subject of a ProfileOrder.

    Raises:
        SubjectError: It is not ``profile/<namespace>/<name>``.
    """
    match = _PROFILE.fullmatch(text)
    if match is None:
        raise SubjectError("a profile subject is profile/<namespace>/<name>, both DNS names in lower case")
    return ProfileSubject(match[1], match[2])


def parse_subject(text: str) -> Subject:
    """Read a subject.

    Raises:
        SubjectError: The text names none, or not in its canonical form.
    """
    kind, _, rest = text.partition("/")
    if kind == "workload":
        if not rest or len(rest) > MAX_WORKLOAD_ID_CHARACTERS or not rest.isprintable():
            raise SubjectError("a workload subject is workload/<id>, printable, of at most 4096 characters")
        return WorkloadSubject(rest)
    match = _PROCESS.fullmatch(text)
    if match is None:
        raise SubjectError("a subject is process/<boot id>/<tgid>/<start ns> or workload/<id>")
    tgid, start_ns = int(match[2]), int(match[3])
    if not 0 < tgid < _U32 or start_ns >= _U64:
        raise SubjectError("a process subject has a tgid of 1 to 2^32-1 and a start below 2^64")
    return ProcessSubject(match[1], tgid, start_ns)


def enforcement_key(node: str, subject: str) -> bytes:
    """The message key of nsp.enforcement and nsp.enforcement-status: ``<node>/<subject>``."""
    return f"{node}/{subject}".encode()


def split_enforcement_key(key: bytes) -> tuple[str, str]:
    """Node and subject of a message key, for a tombstone that has nothing else.

    Raises:
        SubjectError: Not such a key. A node name has no slash.
    """
    try:
        node, slash, subject = key.decode().partition("/")
    except UnicodeDecodeError as error:
        raise SubjectError("an enforcement key is UTF-8 text") from error
    if not node or not slash or not subject:
        raise SubjectError("an enforcement key is <node>/<subject>")
    return node, subject
