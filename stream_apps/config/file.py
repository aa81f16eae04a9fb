# SPDX-License-Identifier: Apache-2.0
"""Everything the configuration is made of: the YAML file and the rule files it names, read at one time.

Input: the path. Output: :class:`Loaded`, or :class:`stream_apps.errors.ConfigError` with the place; nothing
of a refused one is used. A single rule that cannot be used is no reason to refuse (``stream_apps.sigma``).
:func:`fingerprint` says cheaply whether it is worth reading again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stream_apps.config.document import load_document
from stream_apps.config.problems import Problem
from stream_apps.errors import ConfigError
from stream_apps.sigma.loading import files_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_apps.config.document import Document, StreamConfig

Print = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration with its rule files.

    Attributes:
        document: The file.
        rules: Rule files by name, each with its bytes.
    """

    document: Document
    rules: tuple[tuple[str, bytes], ...]

    @property
    def config(self) -> StreamConfig:
        """What the file says."""
        return self.document.config

    @property
    def version(self) -> str:
        """The digest of the file."""
        return self.document.version


def load_all(path: Path) -> Loaded:
    """Read the file and the rules it names.

    Raises:
        ConfigError: It is refused, and why.
    """
    document = load_document(path)
    sigma = document.config.detect.sigma
    problems: list[Problem] = []
    rules: list[tuple[str, bytes]] = []
    for number, directory in enumerate(sigma.directories if sigma.enabled else ()):
        place = ("detect", "sigma", "directories", number)
        try:
            rules += files_of(directory)
        except OSError as error:
            reason = f"{error.filename or directory} cannot be read: {error.strerror or error}"
            mark = document.marks.of(place)
            problems.append(
                Problem(str(path), mark, ".".join(map(str, place)), reason, cure="mount it, or remove it")
            )
    if problems:
        raise ConfigError("\n".join(map(str, problems)), problems)
    return Loaded(document, tuple(rules))


def fingerprint(path: Path) -> Print:
    """What changes when a file does: also when a symbolic link to it, or to its directory, is another.

    A ConfigMap in Kubernetes is such a link, which is swapped: the file itself is never written.
    """
    try:
        found = path.stat()
    except OSError as error:
        return (error.errno,)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def rules_fingerprint(directories: Iterable[Path]) -> Print:
    """The same for all files below directories."""
    found: list[object] = []
    for directory in directories:
        found.append(fingerprint(directory))
        for root, inner, names in os.walk(directory):
            inner[:] = sorted(each for each in inner if not each.startswith("."))
            found += [(root, name, *fingerprint(Path(root, name))) for name in sorted(names)]
    return tuple(found)
