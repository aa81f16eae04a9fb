# SPDX-License-Identifier: Apache-2.0
"""A sensor that starts again takes what was compiled before, and only what nobody else could have written."""

from __future__ import annotations

import json
import os
import struct
from typing import TYPE_CHECKING

import pytest

from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.compile_cache import MAX_FILES, CompileCache, key_of
from sensor.kernel.compiled import Compiled, FreshMap

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "0" * 64


SHAPES = {
    "sockets": (24, 4, 56, 0, 0x201),  # sk_storage, NO_PREALLOC | CLONE
    "name_shape_scratch": (11, 12, 4, 1, 1),  # LPM trie, NO_PREALLOC
    "counters": (6, 4, 8, 3, 0),  # per-CPU array
    "egress_tail_calls": (3, 4, 4, 8, 0),
    "events": (27, 0, 0, 4096, 0),
    "departed": (9, 16, 16, 64, 0),  # LRU hash
}


def reference(fd: int) -> bytes:
    """An instruction that loads a map."""
    return struct.pack("<BBhi", 0x18, 1 << 4 | 1, 0, fd) + bytes(8)


@pytest.fixture(scope="module")
def compiled() -> Iterator[Compiled]:
    """As the compiler would leave it: maps, and programs that refer to them."""
    fds = {}
    for name, (kind, *sizes) in SHAPES.items():
        types = bpf.storage_types(sizes[1]) if name == "sockets" else None
        fds[name] = bpf.map_create(name, kind, *sizes, types=types)
    inner = fds["name_shape_scratch"]
    fds["name_rules"] = bpf.map_create("name_rules", 12, 4, 4, 16, inner_fd=inner)
    # The array of maps before its shape: the order is the compiler's.
    maps = {name: FreshMap(fd, bpf.map_info(fd)) for name, fd in reversed(fds.items())}
    yield Compiled({name: reference(fd) + bytes(8) for name, fd in fds.items()}, maps, None)
    for fd in fds.values():
        os.close(fd)


@pytest.fixture
def cache(tmp_path: Path) -> CompileCache:
    return CompileCache(tmp_path / "kept")


@pytest.fixture
def revived(cache: CompileCache, compiled: Compiled) -> Iterator[Compiled]:
    cache.put(KEY, compiled)
    back = cache.get(KEY)
    assert back is not None
    yield back
    for each in back.maps.values():
        os.close(each.fd)


def test_maps_come_back_in_their_shapes_and_programs_refer_to_them(
    compiled: Compiled, revived: Compiled
) -> None:
    def shapes(of: Compiled) -> dict[str, tuple[int, ...]]:
        return {
            name: (
                each.info.type,
                each.info.key_bytes,
                each.info.value_bytes,
                each.info.max_entries,
                each.info.flags,
            )
            for name, each in of.maps.items()
        }

    assert shapes(revived) == shapes(compiled)
    assert {name: len(code) for name, code in revived.programs.items()} == {
        name: len(code) for name, code in compiled.programs.items()
    }
    assert {each.fd for each in revived.maps.values()}.isdisjoint(each.fd for each in compiled.maps.values())


def test_what_others_could_have_written_is_not_used(
    cache: CompileCache, compiled: Compiled, tmp_path: Path
) -> None:
    cache.put(KEY, compiled)
    file = cache.directory / f"{KEY}.json"
    file.chmod(0o620)
    assert cache.get(KEY) is None
    file.chmod(0o600)
    os.chown(file, 65534, 65534)
    assert cache.get(KEY) is None
    os.chown(file, os.geteuid(), -1)
    cache.directory.chmod(0o777)
    assert cache.get(KEY) is None
    cache.directory.chmod(0o700)
    link = CompileCache(tmp_path / "link")
    link.directory.symlink_to(cache.directory)
    assert link.get(KEY) is None


IMPOSSIBLE = {"type": 1, "key_bytes": 0, "value_bytes": 0, "max_entries": 0, "flags": 0}
ALONE = {"type": 12, "key_bytes": 4, "value_bytes": 4, "max_entries": 1, "flags": 0}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"maps": {}}',
        b'{"maps": {"x": {}}, "programs": {}}',
        json.dumps({"maps": {"x": IMPOSSIBLE}, "programs": {}}).encode(),
        json.dumps({"maps": {"x_rules": ALONE}, "programs": {}}).encode(),
    ],
)
def test_garbage_is_as_if_it_were_not_there(cache: CompileCache, content: bytes) -> None:
    cache.directory.mkdir(mode=0o700)
    file = cache.directory / f"{KEY}.json"
    file.write_bytes(content)
    file.chmod(0o600)
    assert cache.get(KEY) is None


def test_where_nothing_can_be_kept_nothing_is_lost(tmp_path: Path, compiled: Compiled) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = CompileCache(tmp_path / "file" / "below")
    cache.put(KEY, compiled)
    assert cache.get(KEY) is None


def test_the_oldest_are_forgotten(cache: CompileCache) -> None:
    empty = Compiled({}, {}, None)
    for number in range(MAX_FILES + 3):
        cache.put(f"{number:064}", empty)
        os.utime(cache.directory / f"{number:064}.json", (number, number))
    assert len(list(cache.directory.iterdir())) == MAX_FILES
    assert json.loads((cache.directory / f"{MAX_FILES + 2:064}.json").read_bytes()) == {
        "maps": {},
        "programs": {},
    }


def test_the_key_is_another_for_another_source_option_or_program(tmp_path: Path) -> None:
    tree = tmp_path / "tree" / "include"
    tree.mkdir(parents=True)
    (tree / "a.h").write_text("1")
    before = key_of(tree.parent, ["-DA=1"], ["one"])
    assert before is not None
    assert key_of(tree.parent, ["-DA=1"], ["one"]) == before
    assert key_of(tree.parent, ["-DA=2"], ["one"]) != before
    assert key_of(tree.parent, ["-DA=1"], ["two"]) != before
    (tree / "a.h").write_text("2")
    assert key_of(tree.parent, ["-DA=1"], ["one"]) != before
