# SPDX-License-Identifier: Apache-2.0
"""What is known to match nothing is not asked again, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stream_apps.correlate.names import NameLimits, NameTable
from stream_apps.correlate.pods import PodTable
from stream_apps.correlate.programs import ProgramLists, Programs
from stream_apps.correlate.view import BatchView
from stream_apps.detect.scene import Scene
from stream_apps.sigma import quiet as module
from stream_apps.sigma.quiet import Quiet
from tests.support.batches import Node, pod_record

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECT = "nsp.SocketConnect"


def scene_of(node: Node, pods: PodTable | None = None) -> tuple[Scene, list[tuple[str, Mapping[str, Any]]]]:
    batch = node.batch()
    view = BatchView(batch, Programs(ProgramLists()))
    names = NameTable(NameLimits())
    return Scene(view, [None] * len(view.processes), names, pods or PodTable()), batch["events"]


def ask(quiet: Quiet, scene: Scene, kind: str, event: Mapping[str, Any]) -> bool:
    """Whether it was known; it is afterwards."""
    index = event["process"]
    place = quiet.place(scene, kind, index, event)
    if place is None:
        return False
    known = quiet.knows(scene, index, place)
    if not known:
        quiet.add(scene, index, place)
    return known


def asked(quiet: Quiet, node: Node, pods: PodTable | None = None) -> list[bool]:
    scene, events = scene_of(node, pods)
    quiet.begin(scene)
    return [ask(quiet, scene, kind, event) for kind, event in events]


def test_the_same_again_is_known_in_later_batches_too() -> None:
    node, quiet = Node(), Quiet(by_name=False)
    service = node.service("/app/shop")
    node.connect(service, "10.0.0.1", 443)
    node.connect(service, "10.0.0.1", 443)
    assert asked(quiet, node) == [False, True]
    node.connect(service, "10.0.0.1", 443)
    assert asked(quiet, node) == [True]


@pytest.mark.parametrize(
    "other",
    [
        lambda node, service: node.connect(service, "10.0.0.2", 443),
        lambda node, service: node.connect(service, "10.0.0.1", 23),
        lambda node, service: node.connect(service, "10.0.0.1", 443, protocol=17),
        lambda node, service: node.send(service, "10.0.0.1", 443),
        lambda node, service: node.connect(node.exec(service, "/app/shop"), "10.0.0.1", 443),
        lambda node, service: node.ask(service, "10.0.0.1"),
    ],
)
def test_anything_else_is_another_place(other: Any) -> None:
    node, quiet = Node(), Quiet(by_name=False)
    service = node.service("/app/shop")
    node.connect(service, "10.0.0.1", 443)
    other(node, service)
    assert not any(asked(quiet, node))


def test_another_name_behind_the_address_is_another_place() -> None:
    node, quiet = Node(), Quiet(by_name=True)
    service = node.service("/app/shop")
    node.connect(service, "10.0.0.1", 443)
    node.connect(service, "10.0.0.1", 443)
    answer_node = Node()
    answer_node.answer(answer_node.service("/app/shop"), "evil.example", ["10.0.0.1"])
    (_, answer), *_ = answer_node.batch()["events"]
    scene, events = scene_of(node)
    quiet.begin(scene)
    assert not ask(quiet, scene, *events[0])
    index = events[1][1]["process"]
    scene.names.learn(scene.view.workload_ids[index], dict(answer), scene.wall_ns(events[1][1]["ktime_ns"]))
    assert not ask(quiet, scene, *events[1])


def test_a_pod_that_becomes_known_is_asked_again() -> None:
    node, quiet = Node(), Quiet(by_name=False)
    service = node.service("/app/shop")
    node.connect(service, "10.0.0.1", 443)
    assert asked(quiet, node) == [False]
    pods = PodTable()
    pods.put(pod_record())
    node.connect(service, "10.0.0.1", 443)
    assert asked(quiet, node, pods) == [False]


def test_places_are_bounded_by_image_and_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PLACES", 4)
    monkeypatch.setattr(module, "MAX_ALL_PLACES", 10)
    node, quiet = Node(), Quiet(by_name=False)
    for path in ("/app/a", "/app/b", "/app/c", "/app/d"):
        service = node.service(path)
        for port in range(1, 8):
            node.connect(service, "10.0.0.1", port)
    asked(quiet, node)
    assert 0 < len(quiet) <= 10
    node.connect(service, "10.0.0.1", 7)
    assert asked(quiet, node) == [True]


def test_an_image_forgotten_within_its_batch_is_taken_up_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ALL_PLACES", 2)
    node, quiet = Node(), Quiet(by_name=False)
    first, second = node.service("/app/a"), node.service("/app/b")
    for port in (1, 2, 3):
        node.connect(first, "10.0.0.1", port)
        node.connect(second, "10.0.0.1", port)
    asked(quiet, node)
    assert len(quiet) <= 2
