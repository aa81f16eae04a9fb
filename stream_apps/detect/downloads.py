# SPDX-License-Identifier: Apache-2.0
"""Which files a download writes, by its command line, and whether a program is one of them.

Input: argv of a downloader; later an executable or a script's path. Output: paths, absolute where the command
line has them so, else bare names. Failure: what a command line does not say (a pipe, a redirection) is not
known; this is a hint that binds two processes together, never evidence by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_apps.correlate.programs import program_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_OUTPUT: Final = ("-o", "--output", "-O", "--output-document", "-l")
_COPIERS: Final = frozenset({"scp", "rsync", "sftp", "cp"})
_SCHEMES: Final = ("http://", "https://", "ftp://", "tftp://")
# A bare name that is one of an installed program's is that program.
_INSTALLED: Final = ("/usr/", "/bin/", "/sbin/", "/lib")
# Longer command lines download lists; the first files are enough.
_MOST: Final = 8


def written_by(argv: Sequence[str]) -> tuple[str, ...]:
    """Files that a downloader's command line says it writes."""
    found: list[str] = []
    name = program_name(argv[0]) if argv else ""
    to_stdout = name == "curl" and not any(each.startswith("-") and "O" in each for each in argv[1:])
    directory = ""
    rest = iter(argv[1:])
    for each in rest:
        flag, _, value = each.partition("=")
        if flag in ("-P", "--directory-prefix", "--output-dir"):
            directory = value or next(rest, "")
        elif flag in _OUTPUT and not (name == "curl" and flag == "-O"):
            found.append(value or next(rest, ""))
        elif each.startswith("-o") and len(each) > len("-o"):
            found.append(each[2:])
        elif each.startswith(_SCHEMES) and not to_stdout:
            found.append(each.partition("?")[0].rpartition("/")[2])
    if name in _COPIERS and len(argv) > 1:
        found.append(argv[-1])
    joined = [f"{directory.rstrip('/')}/{each}" if directory and "/" not in each else each for each in found]
    return tuple(each.removeprefix("./") for each in joined if each and each != "-")[:_MOST]


def is_one_of(path: str, written: Iterable[str]) -> bool:
    """Whether a program or script is one of the files written."""
    for each in written:
        if each.startswith("/"):
            if path == each or (each.endswith("/") and path.startswith(each)):
                return True
        elif path == each or (path.endswith(f"/{each}") and not path.startswith(_INSTALLED)):
            return True
    return False
