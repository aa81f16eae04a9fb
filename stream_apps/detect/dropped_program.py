# SPDX-License-Identifier: Apache-2.0
"""``nsp.dropped-program``: a program that nobody installed uses the network.

Input: executed images, and what they or their descendants do on the network. A program counts as dropped when

- it runs from memory (memfd), or its file was deleted already when it was executed;
- it lies where every user may write (``/dev/shm``, ``/tmp``, ...);
- it is *staged*: a downloader of the same workload was told to write that very file shortly before, wherever
  it lies. A script that an interpreter runs counts likewise.

Only with the network it is told: builds run programs from ``/tmp`` all day, and few of them talk. The first
two need no memory, since a batch has the lineage; for the third, files being downloaded are remembered by
workload, and processes that ran one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from stream_apps.correlate.programs import program_name
from stream_apps.detect.bounded import Bounded
from stream_apps.detect.character import dropped_from
from stream_apps.detect.downloads import is_one_of, written_by
from stream_apps.detect.egress import CONNECT, DATAGRAM, EGRESS_KINDS, QUESTION, REFUSAL, egress
from stream_apps.detect.observer import Frame, Observer
from stream_apps.detect.reverse_shell import LISTEN
from stream_apps.detect.rule import Rule, Sighting, Suspect
from stream_apps.detect.scene import endpoint, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.detect.exclusions import Exclusion
    from stream_apps.detect.observer import Handler
    from stream_apps.detect.rule import Severity
    from stream_apps.detect.scene import Scene

RULE: Final = Rule(
    id="nsp.dropped-program",
    title="A program that nobody installed uses the network",
    severity="CRITICAL",
    attack=("T1105",),
)
EXEC: Final = "nsp.ProcessExec"

# Workloads with downloads, files of one workload, and processes that ran one; forgotten ones are counted.
MAX_WORKLOADS: Final = 4096
MAX_FILES: Final = 32
MAX_PROCESSES: Final = 20_000
WITHIN_S: Final = 600

_NS_PER_S: Final = 1_000_000_000
_RUNTIMES: Final = frozenset({"runc", "crun", "containerd-shim-runc-v2", "containerd-shim"})
_SCRIPTED: Final = frozenset({"shell", "interpreter"})
_STEPS: Final[tuple[Severity, ...]] = ("LOW", "MEDIUM", "HIGH", "CRITICAL")
_LOOPBACK: Final = ("127.", "::1")


@dataclass(frozen=True, slots=True)
class _Mark:
    """What gives a process, or one above it, away.

    Attributes:
        index: The image that was dropped; 0 for none.
        why: In words that follow the program's name.
        step: How bad, before it is known whether a service is above.
    """

    index: int
    why: str = ""
    step: int = 0


_NO_MARK: Final = _Mark(0)


class DroppedProgram(Observer):
    """The detector.

    Args:
        exclusions: What is known and wanted.
        severity: The highest it gives.
        within_s: How long after its download a file is a staged one.
    """

    settings: ClassVar[tuple[str, ...]] = (*Observer.settings, "_within_ns")

    def __init__(
        self,
        exclusions: Sequence[Exclusion] = (),
        severity: Severity | None = None,
        *,
        within_s: int = WITHIN_S,
    ) -> None:
        super().__init__(RULE, exclusions, severity)
        self._within_ns = within_s * _NS_PER_S
        self._files: Bounded[str, deque[tuple[int, tuple[str, ...]]]] = Bounded(
            MAX_WORKLOADS, lambda: deque(maxlen=MAX_FILES)
        )
        self._staged: Bounded[tuple[str, int, int], str] = Bounded(MAX_PROCESSES, str)
        self._marks: list[_Mark | None] = []
        self._any_staged = False

    def begin(self, frame: Frame, first_ns: int) -> None:
        """See :class:`Observer`."""
        del first_ns
        self._marks = [None] * len(frame.owners)
        self._any_staged = len(self._staged) > 0

    def firsts(self) -> Mapping[str, Handler]:
        """See :class:`Observer`."""
        return {CONNECT: self._egress(CONNECT), DATAGRAM: self._egress(DATAGRAM)}

    def handlers(self) -> Mapping[str, Handler]:
        """See :class:`Observer`."""
        return {
            EXEC: self._executed, LISTEN: self._listen,
            QUESTION: self._egress(QUESTION), REFUSAL: self._egress(REFUSAL),
        }  # fmt: skip

    def metrics(self) -> Mapping[str, int]:
        """See :class:`Observer`."""
        return {"evicted": self._files.evicted + self._staged.evicted, "workloads_now": len(self._files)}

    def suspect(self, frame: Frame, index: int) -> Suspect:
        """See :class:`Observer`: the dropped program is the tool, and what is cut where no service is."""
        mark = self._mark(frame, index)
        descent = frame.scene.descents[index]
        if descent is None or not descent.cut_root:
            return Suspect(index, cut_root=mark.index, tool=mark.index, why=mark.why)
        return Suspect(index, descent.cut_root, descent.service, mark.index, why=mark.why)

    def _egress(self, kind: str) -> Handler:
        if kind not in EGRESS_KINDS:
            raise ValueError(kind)

        def judge(frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
            # Most images are looked at once, and their events cost no more than this.
            if self._marks[index] is _NO_MARK and not self._any_staged:
                return None
            mark = self._mark(frame, index)
            if not mark.index:
                return None
            return egress(frame.scene, Suspect(index), kind, event, self._severity(frame, mark))

        return judge

    def _listen(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        mark = self._mark(frame, index)
        if not mark.index or event["local_address"].startswith(_LOOPBACK):
            return None
        where = endpoint(event["local_address"], event["local_port"])
        return Sighting(self._severity(frame, mark), f"listen on {where}", f"listens on {where}")

    def _severity(self, frame: Frame, mark: _Mark) -> Severity:
        """One step worse below a service: a listener of its own does not make it one."""
        above = frame.scene.view.parent_within(mark.index)
        below = frame.scene.descents[above] is not None
        return self.capped(_STEPS[min(mark.step + below, len(_STEPS) - 1)])

    def _executed(self, frame: Frame, index: int, event: Mapping[str, Any]) -> None:
        """Remember what is downloaded, and who runs what was."""
        view = frame.scene.view
        image = view.processes[index]
        workload = frame.workload_ids[index]
        if view.roles[index] == "downloader":
            written = written_by(image["argv"])
            if written:
                self._files.at(workload).append((event["ktime_ns"], written))
            return
        known = self._files.peek(workload)
        if known is None:
            return
        ran = [image["executable"]]
        if view.roles[index] in _SCRIPTED:
            ran = [each for each in image["argv"][1:4] if not each.startswith("-")][:1]
        since_ns = event["ktime_ns"] - self._within_ns
        for at_ns, written in known:
            if at_ns >= since_ns and ran and is_one_of(ran[0], written):
                self._staged.put(frame.owners[index], ran[0])
                self._any_staged = True
                return

    def _mark(self, frame: Frame, index: int) -> _Mark:
        found = self._marks[index]
        if found is None:
            found = self._marks[index] = _dropped(frame.scene, index)
        if found.index or not self._any_staged:
            return found
        view = frame.scene.view
        seen: set[int] = set()
        while index and index not in seen:
            seen.add(index)
            path = self._staged.peek(frame.owners[index])
            if path is not None:
                script = view.roles[index] in _SCRIPTED
                return _Mark(index, f"runs {shown(path)}, just downloaded,", step=0 if script else 1)
            index = view.parent_within(index)
        return _NO_MARK


def _dropped(scene: Scene, index: int) -> _Mark:
    """The nearest dropped program at or above an image, in its workload: where its tree begins."""
    view = scene.view
    seen: set[int] = set()
    found = _NO_MARK
    while index and index not in seen:
        seen.add(index)
        image = view.processes[index]
        where = dropped_from(image)
        if where and not _is_runtime(scene, index):
            step = 1 if where.endswith("tmp") else 2
            found = _Mark(index, f"runs {where}", max(step, found.step))
        elif found.index:
            break
        index = view.parent_within(index)
    return found


def _is_runtime(scene: Scene, index: int) -> bool:
    """Whether an image is a container runtime's copy of itself, which it runs from memory to be safe."""
    view = scene.view
    path: str = view.processes[index]["executable"]
    above = {program_name(view.processes[each]["executable"]) for each in view.chain(index)[1:3]}
    return path.startswith(("memfd:runc_cloned", "memfd:crun")) and bool(above & _RUNTIMES)
