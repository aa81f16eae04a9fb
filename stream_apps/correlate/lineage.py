# SPDX-License-Identifier: Apache-2.0
"""Which images descend from a serving program, by way of what, and where the tree would be cut.

Input: a :class:`BatchView`. Output: for each image a :class:`Descent` or None. Nothing is remembered from
batch to batch: the dictionary has all ancestors.

The service is the nearest serving image above, in the same workload (a container's runtime and a login
service are in others). To the service also belong:

- its workers, forked and never exec'd;
- its own program executed again (a re-exec for an upgrade); an interpreter only with the script the service
  runs itself (node's cluster) or with one of ``worker_arguments`` (Python's multiprocessing): with any other
  script or line of code it is an interpreter that the service started.

The first image on the way down that is not the service's is the *cut root*: its process, and all that
descends from it, is what a quarantine cuts. It is a process of its own, except where the service's process
itself was replaced by exec: then there is nothing below to cut, and the cut root is that process.

What does not become a service although it serves:

- a process manager or a login service (lists of the configuration): what they start stands for itself;
- a relay such as ``nc -l``, and what an attacker's shell started: a listener does not launder its lineage.
  A service that a serving program starts through a shell right after its own start, or that was there
  before the sensor, is taken as a service (``start_grace_ns``): that is how entry points work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from stream_apps.correlate.programs import program_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_apps.correlate.view import BatchView

# Flags after which an interpreter runs an argument as code.
_CODE_FLAGS: Final = frozenset({"-c", "-e", "-r", "-p", "-ne", "-pe", "-le", "--eval", "--print"})


@dataclass(frozen=True, slots=True)
class Descent:
    """How an image descends from a service.

    Attributes:
        service: Index of the serving image.
        cut_root: Index of the first image below that is not the service's; 0 for the service itself and
            its workers.
        tool: Index of the first shell, interpreter, downloader or relay executed below; 0 when none was.
    """

    service: int
    cut_root: int = 0
    tool: int = 0


@dataclass(frozen=True, slots=True)
class LineageRules:
    """What the configuration decides.

    Attributes:
        never_service: Tells an image that is no service whatever it serves.
        worker_arguments: Beginnings of the code, ``-m module`` or script with which an interpreter service
            starts its own workers.
        start_grace_ns: Within this after its service's start, a serving descendant is a service of its own.
    """

    never_service: Callable[[Mapping[str, Any]], bool]
    worker_arguments: tuple[str, ...]
    start_grace_ns: int


def descents(view: BatchView, rules: LineageRules) -> list[Descent | None]:
    """The descent of each image, by index; None where no service is above."""
    count = len(view.processes)
    found: list[Descent | None] = [None] * count
    known = [False] * count
    known[0] = True
    for start in range(1, count):
        path = []
        index = start
        # A link that leads back to itself ends the walk: marked as known (None) when first met.
        while not known[index]:
            known[index] = True
            path.append(index)
            index = view.parents[index]
        for each in reversed(path):
            found[each] = _descent(view, rules, each, found[view.parent_within(each)])
    return found


def _descent(view: BatchView, rules: LineageRules, index: int, above: Descent | None) -> Descent | None:
    image = view.processes[index]
    serves = image["serving"] and view.roles[index] != "shell" and not rules.never_service(image)
    if above is None:
        return Descent(index) if serves else None
    if above.cut_root == 0:
        parent = view.parent_within(index)
        if is_own_program(view, rules, index, parent, above.service):
            return above
        independent = serves and _stands_for_itself(view, rules, index, parent, above)
    else:
        independent = serves and _may_be_entry_point(view, rules, index, above)
    if independent:
        return Descent(index)
    return Descent(above.service, above.cut_root or index, above.tool or _tool(view, index))


def is_own_program(view: BatchView, rules: LineageRules, index: int, parent: int, service: int) -> bool:
    """Whether an image below a service's is the service still: a worker, or its program once more."""
    image = view.processes[index]
    if image["origin"] == "FORK" or (image["origin"] == "UNKNOWN" and not image["executable"]):
        return True
    candidates = (view.processes[each] for each in (parent, service))
    own = [each for each in candidates if _same_program(image, each)]
    if not own or not view.roles[index]:
        return bool(own)
    runs = _what_it_runs(image["argv"])
    return runs.startswith(rules.worker_arguments) or any(runs == _what_it_runs(each["argv"]) for each in own)


def _stands_for_itself(view: BatchView, rules: LineageRules, index: int, parent: int, above: Descent) -> bool:
    """Whether a serving image right below a service is the next service, not an attacker's listener."""
    role = view.roles[index]
    if view.same_process(index, parent):
        # One process, both images serve: an entry point that became the service. A relay is no service.
        return role in ("", "interpreter")
    if role:
        return _may_be_entry_point(view, rules, index, above)
    return True


def _may_be_entry_point(view: BatchView, rules: LineageRules, index: int, above: Descent) -> bool:
    image = view.processes[index]
    if view.roles[index] not in ("", "interpreter"):
        return False
    if image["origin"] == "INVENTORY":
        return True
    age_ns: int = image["image_ns"] - view.processes[above.service]["image_ns"]
    return age_ns < rules.start_grace_ns


def _tool(view: BatchView, index: int) -> int:
    if not view.roles[index] or view.processes[index]["origin"] == "FORK":
        return 0
    return index


def _same_program(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if not one["executable"] or program_name(one["executable"]) in ("busybox", "toybox"):
        return False
    if one["inode"] and one["inode"] == other["inode"]:
        same: bool = one["device"] == other["device"]
        return same
    same_path: bool = one["executable"] == other["executable"]
    return same_path


def _what_it_runs(argv: list[str]) -> str:
    """What an interpreter is told to run: code, ``-m module``, or a script; empty for neither."""
    for position, argument in enumerate(argv[1:], start=1):
        following = argv[position + 1] if position + 1 < len(argv) else ""
        if argument in _CODE_FLAGS:
            return following.lstrip()
        if argument == "-m":
            return f"-m {following}"
        if not argument.startswith("-"):
            return argument
    return ""
