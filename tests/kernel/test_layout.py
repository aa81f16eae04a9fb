# SPDX-License-Identifier: Apache-2.0
"""What the C compiler says of events.h and state.h, against what Python reads and writes."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from sensor.kernel import interface_state, offsets, policy_state, state
from sensor.kernel.source import source_directory
from sensor.publish.layout import HEADER, LAYOUTS, Layout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Measure = Callable[[list[str]], list[int]]

KEY = ("start_ns", "tgid", "pad")
GRANTS = (*(f"rulesets[{number}]" for number in range(policy_state.GRANTS)), "mode")
STATE_STRUCTS = {
    "nsp_process_key": (state.ProcessKey.layout, KEY),
    "nsp_enforcement": (
        state.EnforcementValue.layout,
        (
            "generation",
            "expires_ns",
            "first_refused_ns",
            "refused_calls",
            "refused_packets",
            "refused_bytes",
        ),
    ),
    "nsp_process": (
        state.ProcessValue.layout,
        (
            "start_ns",
            "inode",
            *(f"quarantine_root.{member}" for member in KEY),
            *(f"ancestors[{number}].{member}" for number in range(state.ANCESTORS) for member in KEY),
            "dev",
            "flags",
            "program",
            "script",
        ),
    ),
    "nsp_destination": (
        state.DestinationKey.layout,
        ("workload_cgroup_id", "address", "port", "protocol"),
    ),
    "nsp_allowed_flow": (
        state.AllowedKey.layout,
        ("prefixlen", "protocol", "direction", "port", "workload_cgroup_id", "address"),
    ),
    "nsp_sensor_state": (state.SensorState.layout, ("batch_sequence", "ring_position")),
    "nsp_workload": (policy_state.WORKLOAD, ("workload_cgroup_id", "policy_slot")),
    "nsp_grants": (policy_state.GrantsValue.layout, GRANTS),
    "nsp_policy": (
        policy_state.PolicyValue.layout,
        ("grants", "content", "generation", "flags"),
    ),
    "nsp_ruleset": (
        policy_state.RulesetValue.layout,
        (
            *(f"protocols[{direction}][{word}]" for direction in range(2) for word in range(4)),
            *("content", "flags", "previous", "l7[0]", "l7[1]"),
        ),
    ),
    "nsp_program_key": (policy_state.ProgramKey.layout, ("policy", "program", "script")),
    "nsp_learned_key": (policy_state.LearnedKey.layout, ("workload_cgroup_id", "ruleset", "address")),
    "nsp_learned_value": (policy_state.LearnedValue.layout, ("expires_ns", "name_id")),
    "nsp_resolver_key": (policy_state.ResolverKey.layout, ("workload_cgroup_id", "address")),
    "nsp_break_glass": (
        policy_state.BreakGlass.layout,
        ("prefixlen", "protocol", "direction", "port", "address"),
    ),
    "nsp_interface_key": (interface_state.InterfaceKey.layout, ("netns", "ifindex")),
    "nsp_interface": (
        interface_state.InterfaceValue.layout,
        (
            *("workload_cgroup_id", "learn_tokens_ns", "ask_tokens_ns", "ask_spared_ns"),
            *("subject.netns", "subject.ifindex", "flags", "mac"),
        ),
    ),
    "nsp_binding_key": (
        interface_state.BindingKey.layout,
        ("interface.netns", "interface.ifindex", "vlan", "pad", "address"),
    ),
    "nsp_binding": (
        interface_state.BindingValue.layout,
        ("seen_ns", "asked_ns", "probed_ns", "mac", "flags"),
    ),
    "nsp_policy_counters": (
        policy_state.PolicyCounters.layout,
        (
            *("refused_calls", "refused_packets", "alerted", "first_refused_ns"),
            *(f"by_reason[{reason}]" for reason in range(16)),
        ),
    ),
}
CODE = re.compile(r"(\d+s|\d+x|\d*[QIHB])")


# Structs that begin with another one, which the decoder's table has flat: its member, and their own members.
OUTER: dict[str, tuple[str, frozenset[str]]] = {
    "nsp_close_event": ("flow.", frozenset({"bytes_sent", "bytes_received", "duration_ns"})),
    "nsp_dns_answer_event": ("dns.", frozenset({"records"})),
    "nsp_http_event": (
        "flow.",
        frozenset({"uri_bytes", "host_bytes", "seen", "seen_pad", "method", "uri", "host"}),
    ),
    "nsp_tls_event": ("flow.", frozenset({"name_bytes", "seen", "seen_pad", "name"})),
}


def c_member(structure: str, name: str) -> str:
    """How C writes a field of the decoder's flat table."""
    if structure in {"nsp_event_header", "nsp_dns_record"}:
        return name
    outer, own = OUTER.get(structure, ("", frozenset()))
    if name in own:
        return name
    return f"{outer}header.{name}" if name in HEADER.offsets else f"{outer}{name}"


