# SPDX-License-Identifier: Apache-2.0
"""What each node is told about profiles, and when it is told nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import decode, encode
from stream_apps.correlate.pods import Pod
from stream_apps.errors import ProfileError
from stream_apps.profiles.book import ProfileBook
from stream_apps.profiles.desk import ProfileDesk
from tests.support.batches import pod_record
from tests.support.profiles import profile, service

NOW = 1_790_000_000_000_000_000
LATER = NOW + 1_000_000_000


def labelled(**labels: str) -> dict[str, Any]:
    return {"match_labels": labels, "match_expressions": []}


def pod(uid: str, node: str = "a", namespace: str = "default", **labels: str) -> Pod:
    return Pod.of(pod_record(uid=uid, node=node, namespace=namespace, labels=labels or {"app": "web"}))


class Desk:
    """A desk, and what it says in order."""

    def __init__(self, mine: str = "ab", book: ProfileBook | None = None) -> None:
        self.desk = ProfileDesk(book)
        self.desk.takes(lambda node: node in mine)
        self.topic: list[tuple[str, dict[str, Any]]] = []

    def apply(self, record: dict[str, Any]) -> None:
        key = f"{record['namespace']}/{record['name']}"
        self.desk.profile(key, record, len(encode("SecurityProfile", record)))

    def told(self, now_ns: int = NOW) -> list[tuple[str, dict[str, Any]]]:
        """What it says now; each has been through the codec, as on the topic."""
        said = []
        self.desk.tick(now_ns)
        for draft in self.desk.drafts(now_ns):
            self.desk.sent(draft)
            said.append(decode(encode(draft.name, draft.record)))
        self.topic += said
        return said

    def profiles(self, now_ns: int = NOW) -> list[tuple[str, list[str] | None]]:
        """Node and pods of each ProfileOrder it says now; None for a removal."""
        return sorted(
            (each["node"], None if each["removed"] else each["workloads"])
            for name, each in self.told(now_ns)
            if name == "ProfileOrder"
        )

    def hear(self, topic: list[tuple[str, dict[str, Any]]]) -> None:
        for name, record in topic:
            self.desk.order_read(name, record)


def test_a_profile_goes_to_the_nodes_of_the_pods_it_selects() -> None:
    desk = Desk()
    for each in (pod("1"), pod("2", "b"), pod("3", app="db"), pod("4", namespace="other")):
        desk.desk.pod(each.uid, each, NOW)
    desk.apply(profile(pod_selector=labelled(app="web")))
    assert desk.profiles() == [("a", ["1"]), ("b", ["2"])]


def test_what_was_said_is_not_said_again() -> None:
    desk = Desk()
    desk.desk.pod("1", pod("1"), NOW)
    desk.apply(profile())
    assert len(desk.told()) == 2
    desk.desk.pod("1", pod("1"), LATER)
    desk.apply(profile())
    assert desk.told() == []


def test_a_node_is_told_its_pods_whether_a_profile_selects_them_or_not() -> None:
    desk = Desk()
    desk.desk.pod("2", pod("2"), NOW)
    desk.desk.pod("1", pod("1"), NOW + 5)
    ((name, order),) = desk.told()
    assert (name, order["subject"], order["workloads"]) == ("NodeWorkloads", "workloads/a", ["1", "2"])
    assert order["generation"] == NOW + 5
    desk.desk.pod("1", None, LATER)
    desk.desk.pod("2", None, LATER)
    ((_, order),) = desk.told()
    assert (order["workloads"], order["generation"]) == ([], LATER)


@pytest.mark.parametrize(
    "change",
    [
        lambda desk: desk.desk.pod("1", None, LATER),
        lambda desk: desk.desk.pod("1", pod("1", app="db"), LATER),
        lambda desk: desk.desk.profile_gone("default/web", LATER),
        lambda desk: desk.apply(profile(pod_selector=labelled(app="db"), generation=2)),
    ],
    ids=["pod gone", "pod relabelled", "profile deleted", "profile selects others"],
)
def test_what_selects_nothing_any_more_is_removed_by_a_newer_order(change: Any) -> None:
    desk = Desk()
    desk.desk.pod("1", pod("1"), NOW)
    desk.apply(profile(pod_selector=labelled(app="web")))
    ((_, first),) = [each for each in desk.told() if each[0] == "ProfileOrder"]
    change(desk)
    ((_, gone),) = [each for each in desk.told() if each[0] == "ProfileOrder"]
    assert gone["removed"]
    assert gone["profile"] is None
    assert gone["generation"] > first["generation"]
    assert desk.profiles() == []


def test_a_profile_that_never_selected_anything_is_nobodys_affair() -> None:
    desk = Desk()
    desk.desk.pod("1", pod("1"), NOW)
    desk.told()
    desk.apply(profile(pod_selector=labelled(app="db")))
    desk.desk.profile_gone("default/web", LATER)
    assert desk.told() == []


def test_a_changed_profile_is_told_even_when_its_clock_went_back() -> None:
    desk = Desk()
    desk.desk.pod("1", pod("1"), NOW)
    desk.apply(profile(generation=LATER))
    ((_, first),) = [each for each in desk.told() if each[0] == "ProfileOrder"]
    desk.apply(profile(generation=NOW, mode="ALERT"))
    ((_, second),) = [each for each in desk.told() if each[0] == "ProfileOrder"]
    assert second["profile"]["mode"] == "ALERT"
    assert second["generation"] > first["generation"]


def test_generations_are_those_of_the_evidence_whatever_its_order() -> None:
    one, two = Desk(), Desk()
    one.desk.pod("1", pod("1"), NOW + 3)
    one.desk.pod("2", pod("2"), NOW + 2)
    one.apply(profile(generation=NOW + 1))
    two.apply(profile(generation=NOW + 1))
    two.desk.pod("2", pod("2"), NOW + 2)
    two.desk.pod("1", pod("1"), NOW + 3)

    def said(desk: Desk) -> list[tuple[str, Any]]:
        return sorted(desk.told(), key=lambda each: each[0])

    assert said(one) == said(two)
    assert {each["generation"] for _, each in one.topic} == {NOW + 3}


def test_a_profile_of_nodes_goes_to_every_node_that_is_or_will_be_known() -> None:
    desk = Desk()
    desk.desk.node("a")
    desk.apply(profile(scope="NODE", namespace="host", services=[service("nginx.service")]))
    assert desk.profiles() == [("a", [])]
    desk.desk.node("b")
    assert desk.profiles() == [("b", [])]


def test_a_node_is_selected_by_its_name() -> None:
    desk = Desk()
    desk.desk.node("a")
    desk.desk.node("b")
    selector = labelled(**{"kubernetes.io/hostname": "b"})
    desk.apply(
        profile(scope="NODE", namespace="host", services=[service("x.service")], node_selector=selector)
    )
    assert desk.profiles() == [("b", [])]


def test_a_profile_ends_by_itself() -> None:
    desk = Desk()
    desk.desk.pod("1", pod("1"), NOW)
    desk.apply(profile(expires_at_ns=LATER))
    assert desk.profiles(LATER - 1) == [("a", ["1"])]
    assert desk.profiles(LATER) == [("a", None)]
    desk.apply(profile(generation=2, expires_at_ns=LATER + 10))
    assert desk.profiles(LATER + 1) == [("a", ["1"])]


def test_other_processes_nodes_are_left_to_them_until_they_are_ours() -> None:
    desk = Desk(mine="a")
    desk.desk.pod("1", pod("1"), NOW)
    desk.desk.pod("2", pod("2", "b"), NOW)
    desk.apply(profile())
    assert desk.profiles() == [("a", ["1"])]
    desk.desk.takes(lambda node: node == "b")
    assert desk.profiles() == [("b", ["2"])]


def test_a_restart_says_nothing_again_and_catches_up_with_what_changed_meanwhile() -> None:
    before = Desk()
    before.desk.pod("1", pod("1"), NOW)
    before.desk.pod("2", pod("2", "b"), NOW)
    before.apply(profile("web"))
    before.apply(profile("gone"))
    before.told()
    after = Desk()
    after.hear(before.topic)
    after.desk.pod("1", pod("1"), NOW)
    after.apply(profile("web"))  # pod 2 and the profile "gone" went while nobody ran, tombstones too
    said = after.told()
    assert {(each["node"], each["subject"]) for _, each in said} == {
        ("a", "profile/default/gone"),
        ("b", "profile/default/gone"),
        ("b", "profile/default/web"),
        ("b", "workloads/b"),
    }
    older = {(each["node"], each["subject"]): each["generation"] for _, each in before.topic}
    assert all(each["generation"] > older[each["node"], each["subject"]] for _, each in said)


def test_reading_ones_own_orders_changes_nothing() -> None:
    desk = Desk()
    desk.desk.pod("1", pod("1"), NOW)
    desk.apply(profile())
    first = desk.told()
    desk.apply(profile(generation=2))
    second = desk.told()
    desk.hear(first)
    desk.hear(second)
    assert desk.told() == []


def test_an_order_of_another_process_that_comes_between_is_answered() -> None:
    desk = Desk()
    desk.desk.pod("1", pod("1"), NOW)
    desk.apply(profile())
    mine = [each for each in desk.told() if each[0] == "ProfileOrder"]
    other = ("ProfileOrder", {**mine[0][1], "workloads": ["1", "9"]})  # the same generation, too
    desk.hear([other, *mine])
    ((_, answer),) = desk.told()
    assert answer["workloads"] == ["1"]
    assert answer["generation"] > other[1]["generation"]


def test_an_unusable_profile_leaves_the_one_before_it() -> None:
    desk = Desk()
    desk.desk.pod("1", pod("1"), NOW)
    desk.apply(profile())
    desk.told()
    with pytest.raises(ProfileError, match="the key says"):
        desk.desk.profile("default/other", profile(generation=2), 10)
    with pytest.raises(ProfileError, match="split it"):
        desk.desk.profile("default/web", profile(generation=2), 1 << 30)
    assert desk.told() == []


def test_profiles_and_nodes_are_bounded() -> None:
    desk = Desk(book=ProfileBook(max_profiles=1, max_nodes=1))
    desk.apply(profile())
    desk.apply(profile(generation=2))
    with pytest.raises(ProfileError, match="1 profiles"):
        desk.apply(profile("second"))
    desk.desk.node("a")
    desk.desk.node("b")
    figures = desk.desk.metrics()
    assert figures["profiles", "profiles_refused"] == 1
    assert figures["profiles", "nodes_refused"] == 1


NAMES = st.sampled_from(["web", "db"])
LABELS = st.sampled_from(["web", "db"])
CHANGES = st.one_of(
    st.tuples(st.just("profile"), NAMES, st.none() | LABELS),
    st.tuples(st.just("pod"), st.sampled_from("12"), st.none() | st.tuples(LABELS, st.sampled_from("ab"))),
    st.tuples(st.just("tell"), st.none(), st.none()),
    st.tuples(st.just("restart"), st.none(), st.none()),
)


@given(changes=st.lists(CHANGES, max_size=25))
@settings(max_examples=300, deadline=None)
def test_the_newest_orders_always_say_what_profiles_and_pods_say(changes: list[tuple[str, Any, Any]]) -> None:
    """Whatever happens, a reader of the topic ends with exactly the selection, by rising generations."""
    desk, topic = Desk(), list[tuple[str, dict[str, Any]]]()
    profiles: dict[str, str] = {}
    pods: dict[str, tuple[str, str]] = {}
    for step, (kind, name, value) in enumerate(changes):
        if kind == "profile" and value is None:
            profiles.pop(name, None)
            desk.desk.profile_gone(f"default/{name}", NOW + step)
        elif kind == "profile":
            profiles[name] = value
            desk.apply(profile(name, generation=NOW + step, pod_selector=labelled(app=value)))
        elif kind == "pod" and value is None:
            pods.pop(name, None)
            desk.desk.pod(name, None, NOW + step)
        elif kind == "pod":
            pods[name] = value
            desk.desk.pod(name, pod(name, value[1], app=value[0]), NOW + step)
        elif kind == "tell":
            topic += desk.told()
        else:
            desk = restarted(topic, profiles, pods, desk)
    topic += desk.told()
    assert_says(topic, profiles, pods)


def restarted(
    topic: list[tuple[str, dict[str, Any]]], profiles: dict[str, str], pods: dict[str, Any], before: Desk
) -> Desk:
    """A new process reads the compacted topics: only what there is, with the generations it had."""
    after = Desk()
    after.hear(topic)
    for uid, (label, node) in pods.items():
        after.desk.pod(uid, pod(uid, node, app=label), NOW)
    for name in profiles:
        for held in before.desk.book.profiles():
            if held["name"] == name:
                after.apply(dict(held))
    return after


def assert_says(
    topic: list[tuple[str, dict[str, Any]]], profiles: dict[str, str], pods: dict[str, Any]
) -> None:
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for _, order in topic:
        place = order["node"], order["subject"]
        assert place not in newest or order["generation"] > newest[place]["generation"]
        newest[place] = order
    for node in "ab":
        for name in ("web", "db"):
            wanted = sorted(
                uid for uid, (label, at) in pods.items() if at == node and profiles.get(name) == label
            )
            order = newest.get((node, f"profile/default/{name}"), {"workloads": [], "removed": True})
            assert (order["workloads"], order["removed"]) == (wanted, not wanted)
        there = newest.get((node, f"workloads/{node}"), {"workloads": []})
        assert there["workloads"] == sorted(uid for uid, (_, at) in pods.items() if at == node)
