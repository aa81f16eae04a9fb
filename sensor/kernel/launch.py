# SPDX-License-Identifier: Apache-2.0
"""The parent's side of the loader child: start it, hand it a request, take descriptors or its error."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

from sensor.kernel.errors import LoaderFailed, PinsIncompatible

# 3 to 8 s as measured, minutes on a busy emulated CPU; beyond this it hangs.
LOADER_TIMEOUT_S: Final = 300.0
# A request or reply: a few hundred bytes of names, or the end of a verifier's log.
MESSAGE_BYTES: Final = 64 * 1024
# The kernel passes at most 253 in one message; there are about 20.
_MAX_DESCRIPTORS: Final = 128
_STDERR_LINES: Final = 20
_ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What the parent asks for; map sizes by the macro that bpf/maps.h reads."""

    pin_directory: str
    cgroup_root: str
    source_directory: str | None
    cache_directory: str | None
    sizes: dict[str, int]

    def to_bytes(self) -> bytes:
        """As sent."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> LoadRequest:
        """As received."""
        return cls(**json.loads(data))


@dataclass(frozen=True, slots=True)
class Loaded:
    """Descriptors by name, and whether an earlier sensor's state was adopted."""

    maps: dict[str, int]
    iterators: dict[str, int]
    adopted: bool


def run_loader(request: LoadRequest, lock_fd: int) -> Loaded:
    """Run the loader child to its end.

    Args:
        request: What to load and where.
        lock_fd: The held lock, which the child shares.

    Raises:
        PinsIncompatible: What is pinned cannot be adopted.
        LoaderFailed: With the loader's reason, or the end of what it wrote on standard error.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, tempfile.TemporaryFile() as messages:
        with theirs:
            child = _start(theirs, lock_fd, messages)
        try:
            ours.settimeout(LOADER_TIMEOUT_S)
            ours.send(request.to_bytes())
            reply, descriptors, _, _ = socket.recv_fds(
                ours, MESSAGE_BYTES, _MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            child.kill()
            raise LoaderFailed(f"the loader did not answer ({error})", _tail(messages)) from error
        finally:
            child.wait()
        return _understood(reply, descriptors, child.returncode, messages)


def _start(theirs: socket.socket, lock_fd: int, messages: IO[bytes]) -> subprocess.Popen[bytes]:
    # -P: the working directory of a root process must not be where its modules come from.
    command = [sys.executable, "-P", "-m", "sensor.kernel.loader", "--socket", str(theirs.fileno())]
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        command,
        pass_fds=(theirs.fileno(), lock_fd),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.DEVNULL,
        stdout=messages,
        stderr=messages,
    )


def _understood(reply: bytes, descriptors: list[int], status: int, messages: IO[bytes]) -> Loaded:
    if not reply:
        raise LoaderFailed(f"the loader ended with status {status}", _tail(messages))
    content = json.loads(reply)
    if content.get("incompatible"):
        raise PinsIncompatible(content["error"])
    if "error" in content:
        raise LoaderFailed(content["error"], _tail(messages))
    maps, iterators = content["maps"], content["iterators"]
    return Loaded(
        dict(zip(maps, descriptors[: len(maps)], strict=True)),
        dict(zip(iterators, descriptors[len(maps) :], strict=True)),
        content["adopted"],
    )


def _tail(messages: IO[bytes]) -> str:
    messages.seek(0)
    lines = messages.read().decode(errors="replace").splitlines()[-_STDERR_LINES:]
    return "it wrote:\n" + "\n".join(lines) if lines else ""
