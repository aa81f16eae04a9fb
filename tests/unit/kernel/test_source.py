# SPDX-License-Identifier: Apache-2.0
"""The C tree as one text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sensor.kernel.errors import KernelError
from sensor.kernel.programs import Kind, of_kind
from sensor.kernel.source import expand, source_directory

if TYPE_CHECKING:
    from pathlib import Path


def test_own_includes_are_put_in_place_once_and_lines_keep_their_names(tmp_path: Path) -> None:
    (tmp_path / "nsp.bpf.c").write_text('#include <uapi/linux/bpf.h>\n#include "a.h"\n#include "b.h"\nmain\n')
    (tmp_path / "a.h").write_text('#include "b.h"\nin a\n')
    (tmp_path / "b.h").write_text("in b\n")
    assert expand(tmp_path).splitlines() == [
        '#line 1 "nsp.bpf.c"',
        "#include <uapi/linux/bpf.h>",
        '#line 1 "a.h"',
        '#line 1 "b.h"',
        "in b",
        '#line 2 "a.h"',
        "in a",
        '#line 3 "nsp.bpf.c"',
        "",
        "main",
    ]


def test_a_missing_include_is_named(tmp_path: Path) -> None:
    (tmp_path / "nsp.bpf.c").write_text('#include "gone.h"\n')
    with pytest.raises(KernelError, match=r"gone\.h"):
        expand(tmp_path)


def test_every_program_of_the_table_is_in_the_c() -> None:
    text = expand(source_directory())
    missing = [program.name for program in of_kind(*Kind) if f"int {program.name}(" not in text]
    assert missing == []
