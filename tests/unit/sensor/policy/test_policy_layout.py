# SPDX-License-Identifier: Apache-2.0
"""The numbers rules are compiled to, against the headers the kernel programs are compiled from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sensor.policy import layout, limits, tables

BPF = Path(__file__).parents[4] / "bpf"
HEADERS = "".join((BPF / name).read_text() for name in ("state.h", "maps.h", "events.h"))
C_NUMBER = re.compile(r"^(?:#define\s+NSP_(\w+)\s+(\(1 << \d+\)|\d+\b)|\s+NSP_(\w+) = (\d+),)", re.MULTILINE)


def c_numbers() -> dict[str, int]:
    found = {}
    for define, value, member, number in C_NUMBER.findall(HEADERS):
        shift = re.fullmatch(r"\(1 << (\d+)\)", value)
        found[define or member] = 1 << int(shift[1]) if shift else int(value or number)
    return found


C_NUMBERS = c_numbers()
# Here : there, where the name alone would say too little.
RENAMED = {
    "OUT": "DIRECTION_OUT",
    "IN": "DIRECTION_IN",
    "NAME_MAX": None,
    **{
        name: f"RULESET_{name}"
        for name in (
            *("L3_IPV4", "L3_IPV6", "L3_ARP", "ANY_IPV4", "ANY_IPV6", "PORTS", "L7", "INGRESS_SHIFT"),
            *("NAMES", "DNS_ANY", "RAW_SOCKETS"),
        )
    },
}
NUMBERS = {name: value for name, value in vars(layout).items() if isinstance(value, int) and name[0] != "_"}


@pytest.mark.parametrize("name", [name for name in NUMBERS if RENAMED.get(name, name)])
def test_a_number_is_the_header_s(name: str) -> None:
    assert NUMBERS[name] == C_NUMBERS[RENAMED.get(name) or name]


@pytest.mark.parametrize(
    "name", ["MAX_RULESETS", "MAX_POLICIES", "MAX_POLICY_SLOTS", "MAX_PROGRAMS", "MAX_PROGRAM_RULES"]
)
def test_a_limit_is_the_map_s(name: str) -> None:
    assert getattr(limits, name) == C_NUMBERS[name]


def test_as_many_names_are_waited_for_as_the_map_takes() -> None:
    assert C_NUMBERS["MAX_WORKLOADS"] == limits.MAX_EXPECTED_WORKLOADS


def test_a_workload_takes_as_many_profiles_as_the_kernel_asks() -> None:
    assert C_NUMBERS["GRANTS"] == limits.MAX_PROFILES_OF_A_WORKLOAD


def test_history_is_kept_as_far_back_as_the_kernel_looks() -> None:
    assert C_NUMBERS["RULESET_HISTORY"] == tables.MAX_HISTORY


def test_keys_fill_the_structs() -> None:
    assert layout.NAME_KEY.size == 4 + C_NUMBERS["NAME_BYTES"]
    http = 4 + 1 + C_NUMBERS["HTTP_METHOD_BYTES"] + C_NUMBERS["HTTP_URI_BYTES"]
    assert layout.HTTP_KEY.size == http == 256
    assert layout.port_key(layout.IN, 6, 0x1234) == bytes((32, 0, 0, 0, 1, 6, 0x12, 0x34))


def test_an_executable_is_written_as_the_kernel_walks_it() -> None:
    assert layout.executable_key("/usr/bin/curl") == b"curl\0bin\0usr\0"
    assert layout.script_key("/usr/bin/x.py") == b"/usr/bin/x.py"
