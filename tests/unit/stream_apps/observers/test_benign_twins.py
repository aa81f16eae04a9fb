# SPDX-License-Identifier: Apache-2.0
"""What goes on all day is no alert of any rule, by the defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stream_apps.correlate.pods import PodTable
from stream_apps.pipeline import Pipeline
from tests.support.batches import Node, pod_record
from tests.support.benign import TWINS
from tests.support.stream import whole_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.mark.parametrize("life", TWINS, ids=lambda each: each.__name__)
def test_what_goes_on_all_day_is_no_alert(life: Callable[[Node], Iterator[None]]) -> None:
    pods = PodTable()
    pods.put(pod_record())
    pods.put(pod_record(uid="another", name="other", owner_name="other", ips=["10.1.2.7"], containers=[]))
    through = Pipeline(whole_config(), pods)
    node = Node()
    told = []
    for _ in life(node):
        outcome = through.process(node.batch(), node.wall_ns)
        told += [f"{each['rule_id']}: {each['description']}" for each in outcome.alerts]
        assert not outcome.errors
    assert not told
