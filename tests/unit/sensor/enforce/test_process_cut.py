# SPDX-License-Identifier: Apache-2.0
"""A quarantined tree is the process and all that descends from it: nobody escapes, nobody else is hit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from sensor.enforce.errors import NotAppliedError
from sensor.enforce.process_cut import MAX_SCANS, ProcessCuts
from sensor.kernel.state import ProcessKey
from tests.support.fake_enforcement import FakeMaps

FOREVER = 1 << 60


def shop() -> FakeMaps:
    """Init 1, service 10 with worker 11, shell 20 under it, two tools under the shell."""
    maps = FakeMaps()
    maps.spawn(1)
    maps.spawn(10, 1)
    maps.spawn(11, 10)
    maps.spawn(20, 10)
    maps.spawn(21, 20)
    maps.spawn(22, 21)
    return maps


def key(tgid: int) -> ProcessKey:
    return ProcessKey(tgid=tgid, start_ns=1000 + tgid)


def test_the_tree_is_cut_and_the_service_above_it_lives() -> None:
    maps = shop()
    maps.open_sockets = 3
    reached = ProcessCuts(maps).cut(key(20), 7, FOREVER)
    assert maps.cut_processes() == {20, 21, 22}
    assert (reached.processes, reached.sockets, reached.settled) == (3, 3, True)
    assert maps.process_quarantines[key(20)].generation == 7


def test_the_entry_is_there_before_the_first_mark_and_the_root_is_marked_before_any_scan() -> None:
    maps = shop()
    ProcessCuts(maps).cut(key(20), 7, FOREVER)
    steps = [name for name, _ in maps.log]
    assert steps[:3] == ["set_quarantine", "mark_process", "processes"]
    assert maps.log[1] == ("mark_process", (20, key(20)))
    assert steps.index("mark_sockets") < len(steps) - 1
    assert steps[-1] == "processes"


def test_orphans_and_double_forks_are_found_when_all_between_have_ended() -> None:
    maps = shop()
    maps.spawn(23, 22)
    for tgid in (20, 21, 22):
        maps.exit(tgid)
    assert ProcessCuts(maps).cut(key(20), 7, FOREVER).processes == 1
    assert maps.cut_processes() == {23}


def test_a_chain_longer_than_the_remembered_ancestors_is_followed_through_the_living() -> None:
    maps = shop()
    for tgid in range(30, 60):
        maps.spawn(tgid, tgid - 1 if tgid > 30 else 22)
    ProcessCuts(maps).cut(key(20), 7, FOREVER)
    assert maps.cut_processes() == {20, 21, 22, *range(30, 60)}


def test_who_is_born_while_the_scan_runs_is_cut_too() -> None:
    maps = shop()
    births = iter(range(100, 106))

    def fork_from_the_unmarked(tgid: int) -> None:
        # 22 comes last in the walk: its children are born before it is marked, behind the walk's back.
        if tgid == 21 and (born := next(births, None)):
            maps.spawn(born, 22)

    maps.on_scan = fork_from_the_unmarked
    ProcessCuts(maps).cut(key(20), 7, FOREVER)
    assert maps.cut_processes() == set(maps.table) - {1, 10, 11}
    assert any(tgid >= 100 for tgid in maps.table)


def test_a_reused_pid_is_another_process() -> None:
    maps = shop()
    maps.exit(22)
    maps.exit(21)
    maps.exit(20)
    maps.spawn(99, 10)
    stale = ProcessKey(tgid=20, start_ns=5)
    with pytest.raises(NotAppliedError, match="no-such-process"):
        ProcessCuts(maps).cut(stale, 7, FOREVER)
    assert maps.cut_processes() == set()


def test_nobody_left_means_no_entry_left() -> None:
    maps = shop()
    with pytest.raises(NotAppliedError) as caught:
        ProcessCuts(maps).cut(key(77), 7, FOREVER)
    assert not caught.value.retry
    assert maps.process_quarantines == {}


def test_an_entry_of_the_same_generation_keeps_its_counters() -> None:
    maps = shop()
    ProcessCuts(maps).cut(key(20), 7, FOREVER)
    maps.refuse(key(20), 123)
    ProcessCuts(maps).cut(key(20), 7, FOREVER)
    assert maps.process_quarantines[key(20)].first_refused_ns == 123
    ProcessCuts(maps).cut(key(20), 8, FOREVER)
    assert maps.process_quarantines[key(20)].first_refused_ns == 0


def test_freeing_frees_all_at_once_and_then_clears_the_marks() -> None:
    maps = shop()
    cuts = ProcessCuts(maps)
    cuts.cut(key(20), 7, FOREVER)
    maps.log.clear()
    cuts.free(key(20))
    assert maps.cut_processes() == set()
    assert all(process.quarantine_root is None for process in maps.table.values())
    assert maps.log[0] == ("drop_quarantine", key(20))


def test_freeing_the_inner_tree_never_frees_what_the_outer_one_covers() -> None:
    maps = shop()
    cuts = ProcessCuts(maps)
    cuts.cut(key(20), 7, FOREVER)
    cuts.cut(key(21), 8, FOREVER + 1)
    assert maps.table[22].quarantine_root == key(21)
    assert maps.table[20].quarantine_root == key(20)
    drop = FakeMaps.drop_quarantine

    def checked(root: ProcessKey) -> bool:
        result = drop(maps, root)
        assert maps.cut_processes() == {20, 21, 22}
        return result

    maps.drop_quarantine = checked  # type: ignore[method-assign, assignment] # to look at the moment in between
    cuts.free(key(21))
    assert maps.table[22].quarantine_root == key(20)


def test_the_outer_tree_holds_its_own_when_the_links_in_between_are_gone() -> None:
    maps = shop()
    cuts = ProcessCuts(maps)
    for tgid in range(30, 60):
        maps.spawn(tgid, tgid - 1 if tgid > 30 else 22)
    cuts.cut(key(20), 7, FOREVER)
    cuts.cut(key(45), 8, FOREVER + 1)
    for tgid in range(60, 90):  # born with the inner mark, and never seen by a scan for the outer one
        maps.spawn(tgid, tgid - 1)
    for tgid in (20, 21, 22, *range(30, 89)):
        maps.exit(tgid)
    cuts.free(key(45))
    assert maps.cut_processes() == {89}


def test_the_quarantine_that_ends_last_is_carried_whichever_came_first() -> None:
    for first, second in ((20, 21), (21, 20)):
        maps = shop()
        cuts = ProcessCuts(maps)
        ends = {20: FOREVER + 5, 21: FOREVER}
        cuts.cut(key(first), 7, ends[first])
        cuts.cut(key(second), 8, ends[second])
        assert maps.table[22].quarantine_root == key(20)


def test_a_rescan_finds_whom_a_race_left_out() -> None:
    maps = shop()
    cuts = ProcessCuts(maps)
    cuts.cut(key(20), 7, FOREVER)
    maps.spawn(50, 22)
    maps.mark_process(50, 1050, None)  # its fork had read the parent before the mark
    assert not cuts.rescan(key(20)).settled
    assert maps.is_cut(50)
    assert cuts.rescan(key(20)).settled


def test_a_chain_whose_remembered_ancestors_have_all_ended_is_followed_through_the_ended() -> None:
    maps = shop()
    for tgid in range(30, 60):
        maps.spawn(tgid, tgid - 1 if tgid > 30 else 22)
    for tgid in (21, 22, *range(30, 59)):
        maps.exit(tgid)
    assert ProcessCuts(maps).cut(key(20), 7, FOREVER).processes == 2
    assert maps.cut_processes() == {20, 59}


def test_one_that_ended_before_its_mark_came_may_have_a_child_and_is_not_the_end_of_the_search() -> None:
    maps = shop()
    cuts = ProcessCuts(maps)
    cuts.cut(key(20), 7, FOREVER)
    maps.spawn(50, 22)
    maps.mark_process(50, 1050, None)
    mark = FakeMaps.mark_process

    def too_late(tgid: int, start_ns: int, root: ProcessKey | None) -> bool:
        if tgid == 50 and 50 in maps.table:
            maps.spawn(51, 50)
            maps.exit(50)
        return mark(maps, tgid, start_ns, root)

    maps.mark_process = too_late  # type: ignore[method-assign] # to end it between the scan and the mark
    assert not cuts.rescan(key(20)).settled
    cuts.rescan(key(20))
    assert maps.is_cut(51)


def test_a_quarantine_made_shorter_leaves_the_others_to_the_one_that_now_ends_last() -> None:
    maps = shop()
    cuts = ProcessCuts(maps)
    cuts.cut(key(20), 7, FOREVER)
    cuts.cut(key(21), 8, FOREVER + 1)
    cuts.cut(key(21), 9, 100)
    assert maps.cut_processes(now_ns=200) == {20, 21, 22}


def test_marks_that_do_not_stick_do_not_hang_the_sensor() -> None:
    maps = shop()
    mark = FakeMaps.mark_process

    def forgetful(tgid: int, start_ns: int, root: ProcessKey | None) -> bool:
        mark(maps, tgid, start_ns, root)
        if tgid == 22:
            mark(maps, tgid, start_ns, None)
        return True

    maps.mark_process = forgetful  # type: ignore[method-assign] # a kernel that undoes each mark
    assert not ProcessCuts(maps).cut(key(20), 7, FOREVER).settled
    assert sum(name == "processes" for name, _ in maps.log) == MAX_SCANS


@settings(max_examples=200, deadline=None)
@given(
    parents=st.lists(st.integers(0, 100), min_size=1, max_size=8),
    ended=st.sets(st.integers(0, 8)),
    root=st.integers(0, 8),
)
def test_the_cut_is_exactly_the_descent(parents: list[int], ended: set[int], root: int) -> None:
    maps = FakeMaps()
    maps.spawn(100)
    above: dict[int, int] = {}
    for index, choice in enumerate(parents):
        tgid = 101 + index
        above[tgid] = 100 + choice % (index + 1)
        maps.spawn(tgid, above[tgid])
    tgids = [100, *above]
    chosen = tgids[root % len(tgids)]
    for index in ended:
        if 0 < index < len(tgids):
            maps.exit(tgids[index])
    expected = set()
    for tgid in maps.table:
        at: int | None = tgid
        while at is not None and at != chosen:
            at = above.get(at)
        if at == chosen:
            expected.add(tgid)
    cuts = ProcessCuts(maps)
    if expected:
        assert cuts.cut(key(chosen), 1, FOREVER).processes == len(expected)
    else:
        with pytest.raises(NotAppliedError):
            cuts.cut(key(chosen), 1, FOREVER)
    assert maps.cut_processes() == expected


class NestedQuarantines(RuleBasedStateMachine):
    """Forks, exits, cuts and frees in any order: cut is who descends from a root in force."""

    born = Bundle("born")

    def __init__(self) -> None:
        super().__init__()
        self.maps = FakeMaps()
        self.maps.spawn(1)
        self.cuts = ProcessCuts(self.maps)
        self.above: dict[int, int] = {}
        self.depth = {1: 0}
        self.roots: set[int] = set()

    @rule(target=born, choice=st.integers(0, 1000))
    def fork(self, choice: int) -> int:
        # Chains stay within the ancestors the kernel remembers; longer ones have their own test.
        living = [tgid for tgid in self.maps.table if self.depth[tgid] < 8]
        parent = living[choice % len(living)]
        tgid = len(self.depth) + 1
        self.maps.spawn(tgid, parent)
        self.above[tgid] = parent
        self.depth[tgid] = self.depth[parent] + 1
        return tgid

    @rule(tgid=born)
    def end(self, tgid: int) -> None:
        if tgid in self.maps.table:
            self.maps.exit(tgid)

    @rule(tgid=born, expiry=st.integers(1, 5))
    def cut(self, tgid: int, expiry: int) -> None:
        try:
            self.cuts.cut(key(tgid), len(self.maps.log), FOREVER + expiry)
            self.roots.add(tgid)
        except NotAppliedError:
            self.roots.discard(tgid)

    @rule(tgid=born)
    def free(self, tgid: int) -> None:
        self.cuts.free(key(tgid))
        self.roots.discard(tgid)

    @rule()
    def restart(self) -> None:
        self.cuts = ProcessCuts(self.maps)
        for root, value in self.maps.quarantines():
            self.cuts.adopt(root, value.expires_ns)

    @invariant()
    def cut_is_who_descends_from_a_root(self) -> None:
        expected = {tgid for tgid in self.maps.table if self.line(tgid) & self.roots}
        assert self.maps.cut_processes() == expected

    def line(self, tgid: int) -> set[int]:
        line = {tgid}
        while tgid in self.above:
            tgid = self.above[tgid]
            line.add(tgid)
        return line


TestNestedQuarantines = NestedQuarantines.TestCase
TestNestedQuarantines.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
