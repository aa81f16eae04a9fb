# SPDX-License-Identifier: Apache-2.0
"""Keys and values survive their bytes; what the kernel would misread is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor.kernel.state import (
    ANCESTORS,
    DestinationKey,
    EnforcementValue,
    ProcessKey,
    ProcessValue,
    SensorState,
)

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
KEYS = st.builds(ProcessKey, tgid=st.integers(1, 2**31 - 1), start_ns=U64)
VALUES = st.one_of(
    KEYS,
    st.builds(
        ProcessValue,
        start_ns=U64,
        inode=U64,
        quarantine_root=st.none() | KEYS,
        ancestors=st.lists(KEYS, max_size=ANCESTORS).map(tuple),
        dev=U32,
        flags=U32,
    ),
    st.builds(EnforcementValue, U64, U64, U64, U64, U64, U64),
    st.builds(
        DestinationKey,
        workload_cgroup_id=U64,
        address=st.binary(min_size=16, max_size=16),
        port=st.integers(0, 65535),
        protocol=st.integers(1, 255),
    ),
    st.builds(SensorState, U64, U64),
)


@given(VALUES)
def test_what_is_packed_is_read_back(
    value: ProcessKey | ProcessValue | EnforcementValue | DestinationKey | SensorState,
) -> None:
    assert type(value).unpack(value.pack()) == value


def test_a_key_ends_in_zero_padding_because_the_kernel_hashes_all_of_it() -> None:
    assert ProcessKey(1, 2).pack() == bytes.fromhex("0200000000000000 01000000 00000000")
    assert DestinationKey(1, bytes(16), 443, 6).pack()[-5:] == bytes(5)


def test_an_address_that_is_not_sixteen_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        DestinationKey(1, b"\x7f\x00\x00\x01", 80, 6)


def test_a_port_without_a_protocol_is_refused() -> None:
    with pytest.raises(ValueError, match="without a protocol"):
        DestinationKey(1, bytes(16), 80, 0)
