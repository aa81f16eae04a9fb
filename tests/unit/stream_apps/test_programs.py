# SPDX-License-Identifier: Apache-2.0
"""Roles of programs, from the kernel's path and, for many-in-one programs, argv."""

from __future__ import annotations

import pytest

from stream_apps.correlate.programs import ProgramLists, Programs, shown_name
from tests.support.batches import image

PROGRAMS = Programs()


@pytest.mark.parametrize(
    ("executable", "argv", "role"),
    [
        ("/usr/bin/dash", ["sh"], "shell"),
        ("/bin/bash", ["-bash"], "shell"),
        ("/usr/bin/zsh-5.9", ["zsh"], "shell"),
        ("/usr/bin/python3.11", ["python3"], "interpreter"),
        ("/opt/venv/bin/python", ["x"], "interpreter"),
        ("/usr/bin/perl5.36.0", ["perl"], "interpreter"),
        ("/usr/bin/php8.2", ["php"], "interpreter"),
        ("/usr/bin/lua5.4", ["lua"], "interpreter"),
        ("/usr/bin/ruby3.1", ["ruby"], "interpreter"),
        ("/usr/local/bin/node", ["node"], "interpreter"),
        ("/usr/bin/mawk", ["awk"], "interpreter"),
        ("/usr/bin/curl", ["curl"], "downloader"),
        ("/usr/bin/wget", ["wget"], "downloader"),
        ("/usr/bin/nc.openbsd", ["nc"], "relay"),
        ("/usr/bin/ncat", ["ncat"], "relay"),
        ("/usr/bin/socat1", ["socat"], "relay"),
        ("/usr/bin/ssh", ["ssh"], "relay"),
        ("/bin/busybox", ["sh", "-c", "id"], "shell"),
        ("/bin/busybox", ["/bin/sh"], "shell"),
        ("/bin/busybox", ["-ash"], "shell"),
        ("/bin/busybox", ["busybox", "nc", "-e", "sh"], "relay"),
        ("/bin/busybox", ["/bin/busybox", "wget"], "downloader"),
        ("/bin/busybox", ["ls"], ""),
        ("/bin/busybox", [], ""),
        ("/usr/bin/toybox", ["nc"], "relay"),
        ("/usr/bin/curl (deleted)", ["curl"], "downloader"),
        ("/usr/bin/ls", ["sh"], ""),
        ("/usr/sbin/php-fpm8.2", ["php-fpm"], ""),
        ("/usr/sbin/nginx", ["nginx"], ""),
        ("/tmp/3", ["3"], ""),
        ("memfd:x", ["x"], ""),
    ],
)
def test_the_role_comes_from_the_executable_not_from_what_it_calls_itself(
    executable: str, argv: list[str], role: str
) -> None:
    assert PROGRAMS.role(image(5, 5, executable, argv=argv)) == role


def test_comm_stands_in_where_the_path_is_not_known() -> None:
    assert PROGRAMS.role(image(5, 5, "", comm="bash")) == "shell"


def test_lists_are_configurable() -> None:
    programs = Programs(ProgramLists(shells=("oursh",), interpreters=(), downloaders=(), relays=()))
    assert programs.role(image(5, 5, "/opt/oursh2.1")) == "shell"
    assert programs.role(image(5, 5, "/usr/bin/bash")) == ""


@pytest.mark.parametrize(
    ("executable", "argv", "name"),
    [
        ("/usr/bin/curl", ["x"], "curl"),
        ("/bin/busybox", ["wget", "u"], "busybox wget"),
        ("", [], "an unknown program"),
    ],
)
def test_people_read_a_name(executable: str, argv: list[str], name: str) -> None:
    assert shown_name(image(5, 5, executable, argv=argv)) == name
