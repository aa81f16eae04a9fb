# SPDX-License-Identifier: Apache-2.0
"""``nsp.reverse-shell``: a shell that takes its commands from the network. Behaviour first, words second.

What is judged, strongest first:

- *socket*: a shell or interpreter whose stdin or stdout is a connected INET socket at exec. This is the
  attack itself, whatever the command line says: CRITICAL for a shell, HIGH for an interpreter.
- *relay*: ``nc``, ``telnet``, ``openssl`` and the like with pipes on both ends, beside a shell with pipes on
  both ends started by the same process, goes out: the FIFO trick. HIGH.
- *words and deed*: a command line of :mod:`stream_apps.detect.shell_patterns`, and that process, or a relay
  with pipes on both ends that it started, connects, listens or sends. HIGH.
- an interactive shell (``-i``) on a pipe, a program to which a shell has given a socket as stdin, or *words*
  alone, when the process that was given them ends without the deed: MEDIUM. These have innocent
  explanations, so by default nothing is cut for them.

No service has to be above: this rule also sees what comes in by cron, by a stolen login or a bad package.
What ``inetd`` and its kind start has the client on stdin by design: those launchers are excluded. What is
cut is the tree below the service where there is one, else the topmost process that gives itself away.

Everything at or below such a process counts, so a batch that comes after the exec tells it too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from stream_apps.correlate.programs import program_name
from stream_apps.detect.egress import EGRESS_KINDS, WEIGHT_DESTINATION, egress, prepares_question
from stream_apps.detect.exclusions import apply_exclusions
from stream_apps.detect.rce_egress import techniques_of
from stream_apps.detect.rule import RANK, Destination, Rule, Severity, Sighting, Suspect
from stream_apps.detect.scene import endpoint, shown
from stream_apps.detect.shell_patterns import reverse_shell_pattern

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.detect.exclusions import Exclusion
    from stream_apps.detect.scene import Scene

RULE: Final = Rule(
    id="nsp.reverse-shell",
    title="A shell takes its commands from the network",
    severity="CRITICAL",
    attack=("T1059.004", "T1095"),
)

LISTEN: Final = "nsp.SocketListen"
_EXIT: Final = "nsp.ProcessExit"
_INVENTORY: Final = "nsp.ProcessInventory"
_PROCESS_KINDS: Final = ("nsp.ProcessExec", "nsp.ProcessFork", _INVENTORY, _EXIT)
_RELAY_NAMES: Final = frozenset({"nc", "ncat", "netcat", "socat", "telnet", "openssl", "cryptcat"})

Trait = Literal["socket", "relay", "words", "hint"]
_BOTH_PIPES: Final = ["PIPE", "PIPE"]
_PROCESS_VERBS: Final = {
    "nsp.ProcessExec": "started",
    "nsp.ProcessFork": "forked",
    _INVENTORY: "was running",
    _EXIT: "ended",
}
# More telling than anything such a shell does.
_WEIGHT_SOCKET: Final = 4


@dataclass(frozen=True, slots=True)
class _Mark:
    """What gives an image, or one above it, away.

    Attributes:
        root: The topmost image that does.
        source: The image with the strongest trait; the suspect's tool.
        trait: Which trait.
        why: In words.
    """

    root: int
    source: int
    trait: Trait
    why: str


_STRENGTH: Final[dict[Trait, int]] = {"hint": 0, "words": 1, "relay": 2, "socket": 3}


class ReverseShell:
    """The detector."""

    kinds: Sequence[str] = (*_PROCESS_KINDS, *EGRESS_KINDS, LISTEN)
    settings: Sequence[str] = ("rule", "_exclusions")

    def __init__(self, exclusions: Sequence[Exclusion] = (), severity: Severity = RULE.severity) -> None:
        self.rule = Rule(RULE.id, RULE.title, severity, RULE.attack)
        self._exclusions = tuple(exclusions)

    def watch(self, scene: Scene) -> Mapping[int, Suspect]:
        """See :class:`stream_apps.detect.rule.Detector`."""
        own = self._own_marks(scene)
        if not own:
            return {}
        found = {}
        for index in range(1, len(scene.view.processes)):
            mark = _nearest(scene, index, own)
            if mark is None:
                continue
            suspect = self._suspect(scene, index, mark)
            remaining = apply_exclusions(scene, suspect, self._exclusions)
            if remaining is not None:
                found[index] = replace(suspect, exclusions=remaining)
        return found

    def judge(self, scene: Scene, suspect: Suspect, kind: str, event: Mapping[str, Any]) -> Sighting | None:
        """See :class:`stream_apps.detect.rule.Detector`."""
        if kind in EGRESS_KINDS or kind == LISTEN:
            return self._judge_network(scene, suspect, kind, event)
        if not _tells_by_itself(scene, suspect, kind):
            return None
        on_socket = suspect.trait == "socket"
        source = scene.view.processes[suspect.tool]
        return Sighting(
            self._severity(scene, suspect, acted=False),
            summary=f"{_PROCESS_VERBS[kind]} {shown(' '.join(scene.view.processes[suspect.actor]['argv']))}",
            says=suspect.why,
            destination=_peer(source) if on_socket else None,
            attack=techniques_of(scene.view, {suspect.tool}),
            weight=_WEIGHT_SOCKET if on_socket and suspect.actor == suspect.tool else 0,
        )

    def _judge_network(
        self, scene: Scene, suspect: Suspect, kind: str, event: Mapping[str, Any]
    ) -> Sighting | None:
        attack = techniques_of(scene.view, {suspect.tool})
        if suspect.trait == "words" and not _runs_it(scene, suspect):
            return None
        if kind == LISTEN:
            where = endpoint(event["local_address"], event["local_port"])
            severity = self._severity(scene, suspect, acted=True)
            says = f"listens on {where}"
            return Sighting(severity, f"listen on {where}", says, attack=attack, weight=WEIGHT_DESTINATION)
        acted = not prepares_question(kind, event)
        if not acted and suspect.trait in ("relay", "words"):
            return None
        found = egress(scene, suspect, kind, event, self._severity(scene, suspect, acted=acted))
        return found and replace(found, attack=(*attack, *found.attack))

    def _severity(self, scene: Scene, suspect: Suspect, *, acted: bool) -> Severity:
        trait = suspect.trait
        if trait == "socket":
            wanted: Severity = "CRITICAL" if scene.view.roles[suspect.tool] == "shell" else "HIGH"
        elif acted and trait in ("relay", "words"):
            wanted = "HIGH"
        else:
            wanted = "MEDIUM"
        return min(wanted, self.rule.severity, key=RANK.__getitem__)

    def _suspect(self, scene: Scene, index: int, mark: _Mark) -> Suspect:
        descent = scene.descents[index]
        below = descent is not None and descent.cut_root != 0
        return Suspect(
            actor=index,
            cut_root=descent.cut_root if descent is not None and below else mark.root,
            service=descent.service if descent is not None and below else 0,
            tool=mark.source,
            trait=mark.trait,
            why=mark.why,
        )

    def _own_marks(self, scene: Scene) -> dict[int, _Mark]:
        marks = {}
        view = scene.view
        for index in range(1, len(view.processes)):
            image = view.processes[index]
            if image["origin"] not in ("EXEC", "INVENTORY"):
                continue
            mark = _socket_mark(scene, index) or _relay_mark(scene, index)
            if mark is None and view.roles[index] not in ("", "downloader"):
                mark = _words_mark(scene, index)
            if mark is None:
                mark = _hint_mark(scene, index)
            if mark is not None:
                marks[index] = mark
        return marks


def _socket_mark(scene: Scene, index: int) -> _Mark | None:
    image = scene.view.processes[index]
    role = scene.view.roles[index]
    if "INET" not in image["stdio"][:2] or role not in ("shell", "interpreter"):
        return None
    if image["stdio_peer"] is None:
        # Not connected: FastCGI programs get the listening socket so. A shell has no use for one.
        return (
            _Mark(index, index, "hint", "has an INET socket as stdin or stdout") if role == "shell" else None
        )
    return _Mark(index, index, "socket", f"has the connection to {image['stdio_peer']} as stdin or stdout")


def _relay_mark(scene: Scene, index: int) -> _Mark | None:
    if not _joins_pipes(scene, index):
        return None
    view = scene.view
    launcher = view.launcher(index)
    for other, role in enumerate(view.roles):
        if (
            role == "shell"
            and other != launcher
            and view.processes[other]["origin"] == "EXEC"
            and view.processes[other]["stdio"][:2] == _BOTH_PIPES
            and launcher
            and view.launcher(other)
            and view.same_process(view.launcher(other), launcher)
        ):
            return _Mark(index, index, "relay", "joins a shell's pipes to the network")
    return None


def _words_mark(scene: Scene, index: int) -> _Mark | None:
    image = scene.view.processes[index]
    pattern = reverse_shell_pattern(image["argv"])
    if pattern is not None:
        return _Mark(index, index, "words", f"was started with a reverse shell's command line ({pattern})")
    return None


def _hint_mark(scene: Scene, index: int) -> _Mark | None:
    view = scene.view
    image = view.processes[index]
    stdio = image["stdio"]
    if view.roles[index] == "shell" and stdio[:1] == ["PIPE"] and _is_interactive(image["argv"]):
        return _Mark(index, index, "hint", "is an interactive shell fed by a pipe")
    if stdio[:1] == ["INET"] and image["stdio_peer"] is not None and _started_by_shell(scene, index):
        return _Mark(index, index, "hint", f"was given the connection to {image['stdio_peer']} by a shell")
    return None


def _nearest(scene: Scene, index: int, own: Mapping[int, _Mark]) -> _Mark | None:
    """The strongest mark at or above an image in its workload, with the topmost marked image as root.

    Words above do not hide what an image shows itself: whoever started it may be a script.
    """
    view = scene.view
    best: _Mark | None = own.get(index)
    shown_itself = best is not None
    root = 0
    seen: set[int] = set()
    while index and index not in seen:
        seen.add(index)
        mark = own.get(index)
        if mark is not None:
            root = index
            stronger = best is None or _STRENGTH[mark.trait] > _STRENGTH[best.trait]
            if stronger and not (shown_itself and mark.trait == "words"):
                best = mark
        index = view.parent_within(index)
    return replace(best, root=root) if best else None


def _tells_by_itself(scene: Scene, suspect: Suspect, kind: str) -> bool:
    """Whether a process event of a suspect is evidence.

    Words are not, until the process that was given them ends and has not done the deed (what has been told
    of its deed then suppresses this). A shell's words are its children's to do, whenever it ends itself.
    """
    if suspect.trait == "words":
        if kind == _EXIT:
            return suspect.actor == suspect.tool and scene.view.roles[suspect.tool] != "shell"
        return kind == _INVENTORY
    return suspect.trait != "relay" and kind != _EXIT


def _runs_it(scene: Scene, suspect: Suspect) -> bool:
    """Whether the actor runs the very command line, rather than having been started by who does.

    A relay between pipes is what such a command line starts: the shell beside it, whose pipes it joins, is
    not in every batch.
    """
    view = scene.view
    actor, source = view.processes[suspect.actor], view.processes[suspect.tool]
    same: bool = suspect.actor == suspect.tool or actor["argv"] == source["argv"]
    return same or _joins_pipes(scene, suspect.actor)


def _joins_pipes(scene: Scene, index: int) -> bool:
    """Whether an image is a relay with pipes on both ends."""
    view = scene.view
    image = view.processes[index]
    if view.roles[index] != "relay" or image["stdio"][:2] != _BOTH_PIPES:
        return False
    return program_name(image["executable"]).partition(".")[0] in _RELAY_NAMES | {"busybox", "toybox"}


def _started_by_shell(scene: Scene, index: int) -> bool:
    launcher = scene.view.launcher(index)
    return launcher != 0 and scene.view.roles[launcher] == "shell"


def _is_interactive(argv: Sequence[str]) -> bool:
    flags = [each for each in argv[1:] if each.startswith("-") and not each.startswith("--")]
    return any("i" in each for each in flags) and not any("c" in each for each in flags)


def _peer(image: Mapping[str, Any]) -> Destination | None:
    """The remote end of an image's standard streams."""
    address, _, port = (image["stdio_peer"] or "").rpartition(":")
    if not address or not port.isdecimal():
        return None
    return Destination(address.strip("[]"), int(port), 6)
