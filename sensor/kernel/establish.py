# SPDX-License-Identifier: Apache-2.0
"""From bytecode to running programs: load, attach, pin; or, where pins are, swap without a gap.

Runs in the loader child. All programs are loaded before anything is attached, so what the verifier
refuses changes nothing. On failure everything this attempt pinned or attached is undone.

Three sorts of maps: *kept* ones hold state and are adopted when pinned; *prog arrays* are replaced with
the programs that call through them, so that a packet never meets halves of two versions; *scratch* ones
belong to the programs and are not pinned.

Cgroup links swap by LINK_UPDATE. The kernel has no such thing for tracepoints, so theirs run a five
instruction program that tail-calls the real one through a pinned array of one entry; writing that entry
is the swap. A loader that dies in the middle leaves some hooks with the old program and some with the
new one, all on the same maps: enforcement holds, and the next start finishes the work.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.bytecode import dispatcher, patch_map_fds
from sensor.kernel.errors import KernelError, PinsIncompatible
from sensor.kernel.programs import Kind, Program, of_kind
from sensor.kernel.state import U32

if TYPE_CHECKING:
    from sensor.kernel.btf import Btf
    from sensor.kernel.compiled import Compiled, FreshMap
    from sensor.kernel.pins import Pins

_PROG_ARRAY: Final = 3
_SCRATCH_SUFFIX: Final = "_scratch"
_ENTRY_PREFIX: Final = "entry_"
# More would take a busy node's CPUs from its workloads for no shorter start: a few programs are most of it.
_VERIFYING_THREADS: Final = 4


@dataclass(frozen=True, slots=True)
class Established:
    """What the sensor gets: descriptors by name, and whether state of an earlier sensor is in the maps."""

    maps: dict[str, int]
    iterators: dict[str, int]
    adopted: bool


@dataclass(frozen=True, slots=True)
class Target:
    """Where to attach and pin, and the kernel's types."""

    pins: Pins
    cgroup_fd: int
    btf: Btf


def establish(compiled: Compiled, target: Target) -> Established:
    """Make the compiled programs the ones that run.

    Raises:
        ProgramRefused: The verifier said no.
        PinsIncompatible: What is pinned cannot be adopted.
        KernelError: Anything else; nothing of this attempt is left.
    """
    pins = target.pins
    with ExitStack() as undo:
        pins.refuse_other_versions()
        kept = _adopt_maps(compiled, pins)
        links = _open_links(target)
        loaded = _load(compiled, kept, target.btf)
        pins.create(undo)
        maps = _pin_maps(compiled, kept, pins, undo)
        _fill_tail_calls(loaded, maps)
        beside = _pin_arrays_beside(maps, pins, undo)
        for program in of_kind(Kind.RAW_TRACEPOINT, Kind.TP_BTF):
            _attach_tracepoint(program, loaded[program.name], links, target, undo)
        for program in of_kind(Kind.CGROUP):
            _attach_cgroup(program, loaded[program.name], links, target, undo)
        undo.pop_all()
    for name, path in beside.items():
        os.rename(path, pins.path("maps", name))  # noqa: PTH104 - bpffs pins are plain names here
    iterators = {program.name: loaded[program.name] for program in of_kind(Kind.ITERATOR)}
    on_interfaces = {program.name: loaded[program.name] for program in of_kind(Kind.INTERFACE)}
    _tidy(pins, maps, iterators | on_interfaces)
    return Established(maps, iterators, adopted=bool(kept))


def _is_kept(name: str, fresh: FreshMap) -> bool:
    return fresh.info.type != _PROG_ARRAY and not name.endswith(_SCRATCH_SUFFIX)


def _adopt_maps(compiled: Compiled, pins: Pins) -> dict[str, int]:
    kept = {}
    for name, fresh in compiled.maps.items():
        fd = pins.get("maps", name) if _is_kept(name, fresh) else None
        if fd is None:
            continue
        old, new = bpf.map_info(fd), fresh.info
        # max_entries may differ: the pinned map keeps its size until it is unloaded.
        if (old.type, old.key_bytes, old.value_bytes, old.flags) != (
            new.type,
            new.key_bytes,
            new.value_bytes,
            new.flags,
        ):
            raise PinsIncompatible(f"pinned map {name} is {old}, this sensor has {new}")
        kept[name] = fd
    return kept


def _open_links(target: Target) -> dict[str, int]:
    """The pinned links that still hang on something.

    Raises:
        PinsIncompatible: They hang on another cgroup than the one asked for.
    """
    links = {}
    cgroup_id = os.fstat(target.cgroup_fd).st_ino
    programs = of_kind(Kind.RAW_TRACEPOINT, Kind.TP_BTF, Kind.CGROUP)
    for program in programs:
        fd = target.pins.get("links", program.name)
        if fd is None:
            continue
        attached = bpf.link_info(fd).cgroup_id
        if program.kind is Kind.CGROUP and attached != cgroup_id:
            if attached:
                raise PinsIncompatible(f"link {program.name} is on cgroup {attached}, not on {cgroup_id}")
            os.close(fd)  # its cgroup was removed: nothing to swap
            target.pins.path("links", program.name).unlink()
            continue
        links[program.name] = fd
    return links


