# SPDX-License-Identifier: Apache-2.0
"""Whom resolv.conf names, and when learned addresses are taken out again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor.kernel.errors import KernelError
from sensor.kernel.policy_state import LearnedKey, LearnedValue
from sensor.policy.learned import KEEP_NS, SWEEP_NS, LearnedSweep
from sensor.policy.resolvers import MAX_RESOLVERS, is_loopback, node_resolvers, resolvers_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nameserver 10.96.0.10\n", ("10.96.0.10",)),
        ("search x\nnameserver 10.0.0.1\nnameserver 10.0.0.1\n", ("10.0.0.1",)),
        (" nameserver 2001:DB8::1\n", ("2001:db8::1",)),
        ("nameserver fe80::1%eth0\n", ("fe80::1",)),
        ("# nameserver 10.0.0.1\n;nameserver 10.0.0.2\nnameservers 10.0.0.3\nnameserver\n", ()),
        ("nameserver 10.0.0.1 # the one\n", ("10.0.0.1",)),
        ("nameserver 010.0.0.1\nnameserver 10.0.0\nnameserver evil.example\n", ()),
        (
            "\n".join(f"nameserver 10.0.0.{number}" for number in range(99)),
            tuple(f"10.0.0.{number}" for number in range(MAX_RESOLVERS)),
        ),
    ],
)  # fmt: skip
def test_addresses_of_nameserver_lines(text: str, found: tuple[str, ...]) -> None:
    assert resolvers_in(text) == found


@given(st.text(alphabet=st.sampled_from("nameserver 0123456789.:%\n\t\0é#"), max_size=400))
def test_any_text_names_some_or_none(text: str) -> None:
    assert len(resolvers_in("nameserver " + text)) <= MAX_RESOLVERS


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.53", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"])
def test_the_loopback_is_each_networks_own(address: str) -> None:
    assert is_loopback(address)
    assert not is_loopback("10.0.0.1")


def test_a_file_that_is_not_there_names_nobody(tmp_path: Path) -> None:
    assert node_resolvers(tmp_path / "absent") == ()


NOW_NS = 10**15
POD, GONE = 7, 8


class Addresses:
    """The part of the kernel's maps that a sweep uses."""

    def __init__(self, *entries: tuple[int, int]) -> None:
        self.entries = {
            LearnedKey(workload, 1, number.to_bytes(16)): LearnedValue(expires_ns, 1)
            for number, (workload, expires_ns) in enumerate(entries)
        }
        self.forgotten: list[int] = []
        self.learned_again: set[LearnedKey] = set()
        self.broken = False

    def learned(self) -> Iterator[tuple[LearnedKey, LearnedValue]]:
        if self.broken:
            raise KernelError("broken")
        yield from self.entries.items()

    def drop_learned_unless(self, key: LearnedKey, newer_than_ns: int) -> bool:
        if key in self.learned_again or self.entries[key].expires_ns > newer_than_ns:
            return False
        return self.entries.pop(key) is not None

    def learned_in_use(self) -> Iterator[tuple[int, int]]:
        for workload in (POD, GONE):
            yield workload, sum(1 for key in self.entries if key.workload_cgroup_id == workload)

    def forget_learner(self, workload_cgroup_id: int) -> None:
        self.forgotten.append(workload_cgroup_id)


def swept(maps: Addresses) -> LearnedSweep:
    sweep = LearnedSweep(maps)  # type: ignore[arg-type]  # the part of it that is used
    sweep.tick(NOW_NS, {POD})
    return sweep


def test_what_expired_long_ago_or_belongs_to_nobody_is_taken_out() -> None:
    late = NOW_NS - KEEP_NS
    maps = Addresses((POD, NOW_NS + 1), (POD, late + 1), (POD, late), (GONE, NOW_NS * 2), (0, 1))
    counters = swept(maps).counters
    assert [value.expires_ns for value in maps.entries.values()] == [NOW_NS + 1, late + 1]
    assert (counters["learned_addresses"], counters["learned_removed"]) == (2, 3)
    assert maps.forgotten == [GONE]


def test_an_address_learned_again_meanwhile_stays() -> None:
    maps = Addresses((POD, 1))
    maps.learned_again = set(maps.entries)
    assert swept(maps).counters["learned_again_meanwhile"] == 1
    assert len(maps.entries) == 1


def test_sweeps_have_their_time_and_a_failed_one_is_counted() -> None:
    maps = Addresses()
    sweep = swept(maps)
    maps.broken = True
    sweep.tick(NOW_NS + SWEEP_NS - 1, {POD})
    assert sweep.counters["learned_sweeps_failed"] == 0
    sweep.tick(NOW_NS + SWEEP_NS, {POD})
    assert sweep.counters["learned_sweeps_failed"] == 1
