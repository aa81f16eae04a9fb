# SPDX-License-Identifier: Apache-2.0
"""Rules of the tree that no linter knows."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("sensor", "stream_apps", "schemas", "nsp", "demo", "tests", "bench")
C_LICENCE = "/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */"
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
VAGUE_NAMES = {"utils", "util", "helpers", "common", "misc"}

PYTHON_FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
C_FILES = sorted(path for path in (ROOT / "bpf").glob("*.[ch]"))


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*PYTHON_FILES, *C_FILES], ids=shown)
def test_no_file_grows_beyond_what_can_be_read_at_once(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_FILE_LINES


@pytest.mark.parametrize("path", PYTHON_FILES, ids=shown)
def test_no_function_grows_beyond_a_screen(path: Path) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lengths = {node.name: (node.end_lineno or node.lineno) - node.lineno + 1 for node in functions}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == {}


@pytest.mark.parametrize("path", PYTHON_FILES, ids=shown)
def test_names_say_what_a_module_is_for(path: Path) -> None:
    assert not VAGUE_NAMES & {path.stem, *path.relative_to(ROOT).parent.parts}


@pytest.mark.parametrize("path", C_FILES, ids=shown)
def test_kernel_programs_carry_both_licences(path: Path) -> None:
    assert path.read_text().startswith(C_LICENCE)