def _load(compiled: Compiled, kept: dict[str, int], btf: Btf) -> dict[str, int]:
    translation = {compiled.maps[name].fd: fd for name, fd in kept.items()}
    programs = of_kind(*Kind)

    def load(program: Program) -> int:
        code = patch_map_fds(compiled.programs[program.name], translation)
        return bpf.prog_load(code, _load_spec(program, btf))

    # The verifier takes seconds for all of them, and the kernel verifies on as many CPUs as ask. The
    # largest programs first, so that none is left over at the end.
    largest_first = sorted(programs, key=lambda program: -len(compiled.programs[program.name]))
    with ThreadPoolExecutor(max_workers=min(_VERIFYING_THREADS, os.cpu_count() or 1)) as threads:
        loaded = dict(zip(largest_first, threads.map(load, largest_first), strict=True))
    return {program.name: loaded[program] for program in programs}


def _load_spec(program: Program, btf: Btf) -> bpf.ProgramSpec:
    btf_id = 0
    try:
        if program.kind is Kind.TP_BTF:
            btf_id = btf.typedef_id(f"btf_trace_{program.target}")
        elif program.kind is Kind.ITERATOR:
            btf_id = btf.function_id(program.target)
    except KeyError as error:
        raise KernelError(f"this kernel has no {program.kind.value} {program.target}") from error
    return bpf.ProgramSpec(program.name, program.type, program.attach_type, btf_id)


def _pin_maps(compiled: Compiled, kept: dict[str, int], pins: Pins, undo: ExitStack) -> dict[str, int]:
    """Pin what is new; returns all maps but scratch, by name."""
    maps = {}
    for name, fresh in compiled.maps.items():
        if _is_kept(name, fresh):
            if name not in kept:
                pins.pin(fresh.fd, "maps", name, undo)
            maps[name] = kept.get(name, fresh.fd)
        elif fresh.info.type == _PROG_ARRAY:
            maps[name] = fresh.fd
    return maps


def _fill_tail_calls(loaded: dict[str, int], maps: dict[str, int]) -> None:
    for program in of_kind(Kind.TAIL_CALL):
        bpf.map_update(maps[program.target], U32.pack(program.index), U32.pack(loaded[program.name]))


def _pin_arrays_beside(maps: dict[str, int], pins: Pins, undo: ExitStack) -> dict[str, str]:
    """Pin the new prog arrays under passing names: an array nobody in user space holds loses its entries."""
    beside = {}
    for name in {program.target for program in of_kind(Kind.TAIL_CALL)}:
        passing = f"{name}-next-{os.getpid()}"
        pins.pin(maps[name], "maps", passing, undo)
        beside[name] = str(pins.path("maps", passing))
    return beside


def _attach_tracepoint(
    program: Program, program_fd: int, links: dict[str, int], target: Target, undo: ExitStack
) -> None:
    pins, entry = target.pins, _ENTRY_PREFIX + program.name
    array = pins.get("maps", entry)
    if array is None:
        array = bpf.map_create(entry, _PROG_ARRAY, U32.size, U32.size, 1)
        pins.pin(array, "maps", entry, undo)
    bpf.map_update(array, U32.pack(0), U32.pack(program_fd))
    if program.name in links:
        return
    spec = _load_spec(program, target.btf)
    calling = bpf.prog_load(dispatcher(array), spec)
    tracepoint = program.target if program.kind is Kind.RAW_TRACEPOINT else None
    link = bpf.raw_tracepoint_open(calling, tracepoint)
    undo.callback(os.close, link)
    pins.pin(link, "links", program.name, undo)


def _attach_cgroup(
    program: Program, program_fd: int, links: dict[str, int], target: Target, undo: ExitStack
) -> None:
    if program.name in links:
        bpf.link_update(links[program.name], program_fd, program.name)
        return
    link = bpf.link_create(program_fd, target.cgroup_fd, program.attach_type, program.name)
    undo.callback(os.close, link)
    undo.callback(bpf.link_detach, link, program.name)
    target.pins.pin(link, "links", program.name, undo)


def _tidy(pins: Pins, maps: dict[str, int], programs: dict[str, int]) -> None:
    """Pin what nothing else holds in place of older ones, and remove what only an older sensor had."""
    for name, fd in programs.items():
        pins.replace(fd, "programs", name)
    tracepoints = of_kind(Kind.RAW_TRACEPOINT, Kind.TP_BTF)
    entries = {_ENTRY_PREFIX + program.name for program in tracepoints}
    pins.remove_others("links", {program.name for program in (*tracepoints, *of_kind(Kind.CGROUP))})
    pins.remove_others("programs", set(programs))
    pins.remove_others("maps", set(maps) | entries)
