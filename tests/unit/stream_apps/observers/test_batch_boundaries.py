# SPDX-License-Identifier: Apache-2.0
"""Where a batch ends is the sensor's business: what is told must not depend on it, nor on reading twice."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.batches import SECOND, Node
from tests.support.benign import close, fail
from tests.support.stream import whole_pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OUTSIDE = [f"203.0.113.{each}" for each in range(1, 30)]


def something(node: Node, dice: random.Random, processes: Sequence[int]) -> None:
    """One thing that happens: mostly harmless, in sum often not."""
    who, where = dice.choice(processes), dice.choice(OUTSIDE)
    deeds: list[Callable[[], object]] = [
        lambda: node.ask(who, f"{dice.randbytes(30).hex()}.evil.example"),
        lambda: fail(node, who, "10.2.0.9", dice.randrange(1, 60)),
        lambda: close(node, who, where, 443, 300, 90),
        lambda: node.connect(who, where, dice.choice([443, 3333])),
        lambda: node.answer(who, f"h{dice.randrange(9)}.example", [where]),
        lambda: node.connect(who, "169.254.169.254", 80),
        lambda: node.connect(who, "10.5.5.5", dice.choice([22, 5432])),
        lambda: node.connect(who, "10.96.0.1", 443),
        lambda: node.send(who, "10.2.0.9", dice.randrange(1, 300)),
        lambda: accept(node, who, where),
    ]
    dice.choice(deeds)()
    node.now_ns += dice.randrange(2) * SECOND


def accept(node: Node, process: int, remote: str) -> None:
    node.add(
        "SocketAccept", process, cookie=5, local_address="10.1.2.3", local_port=4444, remote_address=remote,
        remote_port=50_000,
    )  # fmt: skip


def told(batches: Sequence[dict[str, Any]], *, twice: bool = False) -> set[tuple[str, int]]:
    """Rule and process of all alerts."""
    through = whole_pipeline()
    found = set()
    for batch in batches:
        for _ in range(1 + twice):
            outcome = through.process(batch, 0)
            assert not outcome.errors
            found |= {(each["rule_id"], each["lineage"][0]["tgid"]) for each in outcome.alerts}
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 60))
def test_alerts_do_not_depend_on_where_batches_end_or_on_reading_twice(seed: int, events: int) -> None:
    dice = random.Random(seed)
    node = Node()
    web = node.service("/usr/sbin/nginx")
    shell = node.spawn(web, "/usr/bin/dash")
    processes = [
        web, shell, node.spawn(shell, "/usr/bin/curl"), node.spawn(shell, "/dev/shm/x"),
        node.service("/usr/bin/java"), node.service("/app/job", serving=False, workload=0),
    ]  # fmt: skip
    for _ in range(400):
        something(node, dice, processes)
    kept = list(node.events)
    one = [node.batch()]
    node.events, node.sequence, node.reported = kept, 0, 0
    many = [node.batch(kept[each : each + events]) for each in range(0, len(kept), events)]
    whole = told(one)
    assert whole
    assert {rule for rule, _ in told(many)} == {rule for rule, _ in whole}
    assert told(many, twice=True) == told(many)
