# SPDX-License-Identifier: Apache-2.0
"""The published examples, held by the kernel against real clients: curl, Python, dig and nc.

Two network namespaces on one wire: the pod's and the other hosts', which serve DNS, HTTP and TLS. Names,
programs and addresses are those of examples/profiles.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from schemas.profile.canonical import to_record
from schemas.profile.document import parse_profiles
from sensor.publish.layout import CONNECT
from tests.support.kernel_lab import Cgroup
from tests.support.profile_node import Node, Pod

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.kernel_watch import Watch

ROOT = Path(__file__).parents[2]
POD, OTHERS, STRANGER, DNS = "10.99.0.2", "10.99.0.1", "172.31.99.1", "10.99.0.53"
API, WWW = "api.shop.example", "www.shop.example"
ALERTED = 2
PYTHON, CURL = "/usr/bin/python3.11", "/usr/bin/curl"
TLS_SERVER = """
import http.server, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(sys.argv[1])
server = http.server.ThreadingHTTPServer((sys.argv[2], 443), http.server.SimpleHTTPRequestHandler)
server.socket = context.wrap_socket(server.socket, server_side=True); server.serve_forever()
"""
HTTP_SERVER = """
import http.server, sys
class Any(http.server.BaseHTTPRequestHandler):
    def answer(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"served")
    do_GET = do_POST = answer
http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Any).serve_forever()
"""
TLS_CLIENT = """
import socket, ssl, sys
context = ssl._create_unverified_context()
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 2) as plain:
        with context.wrap_socket(plain, server_hostname=sys.argv[3]) as secure:
            secure.send(b"GET / HTTP/1.0\\r\\n\\r\\n"); print("served" if secure.recv(1) else "closed")
