# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sensor.publish.resume import BASE_STEP, resume
from sensor.settings import MAX_RING_BYTES

SECOND = 1_000_000_000


def test_a_fresh_load_begins_above_everything_an_earlier_load_can_have_published() -> None:
    first = resume(0, 0, 0, 100 * SECOND)
    assert first.fresh
    # The fastest ring imaginable, a second later unloaded and loaded again.
    published = first.base + 4_000_000_000
    assert resume(0, 0, 0, 101 * SECOND).base > published


def test_a_clean_successor_goes_on_where_the_ring_was_released() -> None:
    base = resume(0, 0, 0, 100 * SECOND).base
    found = resume(41, base + 4096, 4096, 5000 * SECOND)
    assert (found.base, found.batch_sequence, found.ring_position, found.fresh) == (base, 41, 4096, False)


@given(
    uptime_s=st.integers(1, 10**8),
    released=st.integers(0, 1 << 50),
    noted_ahead=st.integers(0, MAX_RING_BYTES),
    later_s=st.integers(0, 10**8),
)
def test_base_and_position_come_back_wherever_the_sensor_was_ended(
    uptime_s: int, released: int, noted_ahead: int, later_s: int
) -> None:
    base = resume(0, 0, 0, uptime_s * SECOND).base
    noted = released + noted_ahead
    found = resume(7, base + noted, released, (uptime_s + later_s) * SECOND)
    assert (found.base, found.ring_position) == (base, noted)
    assert base % BASE_STEP == 0
    assert base + noted < 1 << 63
