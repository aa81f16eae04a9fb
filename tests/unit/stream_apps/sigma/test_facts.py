# SPDX-License-Identifier: Apache-2.0
"""Which field of a rule is which part of our events."""

from __future__ import annotations

from typing import Any

from stream_apps.correlate.names import NameLimits, NameTable
from stream_apps.correlate.pods import PodTable
from stream_apps.correlate.programs import ProgramLists, Programs
from stream_apps.correlate.view import BatchView
from stream_apps.detect.scene import Scene
from stream_apps.sigma import taxonomy
from stream_apps.sigma.facts import MAX_TEXT, FactMaker
from tests.support.batches import Node, pod_record

USERS = {0: "root", 33: "www-data"}


def told(node: Node, number: int = -1, needed: frozenset[int] | None = None) -> dict[str, Any]:
    """The values of one event, by the names of fields; what is absent is left out."""
    names = NameTable(NameLimits())
    pods = PodTable()
    pods.put(pod_record())
    batch = node.batch()
    view = BatchView(batch, Programs(ProgramLists((), (), (), ())))
    scene = Scene(view, [None] * len(view.processes), names, pods)
    for kind, event in batch["events"]:
        if kind == "nsp.DnsAnswer":
            names.learn(view.workload_ids[event["process"]], event, scene.wall_ns(event["ktime_ns"]))
    kind, event = batch["events"][number]
    maker = FactMaker(USERS, frozenset(range(taxonomy.SLOTS)) if needed is None else needed)
    facts = maker.make(scene, kind, event["process"], event)
    found = {each.name: facts.values[each.slot] for each in taxonomy.FIELDS}
    for each in taxonomy.FIELDS:
        value = facts.values[each.slot]
        assert facts.texts[each.slot] == ("" if value is None else str(value).casefold()), each.name
    return {name: value for name, value in found.items() if value is not None}


def test_a_program_that_is_started() -> None:
    node = Node()
    parent = node.service("/usr/sbin/Nginx", ["nginx", "-g", "daemon off;"])
    node.spawn(parent, "/usr/bin/Curl", ["curl", "-s", "http://A"], uid=0)
    found = told(node)
    assert found["Image"] == "/usr/bin/Curl"
    assert found["CommandLine"] == "curl -s http://A"
    assert found["ParentImage"] == "/usr/sbin/Nginx"
    assert found["ParentCommandLine"] == "nginx -g daemon off;"
    assert (found["User"], found["ParentUser"]) == ("root", "www-data")
    assert found["ProcessId"] != found["ParentProcessId"]
    assert found["Computer"] == "worker-1"
    assert (found["Namespace"], found["ContainerImage"]) == ("shop", "registry.example/shop:1.4.2")
    assert "DestinationIp" not in found


def test_the_parent_is_another_process_not_the_image_before() -> None:
    node = Node()
    shell = node.spawn(node.service("/usr/sbin/cron"), "/bin/sh")
    node.exec(shell, "/usr/bin/id")
    found = told(node)
    assert (found["Image"], found["ParentImage"]) == ("/usr/bin/id", "/usr/sbin/cron")


def test_a_user_without_a_name_is_a_number_and_a_host_process_has_no_pod() -> None:
    node = Node()
    node.spawn(node.service("/usr/sbin/cron", workload=0), "/bin/sh", uid=1234)
    found = told(node)
    assert found["User"] == "1234"
    assert "Namespace" not in found


def test_a_process_nobody_knows_has_neither_image_nor_parent() -> None:
    node = Node()
    node.connect(0, "192.0.2.1", 80)
    found = told(node)
    assert "Image" not in found
    assert "ParentImage" not in found
    assert found["DestinationIp"] == "192.0.2.1"


def test_an_outgoing_connection_and_the_name_behind_it() -> None:
    node = Node()
    service = node.service("/app/shop")
    node.answer(service, "api.partner.example", ["192.0.2.7"])
    node.connect(service, "192.0.2.7", 443)
    found = told(node)
    assert found["DestinationHostname"] == "api.partner.example"
    assert (found["DestinationIp"], found["DestinationPort"]) == ("192.0.2.7", 443)
    assert (found["Initiated"], found["Protocol"], found["DestinationIsIpv6"]) == ("true", "tcp", "false")
    assert "SourceIp" not in found


def test_a_datagram_to_an_address_nobody_asked_for() -> None:
    node = Node()
    node.send(node.service("/app/shop"), "2001:db8::1", 53)
    found = told(node)
    assert (found["Protocol"], found["DestinationIsIpv6"]) == ("udp", "true")
    assert "DestinationHostname" not in found


def test_of_an_accepted_connection_the_destination_is_our_side() -> None:
    node = Node()
    service = node.service("/app/shop")
    node.add(
        "SocketAccept", service, cookie=1, local_address="10.1.2.3", local_port=8080,
        remote_address="10.9.9.9", remote_port=40000,
    )  # fmt: skip
    found = told(node)
    assert (found["Initiated"], found["DestinationIp"], found["DestinationPort"]) == (
        "false",
        "10.1.2.3",
        8080,
    )


def test_a_connection_that_ends_has_both_sides() -> None:
    node = Node()
    service = node.service("/app/shop")
    node.close(service, "10.9.9.9", 40000, inbound=True)
    found = told(node)
    assert (found["SourceIp"], found["SourcePort"], found["Initiated"]) == ("10.9.9.9", 40000, "false")
    assert (found["DestinationIp"], found["DestinationPort"]) == ("10.1.2.3", 51044)
    node.close(service, "192.0.2.7", 443)
    found = told(node)
    assert (found["SourceIp"], found["DestinationIp"]) == ("10.1.2.3", "192.0.2.7")
    assert (found["SourcePort"], found["DestinationPort"]) == (51044, 443)
    assert (found["SourceIsIpv6"], found["Protocol"]) == ("false", "tcp")


def test_a_question_and_its_answer() -> None:
    node = Node()
    service = node.service("/app/shop")
    node.ask(service, "evil.example")
    node.answer(service, "evil.example", ["192.0.2.7"])
    question = told(node, 0)
    assert (question["QueryName"], question["query"], question["record_type"]) == (
        "evil.example",
        "evil.example",
        "A",
    )
    assert "QueryStatus" not in question
    node.answer(service, "evil.example", ["192.0.2.7", "192.0.2.8"], rcode=0)
    answer = told(node)
    assert answer["QueryResults"] == "edge.evil.example;192.0.2.7;192.0.2.8"
    assert answer["QueryStatus"] == 0


def test_hostile_texts_are_cut() -> None:
    node = Node()
    node.spawn(node.service("/app/shop"), "/bin/" + "a" * MAX_TEXT, ["x" * MAX_TEXT, "y"])
    found = told(node)
    assert len(found["Image"]) == len(found["CommandLine"]) == MAX_TEXT


def test_every_field_says_where_it_is() -> None:
    assert len({each.name for each in taxonomy.FIELDS}) == len(taxonomy.FIELDS)
    for stream in taxonomy.RECORDS:
        assert any(stream in each.streams for each in taxonomy.FIELDS)
    assert not set(taxonomy.ABSENT) & set(taxonomy.BY_NAME)
