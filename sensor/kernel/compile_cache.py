# SPDX-License-Identifier: Apache-2.0
"""What BCC made, kept for the next start: bytecode, and the shapes of the maps it refers to.

Compiling costs 4 s of a CPU and some 200 MB; a sensor that starts again on the same kernel needs neither.
Input and output: one JSON file for each source, set of options and compiler, in a directory only root can
write: its content runs in the kernel. Failure: a file that cannot be read, or is not ours alone, is as if it
were not there, and the sensor compiles.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import platform
import stat
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.bytecode import patch_map_fds
from sensor.kernel.compiled import Compiled, FreshMap
from sensor.kernel.errors import BpfCallError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# A kernel update or another ring size makes a new one, of half a megabyte.
MAX_FILES: Final = 16
_ARRAY_OF_MAPS: Final = 12
_SK_STORAGE: Final = 24
# An array of maps named x_rules takes its shape from the map x_shape_scratch (bpf/maps.h).
_OUTER_SUFFIX, _INNER_SUFFIX = "_rules", "_shape_scratch"
_SUFFIX: Final = ".json"


@dataclass(frozen=True, slots=True)
class MapShape:
    """What a map is made from; ``enum bpf_map_type``, bytes, entries, BPF_F_* flags."""

    type: int
    key_bytes: int
    value_bytes: int
    max_entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class CompileCache:
    """The kept results.

    Args:
        directory: Where; made if it is not there.
    """

    directory: Path

    def get(self, key: str) -> Compiled | None:
        """What was kept for a key, with fresh maps; None when there is nothing that can be used."""
        try:
            self._require_private(self.directory)
            path = self.directory / (key + _SUFFIX)
            self._require_private(path)
            content = json.loads(path.read_bytes())
            shapes = {name: MapShape(**shape) for name, shape in content["maps"].items()}
            programs = {name: base64.b64decode(code) for name, code in content["programs"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, binascii.Error):
            return None
        with suppress(OSError):
            os.utime(path)
        maps: dict[str, FreshMap] = {}
        try:
            return _revived(shapes, programs, maps)
        except (BpfCallError, KeyError):
            # Shapes this kernel does not make. Should it be memory, compiling will say so.
            for each in maps.values():
                os.close(each.fd)
            return None

    def put(self, key: str, compiled: Compiled) -> None:
        """Keep a result; where that cannot be done, the next start compiles again."""
        numbers = {name: number for number, name in enumerate(compiled.maps, start=1)}
        by_fd = {fresh.fd: numbers[name] for name, fresh in compiled.maps.items()}
        content = {
            "maps": {name: asdict(_shape_of(fresh.info)) for name, fresh in compiled.maps.items()},
            "programs": {
                name: base64.b64encode(patch_map_fds(code, by_fd)).decode()
                for name, code in compiled.programs.items()
            },
        }
        with suppress(OSError):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._require_private(self.directory)
            # Whole or not at all: another sensor may read it now.
            descriptor, written = tempfile.mkstemp(dir=self.directory, prefix="new-")
            with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - it is open already
                json.dump(content, file)
            Path(written).rename(self.directory / (key + _SUFFIX))
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        kept = sorted(self.directory.glob("*" + _SUFFIX), key=lambda path: path.stat().st_mtime)
        for path in kept[:-MAX_FILES]:
            path.unlink(missing_ok=True)

    @staticmethod
    def _require_private(path: Path) -> None:
        """Raises PermissionError where somebody else could have written it."""
        status = path.lstat()
        writable_by_others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if status.st_uid != os.geteuid() or writable_by_others or stat.S_ISLNK(status.st_mode):
            raise PermissionError(f"{path} is not this user's alone")


def key_of(directory: Path, options: Iterable[str], programs: Iterable[str]) -> str | None:
    """A name for what compiling would give; None when there is no compiler to compare with.

    It covers the whole C tree, the options (kernel offsets among them) and BCC's version and library.
    """
    found = find_spec("bcc")
    if found is None or found.origin is None:
        return None
    package = Path(found.origin).parent
    digest = hashlib.sha256()
    for part in (platform.machine(), *options, *programs):
        digest.update(part.encode() + b"\0")
    sources = sorted(path for path in directory.rglob("*.[ch]") if path.is_file())
    for path in (package / "version.py", package / "libbcc.py", *sources):
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _shape_of(info: bpf.MapInfo) -> MapShape:
    return MapShape(info.type, info.key_bytes, info.value_bytes, info.max_entries, info.flags)


def _revived(
    shapes: Mapping[str, MapShape], programs: Mapping[str, bytes], fresh: dict[str, FreshMap]
) -> Compiled:
    """Makes the maps, into ``fresh`` as each is there."""
    # Inner shapes first: an array of maps is made from one of them.
    for name, shape in sorted(shapes.items(), key=lambda item: item[1].type == _ARRAY_OF_MAPS):
        fd = _create(name, shape, fresh)
        fresh[name] = FreshMap(fd, bpf.map_info(fd))
    by_number = {number: fresh[name].fd for number, name in enumerate(shapes, start=1)}
    code = {name: patch_map_fds(each, by_number) for name, each in programs.items()}
    return Compiled(code, {name: fresh[name] for name in shapes}, owner=None)


def _create(name: str, shape: MapShape, fresh: Mapping[str, FreshMap]) -> int:
    inner_fd, types = 0, None
    if shape.type == _ARRAY_OF_MAPS:
        inner_fd = fresh[name.removesuffix(_OUTER_SUFFIX) + _INNER_SUFFIX].fd
    if shape.type == _SK_STORAGE:
        types = bpf.storage_types(shape.value_bytes)
    sizes = (shape.key_bytes, shape.value_bytes, shape.max_entries)
    try:
        return bpf.map_create(name, shape.type, *sizes, shape.flags, inner_fd=inner_fd, types=types)
    finally:
        if types is not None:
            os.close(types.fd)
