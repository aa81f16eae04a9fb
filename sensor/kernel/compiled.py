# SPDX-License-Identifier: Apache-2.0
"""The edge to BCC: C in, bytecode and fresh maps out. Imported by the loader child only.

BCC brings LLVM, about 100 MB that the long-lived sensor must not carry. Nothing is loaded or attached
here; the maps exist as soon as BCC has compiled, held by its object.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.errors import KernelError
from sensor.kernel.programs import PROGRAMS
from sensor.kernel.source import expand

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class FreshMap:
    """A map BCC made for this compilation; nobody uses it yet."""

    fd: int
    info: bpf.MapInfo


@dataclass(frozen=True, slots=True)
class Compiled:
    """Bytecode by program name, referring to the fresh maps by their descriptors."""

    programs: dict[str, bytes]
    maps: dict[str, FreshMap]
    owner: Any  # BCC's object, if it has just compiled: the map descriptors close with it


def compile_programs(directory: Path, options: list[str]) -> Compiled:
    """Compile the C tree.

    Args:
        directory: Where nsp.bpf.c is.
        options: Compiler options: kernel offsets and map sizes.

    Raises:
        KernelError: BCC is missing, the C does not compile, or a program is not in it. The compiler's
            own words are on standard error, which the sensor quotes.
    """
    # BCC would otherwise look for the kernel's headers, which nodes do not have.
    os.environ["BCC_KERNEL_SOURCE"] = str(directory / "include")
    try:
        from bcc import BPF  # noqa: PLC0415 - loading LLVM is what this function is for
        from bcc.libbcc import lib  # noqa: PLC0415 - as above
    except ImportError as error:
        cure = "install the distribution's python3-bpfcc; a virtual environment needs --system-site-packages"
        raise KernelError(f"BCC cannot be imported: {error}", cure) from error
    try:
        module = BPF(text=expand(directory).encode(), cflags=["-I", str(directory), *options])
        programs = {program.name: module.dump_func(program.name.encode()) for program in PROGRAMS}
    except KernelError:
        raise
    except Exception as error:  # BCC raises bare Exception for everything
        raise KernelError(f"BCC: {error}") from error
    return Compiled(programs, _maps_of(lib, module.module), module)


def _maps_of(lib: Any, module: Any) -> dict[str, FreshMap]:
    """All maps, sk_storage among them, which BCC's own Python table access does not know."""
    for function, result in ((lib.bpf_table_name, ctypes.c_char_p), (lib.bpf_table_fd_id, ctypes.c_int)):
        function.argtypes = [ctypes.c_void_p, ctypes.c_size_t]  # BCC declares neither
        function.restype = result
    maps = {}
    for number in range(lib.bpf_num_tables(module)):
        fd = lib.bpf_table_fd_id(module, number)
        maps[lib.bpf_table_name(module, number).decode()] = FreshMap(fd, bpf.map_info(fd))
    return maps
