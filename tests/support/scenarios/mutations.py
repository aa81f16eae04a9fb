# SPDX-License-Identifier: Apache-2.0
"""Recordings as they would be of an attacker who knows some of what is looked for. Deterministic by seed.

Tools under another name and in another place, another shell, other addresses and ports of the attacker, more
time between all that is done, uneven gaps. What a program does is not changed, nor the service that is
exploited.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from tests.support.scenarios.world import EVIL, SHELL_PORTS, TLS_PORT

if TYPE_CHECKING:
    from tests.support.scenarios.recording import Record, Recording

_SHELLS: Final = frozenset({"sh", "dash", "bash"})
_OTHER_SHELLS: Final = ("/usr/bin/zsh", "/bin/ksh93", "/usr/bin/fish", "/bin/ash", "/usr/bin/mksh")
_OTHER_ADDRESSES: Final = ("198.51.100.7", "192.0.2.200", "100.24.7.9")
# Where shells and beacons call: what everybody calls.
_TELLING_PORTS: Final = frozenset({*SHELL_PORTS, TLS_PORT, 8443, 9001})
_WORDS: Final = ("kworkd", "update-cache", "syslogd2", "java-helper", "logger.bin")
_SERVING: Final = frozenset({"java", "node", "php8.2", "php"})

Mutation = Callable[["Recording", random.Random], "Recording"]


def renamed_tools(recording: Recording, dice: random.Random) -> Recording:
    """Everything that is no shell and no service was copied to another place under another name."""
    word = dice.choice(_WORDS)

    def change(image: Record) -> Record:
        name = _name(image)
        if image["serving"] or name in _SHELLS or name in _SERVING or not image["executable"]:
            return image
        return _as(image, f"/opt/{word}")

    return _with_images(recording, change)


def other_shell(recording: Recording, dice: random.Random) -> Recording:
    """The shells are of another make."""
    path = dice.choice(_OTHER_SHELLS)
    return _with_images(recording, lambda image: _as(image, path) if _name(image) in _SHELLS else image)


def elsewhere(recording: Recording, dice: random.Random) -> Recording:
    """The attacker is at another address, and on port 443."""
    address = dice.choice(_OTHER_ADDRESSES)

    def moved(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {each: moved(within, each) for each, within in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(moved(each) for each in value)
        if isinstance(value, str):
            return value.replace(EVIL, address)
        return 443 if name == "remote_port" and value in _TELLING_PORTS else value

    batches = tuple(
        {**each, "events": moved(each["events"]), "processes": moved(each["processes"])}
        for each in recording.batches
    )
    return replace(recording, batches=batches)


def slower(recording: Recording, dice: random.Random) -> Recording:
    """All takes three times as long."""
    del dice
    return in_time(recording, 3)


def uneven(recording: Recording, dice: random.Random) -> Recording:
    """Each gap is up to a fifth longer or shorter."""
    return in_time(recording, 1, dice)


def all_at_once(recording: Recording, dice: random.Random) -> Recording:
    """By somebody who reads our source."""
    return uneven(elsewhere(other_shell(renamed_tools(recording, dice), dice), dice), dice)


MUTATIONS: Final[dict[str, Mutation]] = {
    "as recorded": lambda recording, _: recording,
    "renamed tools": renamed_tools,
    "another shell": other_shell,
    "another address and port": elsewhere,
    "three times slower": slower,
    "uneven by a fifth": uneven,
    "all of these": all_at_once,
}


def in_time(
    recording: Recording, factor: float, dice: random.Random | None = None, spread: float = 0.2
) -> Recording:
    """The same, with so much more time between the events, each longer or shorter by up to a share."""
    if not recording.batches:
        return recording
    clock = _Clock(recording.batches[0], factor, dice, spread)
    batches = []
    for batch in recording.batches:
        events = [
            (kind, {**event, "ktime_ns": clock.at(event["ktime_ns"])}) for kind, event in batch["events"]
        ]
        boot_ns = clock.at(batch["clock"]["boot_ns"])
        moved = {
            "boot_ns": boot_ns,
            "wall_ns": batch["clock"]["wall_ns"] - batch["clock"]["boot_ns"] + boot_ns,
        }
        batches.append({**batch, "events": events, "clock": moved})
    return replace(recording, batches=tuple(batches))


class _Clock:
    """Times of a recording to other times, in the same order."""

    def __init__(self, first: Record, factor: float, dice: random.Random | None, spread: float) -> None:
        self._from: int = min(event["ktime_ns"] for _, event in first["events"])
        self._to: int = self._from
        self._factor = factor
        self._dice = dice
        self._spread = spread

    def at(self, ktime_ns: int) -> int:
        """Another time; those of one CPU may come a little out of order and keep their order."""
        gap = int((ktime_ns - self._from) * self._factor)
        if self._dice is not None:
            gap = int(gap * self._dice.uniform(1 - self._spread, 1 + self._spread))
        self._from = ktime_ns
        self._to += gap
        return self._to


def _with_images(recording: Recording, change: Callable[[Record], Record]) -> Recording:
    batches = tuple(
        {**batch, "processes": [change(image) for image in batch["processes"]]} for batch in recording.batches
    )
    return replace(recording, batches=batches)


def _name(image: Record) -> str:
    name: str = image["executable"].rpartition("/")[2]
    return name


def _as(image: Record, path: str) -> dict[str, Any]:
    name = path.rpartition("/")[2]
    return {**image, "executable": path, "comm": name[:15], "argv": [name, *image["argv"][1:]]}
