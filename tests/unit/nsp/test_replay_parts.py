# SPDX-License-Identifier: Apache-2.0
"""What `nsp replay` is told in words, and pods as they were."""

from __future__ import annotations

import pytest

from nsp.errors import CommandError
from nsp.replay_pods import Change, PodHistory
from nsp.replay_time import parse
from tests.support.batches import POD_UID, pod_record

NOW = 1_790_000_000_000_000_000
HOUR = 3600 * 1_000_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", NOW - 168 * HOUR),
        ("90m", NOW - 3 * HOUR // 2),
        ("0s", NOW),
        ("1970-01-01T00:00:02Z", 2_000_000_000),
        ("1970-01-01T01:00:02+01:00", 2_000_000_000),
        ("1970-01-01T00:00:02", 2_000_000_000),
        ("1970-01-02", 24 * HOUR),
    ],
)
def test_times_are_read_as_people_write_them(text: str, expected: int) -> None:
    assert parse("--since", text, NOW) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "7", "-3d", "7 d", "9999999999999d", "1970-13-01"])
def test_what_is_no_time_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(CommandError, match=r"--since .* is no time.*\n?.*7d"):
        parse("--since", text, NOW)


def test_pods_are_as_they_were_while_the_time_goes_by() -> None:
    history = PodHistory(
        [
            Change(1, POD_UID, pod_record(labels={"app": "old"})),
            Change(20, POD_UID, pod_record(labels={"app": "new"})),
            Change(30, POD_UID, None),
        ],
        since_ns=10,
    )
    seen = []
    for moment in (10, 20, 29, 30):
        history.until(moment)
        pod = history.pods.by_uid(POD_UID)
        seen.append(pod and pod.labels["app"])
    assert seen == ["old", "new", "new", None]


def test_a_pod_first_told_of_later_is_there_from_the_start() -> None:
    """Compaction leaves the last record only, which says nothing about since when the pod is there."""
    history = PodHistory([Change(50, POD_UID, pod_record()), Change(60, POD_UID, None)], since_ns=10)
    assert history.pods.by_uid(POD_UID) is not None
    history.until(60)
    assert history.pods.by_uid(POD_UID) is None