except PermissionError: print("EPERM")
except socket.gaierror: print("unresolved")
except OSError as error: print(type(error).__name__)
"""


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=20)


class Site:
    """The pod in its network, and the servers."""

    def __init__(self, watch: Watch, directory: Path) -> None:
        self.pod = Pod(watch)
        self.directory = directory
        tag = f"nsp-test-{os.getpid()}"
        self.spaces = f"{tag}-pod", f"{tag}-others"
        self.servers: list[subprocess.Popen[bytes]] = []

    def make(self) -> None:
        pod, others = self.spaces
        for space in self.spaces:
            run("ip", "netns", "add", space)
            run("ip", "-n", space, "link", "set", "lo", "up")
        run("ip", "-n", pod, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", others)
        run("ip", "-n", pod, "address", "add", f"{POD}/24", "dev", "eth0")
        for address in (f"{OTHERS}/24", f"{DNS}/24", f"{STRANGER}/32"):
            run("ip", "-n", others, "address", "add", address, "dev", "eth0")
        for space in self.spaces:
            run("ip", "-n", space, "link", "set", "eth0", "up")
        run("ip", "-n", pod, "route", "add", "default", "via", OTHERS)
        (self.directory / "resolv.conf").write_text(f"nameserver {DNS}\noptions timeout:1 attempts:1\n")
        self.pod.make()
        self._serve()

    def _serve(self) -> None:
        certificate = self.directory / "server.pem"
        run(
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={API}",
            "-keyout", str(certificate), "-out", str(self.directory / "certificate.pem"),
        )  # fmt: skip
        certificate.write_text(certificate.read_text() + (self.directory / "certificate.pem").read_text())
        zone = [f"{name}={OTHERS}" for name in (API, WWW, "other.example")]
        dns = str(ROOT / "demo" / "workloads" / "dns_server.py")
        for command in (
            [PYTHON, dns, DNS, *zone],
            [PYTHON, "-c", HTTP_SERVER, OTHERS, "80"],
            [PYTHON, "-c", TLS_SERVER, str(certificate), OTHERS],
        ):
            self.serve(self.spaces[1], *command)
        wait = f"until nc -z {OTHERS} 80 && nc -z {OTHERS} 443; do sleep 0.05; done"
        run("ip", "netns", "exec", self.spaces[1], "timeout", "15", "sh", "-c", wait)

    def serve(self, space: str, *command: str) -> None:
        inside = ["ip", "netns", "exec", space, *command]
        self.servers.append(
            subprocess.Popen(inside, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.directory)
        )

    def in_pod(self, *command: str) -> list[str]:
        """A command line that runs inside: cgroup, network, resolv.conf."""
        mounted = f'mount --bind {self.directory}/resolv.conf /etc/resolv.conf && exec "$@"'
        return self.pod.cgroup.command(
            "nsenter", f"--net=/run/netns/{self.spaces[0]}", "unshare", "--mount", "--propagation", "private",
            "sh", "-c", mounted, "sh", *command,
        )  # fmt: skip

    def says(self, *command: str) -> str:
        """What a client in the pod prints."""
        done = subprocess.run(
            self.in_pod("timeout", "10", *command), capture_output=True, text=True, check=False, timeout=30
        )
        return (done.stdout + done.stderr).strip()

    def fetches(self, url: str, *options: str) -> str:
        """HTTP status by curl, 000 for none."""
        arguments = ("-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "2", *options, url)
        return self.says(CURL, *arguments)[-3:]

    def speaks_tls(self, host: str, port: int = 443, server_name: str = API) -> str:
        return self.says(PYTHON, "-c", TLS_CLIENT, host, str(port), server_name)

    def remove(self) -> None:
        for server in self.servers:
            server.kill()
            server.wait()
        for space in self.spaces:
            with contextlib.suppress(subprocess.CalledProcessError):
                run("ip", "netns", "delete", space)


@pytest.fixture
def site(watch: Watch, tmp_path: Path) -> Iterator[Site]:
    if not Path(PYTHON).exists():
        pytest.skip(f"the example names {PYTHON}, which this distribution does not have")
    kubepods = watch.cgroup.path / "kubepods"
    kubepods.mkdir()
    made = Site(watch, tmp_path)
    try:
        made.make()
        yield made
    finally:
        made.remove()
        Cgroup(kubepods).remove()
        for slot, _ in list(watch.kernel.policy.policy_slots()):
            watch.kernel.policy.set_policy_slot(slot, 0)


def put_in_force(watch: Watch, site: Site, example: str) -> Node:
    node = Node(watch, resolver=DNS)
    path = ROOT / "examples" / "profiles" / f"{example}.yaml"
    record = to_record(parse_profiles(path.read_text(), str(path))[0], 5)
    status = node.profile(5, site.pod.uid, **{name: record[name] for name in record if name != "generation"})
    assert status["outcome"] == "APPLIED", status
    # The pod runs nothing yet, but its cgroup is there: see SETTLING_NS.
    subprocess.run(["sleep", "0.6"], check=True)
    return node


def test_an_http_client_reaches_what_each_of_its_programs_may(watch: Watch, site: Site) -> None:
    put_in_force(watch, site, "http-client")
    assert site.speaks_tls(API) == "served"
    assert site.speaks_tls(WWW) == "unresolved"
    assert site.speaks_tls(OTHERS, 80) == "EPERM"
    assert site.fetches(f"http://{WWW}/") == "200"
    assert site.fetches(f"http://{WWW}/catalogue/7?page=2") == "200"
    assert site.fetches(f"http://{WWW}/secret") == "000"
    assert site.fetches(f"http://{WWW}/", "-X", "POST") == "000"
    assert site.fetches(f"https://{API}/", "-k") == "000"
    # What is neither of the two may do nothing.
    assert "not permitted" in site.says("nc", "-w1", "-v", OTHERS, "80")
    # dig 9.18 has its own words for EPERM, and newer ones those of the system.
    assert re.search(
        "permission denied|not permitted", site.says("dig", "+tries=1", "+time=1", f"@{DNS}", WWW)
    )


def test_a_client_may_not_name_another_server_in_its_hello(watch: Watch, site: Site) -> None:
    put_in_force(watch, site, "http-client")
    assert site.speaks_tls(API, server_name=API) == "served"
    assert site.speaks_tls(API, server_name="other.example") != "served"


def test_a_server_is_reached_from_its_network_on_its_port_and_goes_nowhere(watch: Watch, site: Site) -> None:
    _, others = site.spaces
    put_in_force(watch, site, "server")
    server = subprocess.Popen(site.in_pod(PYTHON, "-c", HTTP_SERVER, "0.0.0.0", "8080"))
    try:
        # From outside: the pod's own clients are held to the profile too.
        wait = f"until nc -z {POD} 8080; do sleep 0.05; done"
        run("ip", "netns", "exec", others, "timeout", "15", "sh", "-c", wait)
        reach = ["ip", "netns", "exec", others, CURL, "-s", "--max-time", "2"]
        good = subprocess.run([*reach, f"http://{POD}:8080/"], capture_output=True, text=True, check=False)
        assert good.stdout == "served"
        bad = [*reach, "--interface", STRANGER, f"http://{POD}:8080/"]
        assert subprocess.run(bad, capture_output=True, text=True, check=False).stdout == ""
        assert "not permitted" in site.says("nc", "-l", "-p", "9090")
        # It may ask any name of its resolver, and connect to none.
        assert site.says("dig", "+short", "+tries=1", "+time=2", f"@{DNS}", WWW) == OTHERS
        assert site.fetches(f"http://{WWW}/") == "000"
        assert "not permitted" in site.says("nc", "-w1", "-v", OTHERS, "80")
    finally:
        server.kill()
        server.wait()


def test_alert_only_refuses_nothing_and_tells_it(watch: Watch, site: Site) -> None:
    put_in_force(watch, site, "alert-only")
    assert site.fetches(f"http://{OTHERS}/") == "200"  # within 10.0.0.0/8
    site.says("nc", "-w1", STRANGER, "80")
    told = [each for each in watch.events(CONNECT) if each["verdict"] == ALERTED]
    assert [each.remote for each in told] == [(STRANGER, 80)]
