# SPDX-License-Identifier: Apache-2.0
"""A subject's text names one subject and is its only text."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SubjectError
from schemas.subject import (
    ProcessSubject,
    WorkloadSubject,
    enforcement_key,
    parse_subject,
    split_enforcement_key,
)

BOOT = "6f1d0c52-4a3e-4b5e-9a53-0c7de8a4b1f2"
processes = st.builds(
    ProcessSubject, st.uuids().map(str), st.integers(1, 2**32 - 1), st.integers(0, 2**64 - 1)
)
printable = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=200)
workloads = st.builds(WorkloadSubject, printable)
nodes = st.text(st.characters(exclude_categories=["C"], exclude_characters="/"), min_size=1, max_size=60)


@given(processes | workloads)
def test_a_subject_comes_back_from_its_text(subject: ProcessSubject | WorkloadSubject) -> None:
    assert parse_subject(str(subject)) == subject


@given(st.text(max_size=80) | st.from_regex(r"process/[0-9a-f-]{30,40}/\d{1,22}/\d{1,22}", fullmatch=True))
def test_any_text_is_canonical_or_refused(text: str) -> None:
    try:
        subject = parse_subject(text)
    except SubjectError:
        return
    assert str(subject) == text


@given(nodes, processes | workloads)
def test_a_key_comes_apart_as_it_was_put_together(
    node: str, subject: ProcessSubject | WorkloadSubject
) -> None:
    assert split_enforcement_key(enforcement_key(node, str(subject))) == (node, str(subject))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "process",
        f"process/{BOOT}/0/5",
        f"process/{BOOT}/12/",
        f"process/{BOOT}/012/5",
        f"process/{BOOT}/12/5/",
        f"process/{BOOT}/12/5\n",
        f"process/{BOOT}/{2**32}/5",
        f"process/{BOOT}/12/{2**64}",
        f"process/{BOOT}/-12/5",
        f"process/{BOOT}/١٢/5",
        f"process/{uuid.UUID(BOOT).hex}/12/5",
        f"process/{BOOT.upper()}/12/5",
        "workload/",
        "workload/a\nb",
        "workload/" + "x" * 4097,
        "node/x",
    ],
)
def test_what_names_nobody_is_refused(text: str) -> None:
    with pytest.raises(SubjectError):
        parse_subject(text)


@pytest.mark.parametrize("key", [b"", b"node", b"node/", b"/workload/x", b"\xff/workload/x"])
def test_what_is_no_key_is_refused(key: bytes) -> None:
    with pytest.raises(SubjectError):
        split_enforcement_key(key)
