# SPDX-License-Identifier: Apache-2.0
"""Profiles by DNS name, HTTP request and TLS server name, on this kernel's real connections.

Input: a started kernel part whose events nobody else reads meanwhile. Output: a line a step; SmokeError at
the first that fails.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from sensor.kernel.policy_state import ResolverKey
from sensor.policy import layout
from sensor.publish.layout import PACKET_REFUSED
from tests.kernels.outcome import SmokeError, expect
from tests.kernels.workload import Workload, pod_below, received, workload
from tests.support.dns_messages import QUERY, message
from tests.support.kernel_lab import ROOT
from tests.support.payload_lab import Talker, client_hello, in_records, one_by_one
from tests.support.profile_lab import ANY_ADDRESS, TCP, ProfileLab, network, traffic
from tests.support.ring_records import mapped
from tests.support.wire_lab import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.kernel_watch import Actor, Watch

_RESOLVER: Final = "127.7.0.53"
_NAME, _ADDRESS = "www.example.com", "192.0.2.7"
_OTHER_NAME, _OTHER_ADDRESS = "www.example.org", "192.0.2.8"
_PORT: Final = 8080
_GENERATION: Final = 51  # to tell reports apart
_LISTED: Final = "good.example"
_OK: Final = f"GET /ok/1 HTTP/1.1\r\nHost: {_LISTED}\r\n\r\n".encode()
_NOT_LISTED: Final = f"GET /no HTTP/1.1\r\nHost: {_LISTED}\r\n\r\n".encode()
_OTHER_HOST: Final = b"GET /ok/1 HTTP/1.1\r\nHost: bad.example\r\n\r\n"


@contextlib.contextmanager
def _name_server(made: Workload, tgid: int) -> Iterator[None]:
    """The server, outside the profile but in the namespace of a process."""
    known = f"{_NAME}={_ADDRESS}", f"{_OTHER_NAME}={_OTHER_ADDRESS}"
    module = "-m", "tests.kernels.name_server", str(tgid), _RESOLVER
    command = made.watch.cgroup.command(sys.executable, *module, *known)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        try:
            if server.stdout is None or server.stdout.readline() != "ready\n":
                raise SmokeError("the name server did not start")
            yield
        finally:
            server.kill()


def _resolved(actor: Actor, name: str) -> str:
    """Ask as a program does; the address of the answer, or the error of the question."""
    actor.tell("socket", "asks", socket.AF_INET, socket.SOCK_DGRAM)
    sent = actor.tell("sendbytesto", "asks", message(name, flags=QUERY).hex(), _RESOLVER, 53)
    if isinstance(sent, str):
        return sent
    answer = received(actor, "recvbytes", "asks")
    return answer if isinstance(answer, str) else socket.inet_ntoa(bytes.fromhex(answer[0])[-4:])


def check_names(made: Workload) -> None:
    """A listed name is resolved and what it led to reached; another name is not asked, nor its host met."""
    tgid = made.actor.tell("own_network")
    made.peer.tell("join_network", tgid)
    for address in (_ADDRESS, _OTHER_ADDRESS):
        run("nsenter", f"--net=/proc/{tgid}/ns/net", "ip", "address", "add", f"{address}/32", "dev", "lo")
        made.peer.tell("socket", address, socket.AF_INET, socket.SOCK_STREAM)
        made.peer.tell("bind", address, address, _PORT)
        expect(made.peer.tell("listen", address), None, f"DNS: a host at {address}")
    made.watch.kernel.policy.set_resolver(ResolverKey(made.pod.id, mapped(_RESOLVER)))
    out = traffic(names=[_NAME], ports=[(TCP, _PORT, _PORT)])
    made.lab.govern(made.slot, network(out), generation=_GENERATION)
    actor = made.actor
    with _name_server(made, tgid):
        early = actor.connect("early", _ADDRESS, _PORT)
        expect(early, "EPERM", "DNS: the address of a listed name is EPERM before it is resolved")
        expect(_resolved(actor, _NAME), _ADDRESS, "DNS: a listed name is resolved by a server")
        expect(actor.connect("named", _ADDRESS, _PORT), None, "DNS: its address is reached")
        expect(actor.connect("port", _ADDRESS, _PORT + 1), "EPERM", "DNS: on the listed port only")
        expect(_resolved(actor, _OTHER_NAME), "EPERM", "DNS: a question for another name is EPERM")
        expect(actor.connect("other", _OTHER_ADDRESS, _PORT), "EPERM", "DNS: its address is EPERM")


def _judged() -> dict[str, Any]:
    """Out to one name, by HTTP to /ok... or by TLS."""
    http = [{"method": "GET", "uri": "/ok*"}]
    rules = {"protocols": None, "dns": [], "http": http, "sni": [_LISTED], "opaque": False}
    return network(traffic(*ANY_ADDRESS, names=[_LISTED], l7=rules), traffic(*ANY_ADDRESS))


def check_payloads(watch: Watch, talker: Talker) -> None:
    """Requests and hellos pass as listed, also in pieces; others do not arrive."""
    good, bad = client_hello(_LISTED), client_hello("bad.example")
    cases: list[tuple[str, list[bytes], int, int]] = [
        ("HTTP: listed request", [_OK], len(_OK), 0),
        ("HTTP: listed request byte by byte", one_by_one(_OK), len(_OK), 0),
        ("HTTP: another path", [_NOT_LISTED], 0, layout.REASON_HTTP_REQUEST),
        ("HTTP: another host", [_OTHER_HOST], 0, layout.REASON_HTTP_REQUEST),
        ("HTTP: another path after a listed one", [_OK, _NOT_LISTED], len(_OK), layout.REASON_HTTP_REQUEST),
        ("TLS: hello for a listed name", [good], len(good), 0),
        ("TLS: the same in many records", [in_records(good, 50)], len(in_records(good, 50)), 0),
        ("TLS: hello for another name", [bad], 0, layout.REASON_TLS_SNI),
        ("neither HTTP nor TLS", [b"SSH-2.0-OpenSSH_9.2\r\n"], 0, layout.REASON_OPAQUE),
    ]
    seen = 0
    for step, pieces, arriving, reason in cases:
        ending = "passes" if arriving == sum(map(len, pieces)) else "cut"
        # All of it is waited for also where it must not come: a slow machine is no proof of a cut.
        expect(talker.arrived([(True, pieces)]), [arriving], f"{step}: {ending}")
        told = [each["reason"] for each in watch.events(PACKET_REFUSED, tgid=talker.tgid)]
        if reason:
            expect(set(told[seen:]), {reason}, f"{step}: told")
        seen = len(told)


def check_contents(watch: Watch) -> None:
    """All of them."""
    lab = ProfileLab(watch.kernel)
    with workload(watch, lab) as made:
        check_names(made)
    with pod_below(watch) as pod:
        lab.govern(lab.slot_for(pod.id), _judged(), generation=_GENERATION)
        with Talker(pod) as talker:
            check_payloads(watch, talker)
