# SPDX-License-Identifier: Apache-2.0
"""A process that does what a kernel test tells it: one command a line in, one answer a line out.

A command is a JSON list: verb, name of a socket or helper, arguments. The answer is {"ok": value} or
{"error": name of the errno}. A helper is a forked child with all sockets inherited, commanded through its
parent. Run as a program; it imports nothing of this project, so that it starts fast.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import socket
import struct
import sys
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SILENCE_S = 0.3  # how long nothing must arrive for "nothing arrived"
_SO_ATTACH_FILTER = 26  # not in every version of the socket module
_ACCEPT_ALL = struct.pack("HBBI", 0x06, 0, 0, 0xFFFFFFFF)
_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_FILTER_INSTRUCTIONS = 40  # more memory than one more group takes

_sockets: dict[str, socket.socket] = {}
_helpers: dict[str, tuple[IO[str], IO[str]]] = {}


def _socket(name: str, family: int, kind: int, protocol: int = 0) -> None:
    made = socket.socket(family, kind, protocol)
    made.settimeout(SILENCE_S)
    _sockets[name] = made


def _accept(name: str, accepted: str) -> None:
    made, _ = _sockets[name].accept()
    made.settimeout(SILENCE_S)
    _sockets[accepted] = made


def _shut(name: str) -> None:
    _sockets.pop(name).close()


def _abort(name: str) -> None:
    """Ends a TCP connection at once: what was not acknowledged is not sent again."""
    ended = _sockets.pop(name)
    ended.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ended.close()


def _helper(name: str, flow: str = "", address: str = "", port: int = 0, forks: int = 0) -> int:
    """Forks a helper.

    With a flow, through a parent that connects it and is gone when this returns; with forks, that many
    more times, with each parent gone.
    """
    command_read, command_write = os.pipe()
    answer_read, answer_write = os.pipe()
    tgid = os.fork()
    if tgid == 0:
        os.close(command_write)
        os.close(answer_read)
        answers = os.fdopen(answer_write, "w")
        if flow:
            _socket(flow, socket.AF_INET, socket.SOCK_STREAM)
            _sockets[flow].connect((address, port))
            if os.fork():
                os._exit(0)
        for _ in range(forks):
            if os.fork():
                os._exit(0)
        answers.write(f"{os.getpid()}\n")
        answers.flush()
        _serve(os.fdopen(command_read), answers)
        os._exit(0)
    os.close(command_read)
    os.close(answer_write)
    answers_of = os.fdopen(answer_read)
    _helpers[name] = answers_of, os.fdopen(command_write, "w")
    if flow or forks:
        os.waitpid(tgid, 0)
    return int(answers_of.readline())


def _ask(name: str, *command: Any) -> Any:
    answers, commands = _helpers[name]
    commands.write(json.dumps(command) + "\n")
    commands.flush()
    answer = json.loads(answers.readline())
    if "error" in answer:
        raise OSError(getattr(errno, answer["error"]), "in the helper")
    return answer["ok"]


def _own_network() -> int:
    """A network namespace with nothing but loopback; returns this process, for others to join it."""
    _enter(ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET))
    with socket.socket() as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
    return os.getpid()


def _join_network(tgid: int) -> None:
    descriptor = os.open(f"/proc/{tgid}/ns/net", os.O_RDONLY)
    try:
        _enter(ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET))
    finally:
        os.close(descriptor)


def _enter(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), "network namespace")


def _receive_bytes(name: str) -> list[Any]:
    data, peer = _sockets[name].recvfrom(65536)
    return [data.hex(), *(peer or ("", 0))[:2]]


def _set_option(name: str, level: int, option: int, value: int) -> None:
    _sockets[name].setsockopt(level, option, value)


def _spend(name: str) -> int:
    """Uses up a UDP socket's option memory; returns how many groups it joined."""
    groups = 0
    with contextlib.suppress(OSError):
        while True:
            group = socket.inet_pton(socket.AF_INET6, f"ff02::1:{groups + 1:x}")
            membership = group + struct.pack("I", socket.if_nametoindex("lo"))
            _sockets[name].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
            groups += 1
    for instructions in range(_FILTER_INSTRUCTIONS, 0, -1):
        code = ctypes.create_string_buffer(_ACCEPT_ALL * instructions)
        program = struct.pack("HxxxxxxQ", instructions, ctypes.addressof(code))
        with contextlib.suppress(OSError):
            _sockets[name].setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
            break
    return groups


_VERBS: dict[str, Callable[..., Any]] = {
    "ready": os.getpid,
    "socket": _socket,
    "connect": lambda name, address, port: _sockets[name].connect((address, port)),
    "bind": lambda name, address, port: _sockets[name].bind((address, port)),
    "listen": lambda name: _sockets[name].listen(),
    "accept": _accept,
    "port": lambda name: _sockets[name].getsockname()[1],
    "send": lambda name, text: _sockets[name].send(text.encode()),
    "sendto": lambda name, text, address, port: _sockets[name].sendto(text.encode(), (address, port)),
    "recv": lambda name: _sockets[name].recv(65536).decode(),
    "sendbytes": lambda name, data: _sockets[name].send(bytes.fromhex(data)),
    "sendbytesto": lambda name, data, *peer: _sockets[name].sendto(bytes.fromhex(data), tuple(peer)),
    "recvbytes": _receive_bytes,
    "option": _set_option,
    "own_network": _own_network,
    "join_network": _join_network,
    "spend": _spend,
    "close": _shut,
    "abort": _abort,
    "helper": _helper,
    "ask": _ask,
}


def _answer(command: list[Any]) -> dict[str, Any]:
    try:
        return {"ok": _VERBS[command[0]](*command[1:])}
    except TimeoutError:
        return {"error": "ETIMEDOUT"}
    except OSError as error:
        return {"error": errno.errorcode[error.errno or 0]}


def _serve(commands: IO[str], answers: IO[str]) -> None:
    for line in commands:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve(sys.stdin, sys.stdout)
