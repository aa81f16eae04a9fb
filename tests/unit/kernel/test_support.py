# SPDX-License-Identifier: Apache-2.0
"""Reading what the machine says of itself."""

from __future__ import annotations

import pytest

from sensor.kernel.support import kernel_version, missing_capabilities


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.1.0-56-amd64", (6, 1)), ("5.15.0", (5, 15)), ("6.18.44-fc", (6, 18)), ("strange", (0, 0))],
)
def test_kernel_releases_compare_as_numbers(release: str, version: tuple[int, int]) -> None:
    assert kernel_version(release) == version


def test_capabilities_are_read_from_the_effective_set() -> None:
    assert missing_capabilities("CapPrm:\t000001ffffffffff\nCapEff:\t000001ffffffffff\n") == []
    assert missing_capabilities("CapEff:\t0000000000201000\n") == ["CAP_PERFMON", "CAP_BPF"]
    assert len(missing_capabilities("CapPrm:\t000001ffffffffff\nCapEff:\t0000000000000000\n")) == 4