@pytest.fixture(scope="module")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Measure:
    """Evaluates integer C expressions over the two headers."""
    compiler = shutil.which("cc") or shutil.which("clang") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler found")
    folder: Path = tmp_path_factory.mktemp("layout")

    def evaluate(expressions: list[str]) -> list[int]:
        lines = "\n".join(f'printf("%llu\\n", (unsigned long long)({text}));' for text in expressions)
        source = folder / "measure.c"
        source.write_text(
            "#include <stdio.h>\n#include <stddef.h>\n#include <linux/types.h>\n"
            f'#include "events.h"\n#include "state.h"\nint main(void) {{ {lines} return 0; }}\n'
        )
        program = folder / "measure"
        subprocess.run(
            [compiler, "-Wall", "-Werror", "-I", str(source_directory()), str(source), "-o", str(program)],
            check=True,
        )
        result = subprocess.run([str(program)], check=True, capture_output=True, text=True)
        return [int(line) for line in result.stdout.split()]

    return evaluate


def python_offsets(code: str) -> list[int]:
    """Byte offset of each value of a struct format without alignment; counts before numbers expand."""
    offsets_found, at = [], 0
    for token in CODE.findall(code.lstrip("<")):
        kind, count = token[-1], int(token[:-1] or 1)
        if kind in "sx":
            if kind == "s":
                offsets_found.append(at)
            at += count
        else:
            width = {"Q": 8, "I": 4, "H": 2, "B": 1}[kind]
            offsets_found += [at + number * width for number in range(count)]
            at += count * width
    return offsets_found


@pytest.mark.parametrize("name", STATE_STRUCTS)
def test_a_map_struct_has_the_same_bytes_on_both_sides(measure: Measure, name: str) -> None:
    layout, members = STATE_STRUCTS[name]
    size, *places = measure(
        [f"sizeof(struct {name})", *(f"offsetof(struct {name}, {member})" for member in members)]
    )
    assert layout.size == size
    assert python_offsets(layout.format) == places


def test_the_quarantine_root_is_replaced_where_it_lies(measure: Measure) -> None:
    expected = measure(["offsetof(struct nsp_process, quarantine_root)", "NSP_ANCESTORS"])
    assert [state.ProcessValue.root_offset, state.ANCESTORS] == expected


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.c_name)
def test_an_event_has_the_same_bytes_on_both_sides(measure: Measure, layout: Layout) -> None:
    size, *places = measure(
        [
            f"sizeof(struct {layout.c_name})",
            *(
                f"offsetof(struct {layout.c_name}, {c_member(layout.c_name, name)})"
                for name in layout.offsets
            ),
        ]
    )
    assert layout.size_bytes == size
    assert layout.offsets == dict(zip(layout.offsets, places, strict=True))


def test_every_event_struct_of_the_header_is_known() -> None:
    text = (source_directory() / "events.h").read_text()
    assert set(re.findall(r"^struct (nsp_\w+) {", text, re.MULTILINE)) == {item.c_name for item in LAYOUTS}


def test_counters_have_the_names_and_numbers_of_the_enum(measure: Measure) -> None:
    numbers = measure([f"NSP_COUNTER_{name.upper()}" for name in state.COUNTERS])
    assert numbers == list(range(len(state.COUNTERS)))
    text = (source_directory() / "state.h").read_text()
    names = set(re.findall(r"NSP_COUNTER_(\w+)\s*=", text)) - {"MAX"}
    assert names == {name.upper() for name in state.COUNTERS}


def test_constants_are_those_of_the_headers(measure: Measure) -> None:
    names = ["NSP_LAYOUT_VERSION", "NSP_WORKLOAD_HAS_BLOCKS", "NSP_WORKLOAD_HAS_QUARANTINE"]
    names += ["NSP_WORKLOAD_HAS_ALLOWED", "NSP_ALLOWED_FLOW_BITS", "NSP_DIRECTION_IN"]
    expected = [state.LAYOUT_VERSION, state.WORKLOAD_HAS_BLOCKS, state.WORKLOAD_HAS_QUARANTINE]
    expected += [state.WORKLOAD_HAS_ALLOWED, state._ALLOWED_FLOW_BITS, 1]
    assert measure(names) == expected


def test_the_sensor_reads_from_btf_exactly_the_offsets_the_c_asks_for() -> None:
    text = (source_directory() / "offsets.h").read_text()
    asked = set(re.findall(r"^#ifndef (NSP_OFF_\w+)", text, re.MULTILINE))
    given = {offsets.option_name(name, path) for name, paths in offsets.MEMBERS.items() for path in paths}
    assert given == asked
