# SPDX-License-Identifier: Apache-2.0
"""Addresses survive the way into the kernel's 16 bytes and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.addresses import to_mapped, to_text
from schemas.errors import SchemaError


@given(st.ip_addresses(v=4))
def test_ipv4_is_mapped_and_comes_back_as_ipv4(address: object) -> None:
    mapped = to_mapped(str(address))
    assert mapped[:12] == bytes(10) + b"\xff\xff"
    assert to_text(mapped) == str(address)


@given(st.binary(min_size=16, max_size=16))
def test_any_sixteen_bytes_have_a_text_that_leads_back(address: bytes) -> None:
    assert to_mapped(to_text(address)) == address


@pytest.mark.parametrize(
    "text", ["", "localhost", "10.0.0", "10.0.0.1/8", "::g", "1.2.3.4\0", "fe80::1%eth0"]
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(SchemaError, match="is no IPv4 or IPv6 address"):
        to_mapped(text)
