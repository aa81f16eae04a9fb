# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensor.publish import lineage
from sensor.publish.lineage import MAX_DEPTH, Image, ProcessTable, unknown_record
from sensor.publish.procfs import MAX_READS_PER_SECOND, ProcessFiles, split_argv
from tests.support.ring_records import NoFiles

if TYPE_CHECKING:
    import pytest


def table() -> ProcessTable:
    return ProcessTable(NoFiles())


def program(tgid: int, path: str, start_ns: int = 100, origin: str = "EXEC") -> dict[str, Any]:
    return {
        **unknown_record(tgid, start_ns),
        "executable": path,
        "origin": origin,
        "inode": len(path),
        "image_ns": start_ns + 1,
    }


def chain(image: Image | None) -> list[tuple[int, str, str]]:
    out = []
    while image is not None:
        out.append((image.record["tgid"], image.record["executable"], image.record["origin"]))
        image = image.parent
    return out


def test_a_fork_runs_what_its_parent_runs_and_an_exec_replaces_it() -> None:
    processes = table()
    processes.inventory(program(10, "/usr/bin/web", origin="INVENTORY"), (0, 0), 5)
    forked = processes.fork((11, 200), (10, 100), 5, {"uid": 33, "comm": "web"})
    assert chain(forked) == [(11, "/usr/bin/web", "FORK"), (10, "/usr/bin/web", "INVENTORY")]
    shell = processes.exec(program(11, "/bin/sh", 200), (10, 100), 5)
    assert chain(shell) == [(11, "/bin/sh", "EXEC"), *chain(forked)]
    assert processes.get(11, 200) is shell


def test_ancestors_stay_while_a_descendant_lives_and_go_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "MAX_EXITED", 1)
    processes = table()
    processes.inventory(program(10, "/usr/bin/web", origin="INVENTORY"), (0, 0), 5)
    processes.fork((11, 200), (10, 100), 5, {})
    processes.fork((12, 300), (11, 200), 5, {})
    processes.exit(11, 200)
    processes.exit(10, 100)
    assert [link[0] for link in chain(processes.get(12, 300))] == [12, 11, 10]


def test_an_exited_process_is_still_named_by_what_comes_after() -> None:
    processes = table()
    processes.fork((11, 200), (0, 0), 5, {"comm": "curl"})
    processes.exit(11, 200)
    assert processes.get(11, 200).record["comm"] == "curl"
    assert processes.counters["process_unknown"] == 0


def test_a_reused_tgid_is_another_process() -> None:
    processes = table()
    processes.fork((11, 200), (0, 0), 5, {"comm": "old"})
    processes.fork((11, 900), (0, 0), 5, {"comm": "new"})
    assert processes.get(11, 900).record["comm"] == "new"
    assert processes.get(11, 200).record["comm"] == "old"


def test_a_child_met_before_its_parent_is_linked_when_the_parent_comes() -> None:
    processes = table()
    child = processes.inventory(program(20, "/bin/child", origin="INVENTORY"), (10, 100), 5)
    processes.inventory(program(10, "/bin/parent", origin="INVENTORY"), (0, 0), 5)
    assert chain(child)[1] == (10, "/bin/parent", "INVENTORY")


def test_the_kernels_memory_of_ancestors_goes_over_where_init_adopted_the_orphan() -> None:
    processes = table()
    processes.inventory(program(1, "/sbin/init", 1, "INVENTORY"), (0, 0), 5)
    processes.inventory(program(10, "/usr/bin/web", origin="INVENTORY"), (1, 1), 5)
    orphan = processes.inventory(program(30, "/usr/bin/curl", 300, "INVENTORY"), (1, 1), 5)
    processes.link_ancestors(30, 300, [(20, 200), (10, 100), (1, 1)])
    assert [link[:1] + link[2:] for link in chain(orphan)] == [
        (30, "INVENTORY"), (20, "UNKNOWN"), (10, "INVENTORY"), (1, "INVENTORY"),
    ]  # fmt: skip


def test_ancestors_known_only_to_the_kernel_are_there_for_a_fork_still_to_be_read() -> None:
    processes = table()
    processes.inventory(program(10, "/usr/bin/web", origin="INVENTORY"), (0, 0), 5)
    processes.link_ancestors(30, 300, [(20, 200), (10, 100)])  # 30 forks in the backlog, 20 has exited
    forked = processes.fork((30, 300), (20, 200), 5, {})
    assert [link[0] for link in chain(forked)] == [30, 20, 10]


def test_links_never_close_a_ring() -> None:
    processes = table()
    processes.inventory(program(10, "/a", origin="INVENTORY"), (20, 100), 5)
    processes.inventory(program(20, "/b", origin="INVENTORY"), (10, 100), 5)
    processes.link_ancestors(10, 100, [(20, 100), (10, 100)])
    assert len(chain(processes.get(10, 100))) == 2


def test_a_process_that_execs_itself_for_ever_keeps_its_service() -> None:
    processes = table()
    service = processes.inventory(program(10, "/usr/bin/web", origin="INVENTORY"), (0, 0), 5)
    service.serving = True
    processes.fork((11, 200), (10, 100), 5, {})
    for number in range(10 * MAX_DEPTH):
        image = processes.exec(program(11, f"/tmp/{number}", 200), (10, 100), 5)
        assert len(chain(image)) <= MAX_DEPTH + 1
    assert service.record["executable"] in [link[1] for link in chain(image)]
    assert processes.counters["lineage_cut"] > 0


def test_a_chain_of_forks_without_a_service_is_cut_at_the_root_end() -> None:
    processes = table()
    for number in range(1, 5 * MAX_DEPTH):
        image = processes.fork((number + 1, 100), (number, 100), 5, {})
        assert len(chain(image)) <= MAX_DEPTH + 1
    assert chain(image)[0][0] == 5 * MAX_DEPTH


def test_a_full_table_forgets_leaves_and_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "MAX_LIVING", 64)
    processes = table()
    for number in range(1, 200):
        processes.fork((number, 100), (0, 0), 5, {})
    assert len(processes) <= 64
    assert processes.counters["process_evicted"] > 0
    assert processes.get(199, 100).record["origin"] == "FORK"


def test_nobody_announced_it_and_proc_still_shows_it() -> None:
    code = "import sys; print(open('/proc/self/stat').read(), flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "an argument"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        ticks = int(child.stdout.readline().rpartition(")")[2].split()[19])
        start_ns = ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK") + 1
        found = ProcessTable().get(child.pid, start_ns).record
        reused = ProcessTable().get(child.pid, start_ns + 5_000_000_000).record
        child.communicate()
    assert found["argv"][-1] == "an argument"
    assert (found["origin"], found["uid"], found["deleted"]) == ("UNKNOWN", os.getuid(), False)
    assert found["executable"] == str(Path(sys.executable).resolve())
    assert (reused["argv"], reused["executable"]) == ([], "")


def test_reading_proc_is_bounded_by_rate() -> None:
    files = ProcessFiles(Path("/nonexistent"), clock_ns=lambda: 5)
    for number in range(MAX_READS_PER_SECOND + 3):
        files.complete(unknown_record(number, 1))
    assert files.refused == 3
    later = time.monotonic_ns()
    assert ProcessFiles(Path("/nonexistent"), clock_ns=lambda: later).refused == 0


def test_argv_is_split_at_nul_and_empty_arguments_count() -> None:
    assert split_argv(b"sh\0-c\0\0") == ["sh", "-c", ""]
    assert split_argv(b"\xff\xfe") == ["\ufffd\ufffd"]
    assert split_argv(b"") == []
