# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - a script is read as it is run
"""What must not be told: twins of the attacks, and what goes on all day. Each rule has one near its threshold."""

from __future__ import annotations

from typing import Final

from tests.support.scenarios.scenario import Scenario
from tests.support.scenarios.world import (
    API,
    CACHES,
    DATABASE,
    EVERYDAY,
    METADATA,
    MIRROR,
    OUTSIDE,
    PARTNER,
    PEER,
)

_PAGES = (
    "import random,time,urllib.request\n"
    "random.seed(4)\n"
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
_EVEN_INSIDE = (
    "import socket,time\n"
    "for n in range(110):\n"
    f"  s=socket.create_connection(('{PEER}',9100)); s.sendall(b'GET /metrics'); s.recv(99); s.close(); time.sleep(0.05)"
)
_NAMES = (
    "import socket\nfor n in range(40): socket.create_connection((f'edge{n}.cdn-example.com',443)).close()"
)
_HASHES = (
    "import os,socket\n"
    "for n in range(80):\n"
    "  try: socket.gethostbyname(os.urandom(12).hex()+'.telemetry-example.com')\n"
    "  except OSError: pass"
)
_DOORS = (
    "import socket\n"
    "for port in range(7001,7015):\n"
    f"  try: socket.create_connection(('{PEER}',port),1)\n"
    "  except OSError: pass"
)
# Twenty targets outside that answer for two seconds, then no more.
_SERVE = (
    "import socket,time\no=[socket.create_server(('0.0.0.0',p)) for p in range(9200,9220)]\ntime.sleep(2.5)"
)
_ALL_TWICE = (
    "import socket,time\n"
    "def answers(p):\n"
    f"  try: socket.create_connection(('{OUTSIDE}',p),1).close()\n"
    "  except OSError: return False\n"
    "  return True\n"
    "for wanted in (True,False):\n"
    "  until=time.monotonic()+15\n"
    "  while answers(9219)!=wanted and time.monotonic()<until: time.sleep(0.1)\n"
    "  for p in range(9200,9220): answers(p)"
)
_LATER = (
    "import socket,time\n"
    f"a=socket.gethostbyname('{PARTNER}'); time.sleep(1); socket.create_connection((a,443)).close()"
)
_CRON = (
    "import subprocess,time\n"
    f"for n in range(70): subprocess.run(['sh','-c','curl -fsS http://{PARTNER}/ping >/dev/null; true']); time.sleep(0.02)"
)
_DEB = (
    "set -e; d=$(mktemp -d /var/lib/nsp-deb-XXXXXX); mkdir -p $d/p/DEBIAN $d/root $d/db/updates $d/db/info; : > $d/db/status; "
    "printf 'Package: trial\\nVersion: 1\\nArchitecture: all\\nMaintainer: Nobody <nobody@example.org>\\nDescription: trial\\n' > $d/p/DEBIAN/control; "
    f"printf '#!/bin/sh\\nset -e\\ngetent passwd root >/dev/null\\nperl -e 1\\ncurl -s http://{MIRROR}/key -o /dev/null\\nsh -c date >/dev/null\\n' > $d/p/DEBIAN/postinst; "
    "chmod 755 $d/p/DEBIAN/postinst; dpkg-deb -b $d/p $d/trial.deb >/dev/null; "
    "dpkg --admindir=$d/db --instdir=$d/root --log=/dev/null --force-not-root --force-script-chrootless -i $d/trial.deb >/dev/null; rm -rf $d"
)
_APT = (
    "d=$(mktemp -d /var/lib/nsp-apt-XXXXXX); mkdir -p $d/lists/partial $d/cache/archives/partial; "
    f"echo 'deb [trusted=yes] http://{MIRROR}/ stable main' > $d/sources.list; : > $d/status; "
    "apt-get -q -o Dir::Etc::SourceList=$d/sources.list -o Dir::Etc::SourceParts=- -o Dir::State::Lists=$d/lists "
    "-o Dir::State::Status=$d/status -o Dir::Cache=$d/cache -o APT::Sandbox::User=root -o Acquire::Languages=none update >/dev/null 2>&1; "
    f"for p in a b c d e f; do wget -q -O /dev/null http://{MIRROR}/pool/$p.deb; done; rm -rf $d"
)

_MACHINES: Final = (
    Scenario("packages are downloaded", "unit apt-daily.service", _APT, needs=("apt-get", "wget")),
    Scenario("scripts of packages", "unit apt-daily-upgrade.service", _DEB, needs=("dpkg", "curl", "perl")),
    Scenario("cron with curl", "unit cron.service", f'exec python3 -c "{_CRON}"', needs=("curl",), slower=4000),
    Scenario(
        "backup", "unit backup.service",
        f"d=$(mktemp -d); cp -r /etc/apt $d/; rsync -a $d/apt/ $d/copy/; curl -s -T /etc/hostname http://{PARTNER}/backup; rm -rf $d",
        needs=("rsync", "curl"),
    ),
    Scenario(
        "the cloud's own agent", "unit google-guest-agent.service",
        f"curl -s -m2 http://{METADATA}/computeMetadata/v1/", needs=("curl",),
    ),
)  # fmt: skip

_BUILDS: Final = (
    Scenario("git over ssh", "entry", f"git ls-remote ssh://git@{MIRROR}/repo.git; true", needs=("git", "ssh")),
    Scenario("git over ssh to a neighbour", "entry", f"git ls-remote ssh://git@{PEER}/repo.git; true", needs=("git", "ssh")),
    Scenario("rsync over ssh to a neighbour", "entry", f"rsync -a -e ssh /etc/apt {PEER}:/backup 2>/dev/null; true", needs=("rsync", "ssh")),
    Scenario(
        "build", "entry",
        "d=$(mktemp -d /var/lib/nsp-build-XXXXXX); cd $d; printf 'int main(){return 0;}' > a.c; "
        f"printf 'all: a dep\\n\\t./a\\na: a.c\\n\\tcc -o a a.c\\ndep:\\n\\twget -q -O dep http://{MIRROR}/d.tgz\\n' > Makefile; "
        "make -s; rm -rf $d",
        needs=("make", "cc", "wget"),
    ),
    Scenario(
        "a build in /tmp that asks only itself", "entry",
        "cp /usr/bin/nc /tmp/.conftest; (timeout 1 /tmp/.conftest -l 127.0.0.1 7555 &); sleep 0.3; /tmp/.conftest -z 127.0.0.1 7555; rm -f /tmp/.conftest",
        needs=("nc", "timeout"),
    ),
    Scenario(
        "a program is fetched and only asked its version", "entry",
        f"wget -q -O /var/lib/.tool http://{MIRROR}:8000/program; chmod +x /var/lib/.tool; /var/lib/.tool -h >/dev/null 2>&1; rm -f /var/lib/.tool",
        needs=("wget", "nc"),
    ),
    Scenario("modules of Node are looked up", "entry", f"npm view left-pad --registry http://{MIRROR}/ --fetch-retries=0 --cache=/tmp/.npm-nsp >/dev/null 2>&1; rm -rf /tmp/.npm-nsp", needs=("npm",)),
    Scenario(
        "modules of Go are looked up", "entry",
        f"d=$(mktemp -d /var/lib/nsp-go-XXXXXX); cd $d; HOME=$d GOFLAGS=-mod=mod GONOSUMDB='*' GOPROXY=http://{MIRROR} go mod download example.org/x@v1.0.0 2>/dev/null; chmod -R u+w $d; rm -rf $d",
        needs=("go",),
    ),
)  # fmt: skip

_SERVICES: Final = (
    Scenario("health probe", "probe", "for n in 1 2 3 4; do wget -q -O /dev/null http://127.0.0.1:{PORT}/; done", needs=("wget",)),
    Scenario("probe of a shell", "probe", "sh -c 'test -e /proc/1 && curl -fs http://localhost:{PORT}/ >/dev/null'", needs=("curl",)),
    Scenario("somebody administers the pod", "probe", "ls / >/dev/null; ps >/dev/null 2>&1; cat /etc/hostname >/dev/null; true"),
    Scenario("many threads of a JVM", "java work", f"n=40&u={DATABASE}:5432"),
    Scenario("a page that starts a shell", "python report", ""),
    Scenario("a page by CGI", "cgi page", "", needs=("busybox",)),
    Scenario("a service that fetches by itself", "python fetch", f"http://{PARTNER}/"),
    Scenario("a service whose workers fetch", "python workers", f"http://{PARTNER}/"),
    Scenario("a Node service whose worker fetches", "node workers", f"http://{PARTNER}/"),
    Scenario("a database works", "postgres work", "select count(*) from pg_class"),
    # Twice or more in an hour for more than a day: what it does is known by then.
    Scenario("a service does what it always did", "python fetch", " ".join(EVERYDAY), slower=9000),
)  # fmt: skip

_NEAR_THRESHOLDS: Final = (
    Scenario("scrapes, some targets down", "entry", f'exec python3 -c "{_SCRAPE}"'),
    Scenario("a partner called as customers come", "entry", f'exec python3 -c "{_PAGES}"', slower=900),
    Scenario("even, but inside", "entry", f'exec python3 -c "{_EVEN_INSIDE}"', slower=1200),
    Scenario("many names of one network of caches", "entry", f'exec python3 -c "{_NAMES}"'),
    Scenario("telemetry in names", "entry", f'exec python3 -c "{_HASHES}"'),
    Scenario("fourteen closed doors", "entry", f'exec python3 -c "{_DOORS}"'),
    Scenario("targets that go away", "entry", f'exec python3 -c "{_ALL_TWICE}"', knock=f'python3 -c "{_SERVE}"'),
    Scenario("a client that waits for its database", "entry", f"for n in 1 2 3 4 5 6; do nc -z -w1 {DATABASE} 7432; sleep 0.1; done; nc -z {DATABASE} 5432", needs=("nc",)),
    Scenario("an address as it was told", "entry", f"curl -s http://{CACHES[0]}/", needs=("curl",)),
    Scenario("an address of two hours ago", "entry", f'exec python3 -c "{_LATER}"', slower=7200),
    Scenario("a program of the workload asks the cloud", "entry", f"exec python3 -c \"import urllib.request;urllib.request.urlopen('http://{METADATA}/').read()\""),
    Scenario("an operator calls the API", "entry", f"exec python3 -c \"import socket;socket.create_connection(('{API}',443)).close()\""),
    Scenario("a pool's port, but inside", "entry", f"exec python3 -c \"import socket;socket.create_connection(('{PEER}',3333)).close()\""),
)  # fmt: skip

BENIGN: Final = (*_MACHINES, *_BUILDS, *_SERVICES, *_NEAR_THRESHOLDS)
