# SPDX-License-Identifier: Apache-2.0
"""Who is out of character: processes with no business where only a workload's own program should ask.

Input: an image with its lineage. Output: a :class:`Character`. The metadata service, the Kubernetes API and a
neighbour's administration port are asked all day by the programs made for it; a rule that tells each such
contact is switched off within a week. So what counts is who asks:

- *intruder*: below a serving program, by way of a shell, interpreter, downloader or relay;
- *dropped*: its program is a memfd, has no link any more, or lies where anybody may write;
- *tool*: a shell, downloader or relay, in a container as elsewhere, which no service has started;
- *expected*: the rest, the workload's own program first of all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from stream_apps.correlate.programs import program_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from stream_apps.detect.observer import Frame
    from stream_apps.detect.scene import Scene

INTRUDER: Final = 3
DROPPED: Final = 2
TOOL: Final = 1
EXPECTED: Final = 0

# Where every user may write, also in a container with a read-only root.
WRITABLE: Final = ("/dev/shm/", "/tmp/", "/var/tmp/", "/run/shm/", "/run/lock/", "/dev/mqueue/")  # noqa: S108 - paths in events
_MEMFD: Final = "memfd:"
_TOOLS: Final = frozenset({"shell", "downloader", "relay"})
# Command line clients of clouds and clusters: for people, and for people who should not be there.
CLIENTS: Final = frozenset({"kubectl", "helm", "oc", "crictl", "nerdctl", "etcdctl", "docker", "ctr"})


class Character(NamedTuple):
    """What to think of a process.

    Attributes:
        level: The higher, the less it should do what it does.
        why: In words that follow the program's name; empty for what is expected, and for an intruder, since
            an alert names the service above it anyway.
    """

    level: int
    why: str


_EXPECTED: Final = Character(EXPECTED, "")


def character(frame: Frame, index: int) -> Character:
    """What to think of an image's process; worked out once a batch."""
    found: Character | None = frame.characters[index]
    if found is None:
        found = frame.characters[index] = _character(frame.scene, index)
    return found


def and_so(why: str, says: str) -> str:
    """What somebody does, after why that is remarkable, if there are words for it."""
    return f"{why} and {says}" if why else says


def dropped_from(image: Mapping[str, Any]) -> str:
    """Where an executable was dropped, in words; empty for a program that was installed.

    An executable that was deleted counts only if it was so at exec: a daemon whose package was upgraded is
    found that way by the inventory.
    """
    path: str = image["executable"]
    if path.startswith(_MEMFD):
        return "from memory (memfd)"
    if path.startswith(WRITABLE):
        return next(f"from {each[:-1]}" for each in WRITABLE if path.startswith(each))
    if image["deleted"] and image["origin"] == "EXEC" and path:
        return "from a file that was already deleted"
    return ""


def _character(scene: Scene, index: int) -> Character:
    view = scene.view
    if not index:
        return _EXPECTED
    descent = scene.descents[index]
    if descent is not None and descent.cut_root and descent.tool:
        return Character(INTRUDER, "")
    image = view.processes[index]
    dropped = dropped_from(image)
    if dropped:
        return Character(DROPPED, f"runs {dropped}")
    if view.roles[index] in _TOOLS or program_name(image["executable"]) in CLIENTS:
        return Character(TOOL, "is a tool for people")
    return _EXPECTED
