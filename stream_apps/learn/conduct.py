# SPDX-License-Identifier: Apache-2.0
"""Which program an image is to learning, and whether what it does is learned at all. Pure.

Never learned, whoever starts it: a program of ``never_programs``, one without a file (memfd) or from a
directory that is memory. Never learned below a service: a shell, downloader or relay that the service
started, and all that descends from it: that is what an intruder's session looks like, and a profile that
allowed it would be written by the intruder. ``allow_programs`` are the exceptions a person makes.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_apps.correlate.programs import program_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.correlate.programs import Role
    from stream_apps.correlate.view import BatchView
    from stream_apps.detect.scene import Scene
    from stream_apps.learn.behaviour import Standing

# As profiles have it: the kernel compares no longer one.
MAX_PATH_CHARACTERS: Final = 255
_DELETED: Final = " (deleted)"
# No profile can name it; it is kept as evidence.
_MEMFD: Final = "memfd:"
INTERPRETING: Final[frozenset[Role]] = frozenset({"interpreter", "shell"})


class Program(NamedTuple):
    """Who does something, as a profile can name it."""

    path: str
    script: str


@dataclass(frozen=True, slots=True)
class Conduct:
    """What of an image is learned.

    Attributes:
        program: Which program it is.
        standing: LEARNED or KNOWN_BAD.
        before_sensor: Its process was there before the sensor.
        began_workload: It is the first program of a process that came from outside of its workload.
    """

    program: Program
    standing: Standing
    before_sensor: bool
    began_workload: bool


@dataclass(frozen=True, slots=True)
class Mistrust:
    """What is never learned.

    Attributes:
        never_programs: Basenames, whoever starts them.
        never_roles: Roles below a service.
        never_directories: Directories that are memory.
        allow_programs: Patterns of paths that are learned all the same.
    """

    never_programs: frozenset[str]
    never_roles: frozenset[str]
    never_directories: tuple[str, ...]
    allow_programs: Sequence[str] = ()

    def conduct(self, scene: Scene, index: int) -> Conduct | None:
        """The conduct of an image; None when its program has no path a profile could name."""
        view = scene.view
        image = view.processes[index]
        path: str = image["executable"]
        if not path.startswith(("/", _MEMFD)) or len(path) > MAX_PATH_CHARACTERS:
            return None
        role = view.roles[index]
        program = Program(
            path.removesuffix(_DELETED), script_of(image["argv"]) if role in INTERPRETING else ""
        )
        return Conduct(
            program=program,
            standing="KNOWN_BAD" if self._mistrusted(scene, index) else "LEARNED",
            before_sensor=image["origin"] == "INVENTORY",
            began_workload=_began_workload(view, index),
        )

    def _mistrusted(self, scene: Scene, index: int) -> bool:
        view = scene.view
        if self._is_bad(view.processes[index]):
            return True
        descent = scene.descents[index]
        if descent is None or not descent.cut_root:
            return False
        # From here up to what the service started; the service itself and what is above it do not count.
        while True:
            image = view.processes[index]
            if view.roles[index] in self.never_roles and not self._allowed(image["executable"]):
                return True
            if index == descent.cut_root:
                return False
            index = view.parent_within(index)
            if not index:
                return False

    def _is_bad(self, image: Mapping[str, Any]) -> bool:
        path: str = image["executable"]
        if self._allowed(path):
            return False
        return (
            program_name(path) in self.never_programs
            or image["deleted"]
            or path.startswith(self.never_directories)
        )

    def _allowed(self, path: str) -> bool:
        return any(fnmatchcase(path, pattern) for pattern in self.allow_programs)


def _began_workload(view: BatchView, index: int) -> bool:
    """Whether a program is the first one of a process that was started into its workload.

    A manager forks, the child moves into the cgroup and executes the program, some by way of a helper.
    """
    if view.processes[index]["origin"] != "EXEC":
        return False
    before = view.parent_within(index)
    if before and view.processes[before]["origin"] == "EXEC":
        return False
    launcher = view.launcher(index)
    return not launcher or view.workload_ids[launcher] != view.workload_ids[index]


def script_of(argv: Sequence[str]) -> str:
    """The script an interpreter was started for, if it is named by an absolute path."""
    for argument in argv[1:]:
        if argument.startswith("/"):
            return argument if _is_plain(argument) else ""
        if not argument.startswith("-") or argument in {"-c", "-e", "-m", "-r"}:
            return ""
    return ""


def _is_plain(path: str) -> bool:
    """Whether a path is one a profile can name."""
    parts = path.split("/")[1:]
    return (
        len(path) <= MAX_PATH_CHARACTERS
        and path.isprintable()
        and all(part not in {"", ".", ".."} for part in parts)
    )
