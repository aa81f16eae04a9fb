# SPDX-License-Identifier: Apache-2.0
"""What kind of program an image is: a shell, an interpreter, a downloader, a relay, or none of these.

Input: the executable path the kernel walked (never the string given to execve) and, for programs that are
many in one (busybox), argv[0], which is what such a program itself decides by. Output: a :data:`Role`.
Failure: none; what is not listed has no role.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Role = Literal["", "shell", "interpreter", "downloader", "relay"]

SHELLS: Final = (
    "sh",
    "bash",
    "rbash",
    "dash",
    "ash",
    "zsh",
    "ksh",
    "mksh",
    "lksh",
    "fish",
    "csh",
    "tcsh",
    "yash",
)
INTERPRETERS: Final = (
    "python", "pypy", "perl", "ruby", "jruby", "php", "php-cgi", "node", "nodejs", "deno", "bun", "lua",
    "luajit", "tclsh", "wish", "expect", "gawk", "mawk", "awk", "R", "Rscript", "guile", "groovy", "jshell",
    "pwsh",
)  # fmt: skip
# What fetches a file or a page.
DOWNLOADERS: Final = (
    "curl", "wget", "wget2", "aria2c", "axel", "lynx", "links", "elinks", "w3m", "ftp", "lftp", "ncftp",
    "tftp",
    "scp", "sftp", "rsync", "ftpget", "GET", "lwp-download", "http", "https", "httpie",
)  # fmt: skip
# What joins a connection to something else, or asks the network something.
RELAYS: Final = (
    "nc", "nc.openbsd", "nc.traditional", "ncat", "netcat", "socat", "telnet", "ssh", "dbclient", "openssl",
    "cryptcat", "chisel", "ngrok", "dig", "host", "nslookup", "drill", "kdig", "nmap",
)  # fmt: skip
# Many programs in one file: the first argument says which.
MULTI_CALL: Final = ("busybox", "toybox", "busybox.static")

# python3.11, perl5.36.0, php8.2, lua5.4, ruby3.1, bash-5.2, zsh-5.9: the version is no part of the name.
_VERSION: Final = re.compile(r"[-.]?\d[\d.]*$")
# Distinct (executable, argv[0]) pairs kept: a cluster's images have some thousands of programs.
_CACHE_ENTRIES: Final = 8192


@dataclass(frozen=True, slots=True)
class ProgramLists:
    """Basenames by role, without versions.

    Attributes:
        shells: Take commands.
        interpreters: Run code given to them.
        downloaders: Fetch.
        relays: Join a connection to something.
    """

    shells: Sequence[str] = SHELLS
    interpreters: Sequence[str] = INTERPRETERS
    downloaders: Sequence[str] = DOWNLOADERS
    relays: Sequence[str] = RELAYS


@dataclass(frozen=True, slots=True)
class Programs:
    """Tells the role of an image."""

    lists: ProgramLists = field(default_factory=ProgramLists)
    _classify: Callable[[str, str, str], Role] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        table: dict[str, Role] = {}
        by_role: tuple[tuple[Role, Sequence[str]], ...] = (
            ("relay", self.lists.relays),
            ("downloader", self.lists.downloaders),
            ("interpreter", self.lists.interpreters),
            ("shell", self.lists.shells),
        )
        for role, names in by_role:
            table.update(dict.fromkeys(names, role))
        object.__setattr__(self, "_classify", _classifier(table))

    def role(self, image: Mapping[str, Any]) -> Role:
        """The role of a ``ProcessImage``."""
        argv = image["argv"]
        return self._classify(
            image["executable"] or image["comm"], argv[0] if argv else "", argv[1] if len(argv) > 1 else ""
        )


def _classifier(table: Mapping[str, Role]) -> Callable[[str, str, str], Role]:
    @lru_cache(maxsize=_CACHE_ENTRIES)
    def by_names(program: str, applet: str) -> Role:
        name = program_name(program)
        if name in MULTI_CALL:
            name = program_name(applet.lstrip("-"))
        return table.get(name) or table.get(_VERSION.sub("", name)) or ""

    def classify(program: str, first: str, second: str) -> Role:
        # `busybox sh`: the applet is the second word when the first is the program's own name.
        applet = ""
        if program.endswith(MULTI_CALL):
            applet = second if program_name(first) in MULTI_CALL else first
        return by_names(program, applet)

    return classify


def program_name(path: str) -> str:
    """Basename of an executable path, without what the kernel adds to a deleted one."""
    return path.removesuffix(" (deleted)").rpartition("/")[2]


def shown_name(image: Mapping[str, Any]) -> str:
    """What to call an image in a sentence."""
    name = program_name(image["executable"]) or image["comm"] or "an unknown program"
    if name in MULTI_CALL and image["argv"]:
        return f"{name} {program_name(image['argv'][0])}"
    return name
