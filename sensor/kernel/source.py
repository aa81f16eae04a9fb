# SPDX-License-Identifier: Apache-2.0
"""Where the C is, and how it becomes the one text BCC gets.

BCC rewrites map calls and finds programs only in the main file, so every ``#include "..."`` is expanded
in place, once each, with ``#line`` markers so that messages name the file a person can open.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from sensor.kernel.errors import KernelError

MAIN_FILE: Final = "nsp.bpf.c"
_INCLUDE: Final = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"')
_PACKAGE: Final = Path(__file__).resolve().parent.parent


def source_directory() -> Path:
    """The C tree: package data where the sensor is installed, ``bpf/`` in a checkout.

    Raises:
        KernelError: Neither is there.
    """
    for candidate in (_PACKAGE / "bpf", _PACKAGE.parent / "bpf"):
        if (candidate / MAIN_FILE).is_file():
            return candidate
    raise KernelError(f"{MAIN_FILE} is neither in {_PACKAGE} nor beside it", "install the sensor again")


def expand(directory: Path) -> str:
    """The one text: nsp.bpf.c with its own includes in place.

    Raises:
        KernelError: An included file is missing.
    """
    return "\n".join(_expanded(directory, MAIN_FILE, set())) + "\n"


def _expanded(directory: Path, name: str, seen: set[str]) -> list[str]:
    seen.add(name)
    try:
        lines = (directory / name).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise KernelError(f"{directory / name}: {error.strerror}", "install the sensor again") from error
    result = [f'#line 1 "{name}"']
    for number, line in enumerate(lines, start=1):
        match = _INCLUDE.match(line)
        if match is None:
            result.append(line)
        elif match[1] not in seen:
            result += [*_expanded(directory, match[1], seen), f'#line {number + 1} "{name}"']
        else:
            result.append("")
    return result
