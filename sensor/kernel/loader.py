# SPDX-License-Identifier: Apache-2.0
"""The loader child: ``python -m sensor.kernel.loader``, started by Kernel.start.

Input: one JSON request on the socket given as --socket. Output: one JSON reply with the descriptors of
maps and iterators over SCM_RIGHTS; on failure a reply that says why. It holds the pin directory's lock
together with its parent, so that no other sensor interferes should the parent die meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from sensor.kernel.btf import Btf
from sensor.kernel.compile_cache import CompileCache, key_of
from sensor.kernel.compiled import Compiled, compile_programs
from sensor.kernel.errors import KernelError, PinsIncompatible
from sensor.kernel.establish import Established, Target, establish
from sensor.kernel.launch import MESSAGE_BYTES, LoadRequest
from sensor.kernel.offsets import compiler_options
from sensor.kernel.pins import Pins
from sensor.kernel.programs import PROGRAMS
from sensor.kernel.source import source_directory


def load(request: LoadRequest) -> Established:
    """Do what the request says, in this process.

    Raises:
        KernelError: It failed and left nothing behind.
    """
    btf = Btf.of_running_kernel()
    options = compiler_options(btf) + [f"-D{name}={value}" for name, value in request.sizes.items()]
    directory = Path(request.source_directory) if request.source_directory else source_directory()
    cgroup_fd = os.open(request.cgroup_root, os.O_RDONLY | os.O_DIRECTORY)
    compiled = _compiled(directory, options, request.cache_directory)
    return establish(compiled, Target(Pins(Path(request.pin_directory)), cgroup_fd, btf))


def _compiled(directory: Path, options: list[str], cache_directory: str | None) -> Compiled:
    key = key_of(directory, options, (program.name for program in PROGRAMS)) if cache_directory else None
    if cache_directory is None or key is None:
        return compile_programs(directory, options)
    cache = CompileCache(Path(cache_directory))
    kept = cache.get(key)
    if kept is not None:
        return kept
    compiled = compile_programs(directory, options)
    cache.put(key, compiled)
    return compiled


def main() -> None:
    """Serve one request and end."""
    parser = argparse.ArgumentParser(prog="python -m sensor.kernel.loader", description=__doc__)
    parser.add_argument("--socket", type=int, required=True, help="descriptor the parent listens on")
    connection = socket.socket(fileno=parser.parse_args().socket)
    request = LoadRequest.from_bytes(connection.recv(MESSAGE_BYTES))
    reply: dict[str, Any]
    descriptors: list[int] = []
    try:
        established = load(request)
    except PinsIncompatible as error:
        reply = {"error": error.message, "incompatible": True}
    except (KernelError, OSError) as error:
        reply = {"error": str(error)}
    else:
        reply = {
            "adopted": established.adopted,
            "maps": list(established.maps),
            "iterators": list(established.iterators),
        }
        descriptors = [*established.maps.values(), *established.iterators.values()]
    socket.send_fds(connection, [json.dumps(reply).encode()[:MESSAGE_BYTES]], descriptors)
    sys.stderr.flush()
    # Not sys.exit: BCC's destructors take a second and free what the process gives back anyway.
    os._exit(1 if "error" in reply else 0)


if __name__ == "__main__":
    main()
