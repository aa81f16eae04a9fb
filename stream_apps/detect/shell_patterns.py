# SPDX-License-Identifier: Apache-2.0
"""Command lines by which a shell is tied to a connection, as people write them.

Input: an argument list, hostile. Output: the name of the pattern it matches, or None. A command line is a
claim of whoever wrote it: a match alone is weak, which is why ``nsp.reverse-shell`` asks for behaviour first.
A one-way ``> /dev/tcp/host/port`` is not here: thousands of health checks do that.

Cost is bounded: arguments are cut at 1 KiB in the kernel, the expressions have no nested repetition, and a
marker word must be there before any is tried.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

# Distinct command lines remembered; scripts repeat theirs.
_REMEMBERED: Final = 4096
_LONGEST: Final = 4096

_MARKERS: Final = (
    "/dev/tcp", "/dev/udp", "/inet", "ocket", "nc", "netcat", "socat", "telnet", "openssl", "net", "fsock",
)  # fmt: skip
_SHELL: Final = r"(?:\b|/)(?:ba|da|a|k|z|c|fi)?sh\b"
_NETCAT: Final = r"(?:^|[\s;|&(/'\"])(?:nc|ncat|netcat)(?:\.\w+)?(?=\s)"

# Name, then expressions that must all be found. The order is that of telling: the first match is named.
_LISTED: Final[tuple[tuple[str, ...], ...]] = (
    (
        "bash-dev-tcp",
        r"/dev/(?:tcp|udp)/",
        rf"{_SHELL}\s+-\w*i\b|\b0[<>]&\d|{_SHELL}\s*<&|<&\d+\s*[12]?>&",
    ),
    (
        "dev-tcp-loop",
        r"<>\s*/dev/(?:tcp|udp)/",
        r"while\s+read|\beval\b|\bread\s+-?\w*\s*\w+\s*<&",
    ),
    (
        "netcat-exec",
        rf"{_NETCAT}[^|;]{{0,256}}\s(?:-\w*[ec]|--exec|--sh-exec)\b",
        rf"{_SHELL}|python|perl",
    ),
    (
        "fifo-relay",
        r"\bmkfifo\b|\bmknod\b.{0,80}\bp\b",
        rf"{_NETCAT}|\btelnet\s|\bopenssl\s+s_client|\bsocat\s",
        _SHELL,
    ),
    (
        "piped-relay",
        rf"(?:{_NETCAT}|\btelnet\s|s_client)[^;|]{{0,256}}\|\s*(?:/\S{{0,64}}/)?{_SHELL}",
    ),
    (
        "socat-exec",
        r"\bsocat\b",
        r"(?i)\b(?:exec|system|shell):",
        r"(?i)\b(?:tcp|udp|openssl|ssl|sctp)\w*(?:-\w+)?:",
    ),
    ("awk-inet", r"/inet[46]?/(?:tcp|udp)/"),
    ("lua-socket", r"\bsocket\b", r"os\.execute|io\.popen", r"connect"),
    (
        "python-socket",
        r"\bsocket\b",
        r"\bconnect",
        r"dup2|pty\b|subprocess|os\.(?:system|popen|exec)",
    ),
    (
        "perl-socket",
        r"\bperl|STD(?:IN|OUT)|->fdopen",
        r"[Ss]ocket",
        r"exec|system|open\s*\(?STD|fdopen",
    ),
    ("ruby-socket", r"TCPSocket|UDPSocket", r"\bexec\b|popen|spawn|system|reopen"),
    (
        "php-socket",
        r"fsockopen|stream_socket_client|socket_create",
        r"exec|proc_open|passthru|system|popen",
    ),
    ("node-socket", r"\bnet\b", r"child_process|spawn|exec", r"connect|Socket|createConnection"),
)
# Name, then expressions that must all be found. The first match is named.
_PATTERNS: Final = tuple((name, tuple(map(re.compile, expressions))) for name, *expressions in _LISTED)


def reverse_shell_pattern(argv: Sequence[str]) -> str | None:
    """The name of the first pattern a command line matches."""
    if not argv:
        return None
    text = " ".join(argv)[:_LONGEST]
    if not any(marker in text for marker in _MARKERS):
        return None
    return _match(text)


@lru_cache(maxsize=_REMEMBERED)
def _match(text: str) -> str | None:
    for name, expressions in _PATTERNS:
        if all(each.search(text) for each in expressions):
            return name
    return None
