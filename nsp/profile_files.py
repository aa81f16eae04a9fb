# SPDX-License-Identifier: Apache-2.0
"""Files of SecurityProfiles: read, validated and compiled as a sensor would, before anything is sent.

Input: files and folders. Output: records by key. Failure: a refusal with every problem of every file.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from nsp.errors import CommandError
from schemas.codec import MAX_PROFILE_BYTES, MAX_PUBLISHED_PROFILE_BYTES, encode
from schemas.errors import CodecError
from schemas.profile.canonical import to_record
from schemas.profile.document import parse_profiles
from schemas.profile.errors import ProfileError
from schemas.profile.reading import MAX_FILE_BYTES
from schemas.topics import PROFILES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_SUFFIXES: Final = (".yaml", ".yml", ".json")


def load(files: Iterable[Path], now_ns: int = 0) -> dict[str, dict[str, Any]]:
    """Every profile of the files as a record, by key.

    Args:
        files: Files and folders.
        now_ns: Wall time, to refuse what could not be in force then; 0: only their names are wanted.

    Raises:
        CommandError: With every problem of every file.
    """
    found: dict[str, dict[str, Any]] = {}
    read_from: dict[str, Path] = {}
    problems: list[str] = []
    more = 0
    for path in _paths(files):
        try:
            profiles = parse_profiles(_read(path), str(path))
        except ProfileError as error:
            problems += error.problems
            more += error.more
            continue
        for profile in profiles:
            record = to_record(profile, now_ns)
            key = key_of(record)
            if key in found:
                where = "twice" if read_from[key] == path else f"and in {read_from[key]}"
                problems.append(f"{path}: {key} is there {where}; keep one")
            if now_ns:
                problems += [f"{path}: {key}: {problem}" for problem in _problems(record, now_ns)]
            found[key], read_from[key] = record, path
    if problems:
        raise CommandError("refused, nothing was sent:\n" + str(ProfileError(problems, more)))
    return found


def _problems(record: dict[str, Any], now_ns: int) -> Iterator[str]:
    """What a document cannot say by itself, and a sensor or the topic would refuse it for."""
    if 0 < record["expires_at_ns"] <= now_ns:
        yield "spec.expiresAt is over, so it would never be in force; give a later time, or none"
    try:
        size = len(encode(PROFILES.value, record))
    except CodecError:
        size = MAX_PROFILE_BYTES
    if size > MAX_PUBLISHED_PROFILE_BYTES:
        yield (
            f"with all its names and paths larger than {MAX_PUBLISHED_PROFILE_BYTES} bytes, what a message "
            "takes; use CIDRs and *.suffix names, or split it by workload"
        )
    from sensor.policy.errors import PolicyRefused  # noqa: PLC0415 - other commands need no rules
    from sensor.policy.profile import compile_profile  # noqa: PLC0415 - same

    try:
        compile_profile(record)
    except PolicyRefused as refusal:
        yield str(refusal).removeprefix(f"profile {key_of(record)}: ")


def _paths(files: Iterable[Path]) -> Iterator[Path]:
    for path in files:
        if path.is_dir():
            inside = sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES)
            if not inside:
                raise CommandError(f"{path}: no {', '.join(_SUFFIXES)} file in it")
            yield from inside
        else:
            yield path


def _read(path: Path) -> bytes:
    """A file, and no more of it than is enough to see that it is too large."""
    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error


def key_of(record: dict[str, Any]) -> str:
    """``NAMESPACE/NAME``."""
    return f"{record['namespace']}/{record['name']}"
