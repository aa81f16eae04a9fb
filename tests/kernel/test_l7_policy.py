# SPDX-License-Identifier: Apache-2.0
"""HTTP requests and TLS server names by profile, on real connections, whole and in pieces."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from sensor.policy import layout
from sensor.publish.layout import HTTP_REQUEST, PACKET_REFUSED, TLS_HELLO
from tests.support.kernel_lab import Cgroup
from tests.support.payload_lab import (
    HERE,
    Talker,
    client_hello,
    in_records,
    one_by_one,
    with_extension,
)
from tests.support.profile_lab import ANY_ADDRESS, ProfileLab, network, traffic
from tests.support.profiles import application

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.kernel_watch import Seen, Watch

pytestmark = pytest.mark.kernel

NAMES = ["good.example", "*.wild.example"]
LISTED = [{"method": "GET", "uri": "/ok*"}, {"method": "POST", "uri": "/form"}, {"method": "", "uri": "/any"}]
REFUSED, ALERTED = 1, 2


def judged(*protocols: str, **given: Any) -> dict[str, Any]:
    """Network rules that compare requests, hosts and server names going out."""
    rules = {"http": LISTED, "sni": NAMES, **given}
    out = traffic(*ANY_ADDRESS, names=NAMES, l7=application(*protocols, **rules))
    return network(out, traffic(*ANY_ADDRESS))


def get(uri: str, *headers: str, host: str | None = "good.example", method: str = "GET") -> bytes:
    lines = [f"{method} {uri} HTTP/1.1", *([f"Host: {host}"] if host is not None else []), *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


GOOD, BAD = get("/ok/1", "Accept: */*"), get("/no")
HELLO, BAD_HELLO = client_hello("good.example"), client_hello("bad.example")


@pytest.fixture(scope="module")
def lab(watch: Watch) -> ProfileLab:
    return ProfileLab(watch.kernel)


@pytest.fixture
def pod(watch: Watch) -> Iterator[Cgroup]:
    path = watch.cgroup.path / "pod"
    path.mkdir()
    yield Cgroup(path)
    Cgroup(path).remove()


@pytest.fixture
def slot(lab: ProfileLab, pod: Cgroup) -> int:
    return lab.slot_for(pod.id)


@pytest.fixture
def talker(pod: Cgroup, slot: int) -> Iterator[Talker]:
    assert slot
    with Talker(pod) as started:
        yield started


def refusals(watch: Watch, talker: Talker) -> list[int]:
    return [seen["reason"] for seen in watch.events(PACKET_REFUSED, tgid=talker.tgid)]


def told(watch: Watch, talker: Talker, kind: int) -> list[Seen]:
    return watch.events(kind, tgid=talker.tgid)


ALLOWED_REQUESTS = [
    GOOD,
    get("/ok?x=/../", host="GOOD.Example:8080"),
    get("/any", host="a.b.wild.example", method="DELETE"),
    get("/ok", host=f"{HERE}:80"),
    get("/ok/.well-known/x"),
    get("/ok" + "y" * 3000, "Cookie: " + "z" * 3000),
    b"\r\nGET /ok HTTP/1.1\nHost:good.example\n\n",
    b"GET /ok HTTP/1.0\r\nhOST:\tgood.example \r\n\r\n",
    get("/form", "Content-Length: 11", method="POST") + b"GET /no\r\n\r\n" + GOOD,
    GOOD * 20,
]
REFUSED_REQUESTS = [
    BAD,
    get("/ok", method="POST"),
    get("/form", method="get"),
    get("/any2", method="PUT"),
    get("/ok", host="bad.example"),
    get("/ok", host="wild.example"),
    get("/ok", host="good.example."),
    get("/ok", host="x..good.example"),
    get("/ok", host="good.example@bad.example"),
    get("/ok", host="127.0.0.2"),
    get("/ok", host=""),
    get("/ok", host=None),
    get("/ok", "Host: bad.example"),
    get("/ok", "X: 1", " Host: bad.example"),
    get("/ok", "Host : bad.example"),
    get("/ok/../no"),
    get("/ok/./no"),
    get("/ok/%2E%2e/no"),
    get("/ok/..%2fno"),
    get("/ok%5c..%5Cno"),
    get("/ok/..;/no"),
    get("/ok\\..\\no"),
    get("/ok/.."),
    get("http://good.example/ok"),
    b"GET  /ok HTTP/1.1\r\nHost: good.example\r\n\r\n",
    b"GET\t/no HTTP/1.1\r\nHost: good.example\r\n\r\n",
    b"GET /ok\r\n",
    b"GET /ok HTTP/1.1\rX\nHost: good.example\r\n\r\n",
    b"GET /ok HTTP/2.0\r\nHost: good.example\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    get("/form", "Content-Length: 5", "Content-Length: 6", method="POST") + b"12345",
    get("/form", "Content-Length: 5", "Transfer-Encoding: chunked", method="POST") + b"12345",
    get("/form", "Content-Length: 5x", method="POST") + b"12345",
    GOOD + BAD,
    get("/form", "Content-Length: 4", method="POST") + b"1234" + BAD,
    get("/any", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    get("/any", "Upgrade: h2c") + GOOD,
    get("/any", method="CONNECT") + b"x",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"\x80\x2e\x01\0\2",
]


def in_pieces(said: bytes, split: str) -> list[bytes]:
    if split == "bytes":
        return [*one_by_one(said[:600]), said[600:]]
    return [said] if split == "whole" else [said[: len(said) // 2], said[len(said) // 2 :]]


@pytest.mark.parametrize("split", ["whole", "halves", "bytes"])
def test_requests_pass_as_they_are_listed_however_they_are_cut_up(
    lab: ProfileLab, slot: int, talker: Talker, split: str
) -> None:
    lab.govern(slot, judged())
    cases = [(True, said) for said in ALLOWED_REQUESTS] + [(False, said) for said in REFUSED_REQUESTS]
    arrived = talker.arrived([(passes, in_pieces(said, split)) for passes, said in cases])
    wrong = [
        (said[:80], count)
        for (passes, said), count in zip(cases, arrived, strict=True)
        if passes != (count == len(said))
    ]
    assert wrong == []


def test_server_names_pass_as_they_are_listed_however_they_are_cut_up(
    lab: ProfileLab, slot: int, talker: Talker
) -> None:
    lab.govern(slot, judged())
    large = client_hello("a.wild.example", protocols=[f"protocol-{number}" for number in range(200)])
    assert len(large) > 2048
    retried = b"\x14\3\3\0\1\1"
    for name, hello, passes in [
        ("listed", HELLO, True),
        ("wildcard", client_hello("A.Wild.Example"), True),
        ("large", large, True),
        ("records", in_records(HELLO, 7), True),
        ("goes on", HELLO + retried + b"\x17\3\3\0\5hello" + b"x" * 3000, True),
        ("asked again", HELLO + retried + HELLO, True),
        ("other", BAD_HELLO, False),
        ("other in records", in_records(BAD_HELLO, 1), False),
        ("none", client_hello(None), False),
        ("another when asked again", HELLO + retried + BAD_HELLO, False),
        ("encrypted hello", with_extension(HELLO, 0xFE0D, b"\0" * 32), False),
        ("twice", with_extension(HELLO, 0, b"\0\x0e\0\0\x0bbad.example"), False),
        ("no hello", b"\x16\3\1\0\5hello", False),
    ]:
        halves = [hello[: len(hello) // 2], hello[len(hello) // 2 :]]
        for pieces in ([hello], halves, [*one_by_one(hello[:700]), hello[700:]]):
            assert talker.passes(*pieces, expected=passes) == passes, (name, len(pieces))


def test_the_piece_that_completes_what_is_refused_is_dropped_and_all_after_it(
    watch: Watch, lab: ProfileLab, slot: int, talker: Talker
) -> None:
    lab.govern(slot, judged(), generation=21)
    counts = talker.arrived([(False, [GOOD, BAD, GOOD]), (False, [BAD[:10], BAD[10:], GOOD])])
    assert counts == [len(GOOD), 10]
    seen = [(each["verdict"], each["reason"], each["generation"]) for each in
            watch.events(PACKET_REFUSED, tgid=talker.tgid)]  # fmt: skip
    assert seen == [(REFUSED, layout.REASON_HTTP_REQUEST, 21)] * 2
    assert lab.maps.policy_counters(slot).by_reason[layout.REASON_HTTP_REQUEST] == 2


def test_what_was_said_is_told_with_its_verdict(
    watch: Watch, lab: ProfileLab, slot: int, talker: Talker
) -> None:
    lab.govern(slot, judged(), generation=22)
    assert talker.passes(get("/ok/" + "a" * 300, host="Good.Example:80"))
    assert not talker.passes(get("/ok/../no"), expected=False)
    assert talker.passes(HELLO)
    assert not talker.passes(BAD_HELLO, expected=False)
    first, second = told(watch, talker, HTTP_REQUEST)
    assert (first["verdict"], first["reason"], first["uri_bytes"], first["seen"]) == (0, 0, 304, 0)
    assert first.strings["host"][: first["host_bytes"]] == b"good.example"
    assert first.strings["method"].rstrip(b"\0") == b"GET"
    assert first.strings["uri"] == b"/ok/" + b"a" * 232
    assert (second["verdict"], second["reason"], second["seen"], second["generation"]) == (
        REFUSED, layout.REASON_HTTP_REQUEST, 4, 22,
    )  # fmt: skip
    names = [seen.strings["name"][: seen["name_bytes"]] for seen in told(watch, talker, TLS_HELLO)]
    assert names == [b"good.example", b"bad.example"]
    assert [seen["verdict"] for seen in told(watch, talker, TLS_HELLO)] == [0, REFUSED]


def test_what_only_alerts_passes_and_is_told(
    watch: Watch, lab: ProfileLab, slot: int, talker: Talker
) -> None:
    lab.govern(slot, judged(), mode=layout.MODE_ALERT, generation=23)
    assert talker.passes(BAD, GOOD, BAD)
    assert talker.passes(BAD_HELLO, b"\x17\3\3\0\1x")
    assert talker.passes(b"SSH-2.0-x\r\n", b"more")
    verdicts = [(seen["verdict"], seen["reason"]) for seen in told(watch, talker, HTTP_REQUEST)]
    alerted = (ALERTED, layout.REASON_HTTP_REQUEST)
    assert verdicts == [alerted, (0, 0), alerted]
    assert set(refusals(watch, talker)) == {
        layout.REASON_HTTP_REQUEST, layout.REASON_TLS_SNI, layout.REASON_OPAQUE,
    }  # fmt: skip


def test_protocols_that_are_not_listed_are_refused(
    watch: Watch, lab: ProfileLab, slot: int, talker: Talker
) -> None:
    lab.govern(slot, judged("HTTP", sni=[]))
    assert talker.passes(GOOD)
    assert not talker.passes(HELLO, expected=False)
    lab.govern(slot, judged("HTTPS", http=[]))
    assert talker.passes(HELLO)
    assert not talker.passes(GOOD, expected=False)
    assert refusals(watch, talker) == [layout.REASON_L7_PROTOCOL] * 2


def test_what_cannot_be_read_is_for_the_profile_to_decide_and_is_counted(
    watch: Watch, lab: ProfileLab, slot: int, talker: Talker
) -> None:
    unreadable = [
        [b"SSH-2.0-x\r\n", b"more"],
        [get("/any", "Upgrade: websocket"), b"\x81\x05hello"],
        [get("/any", "Transfer-Encoding: chunked"), b"5\r\nhello\r\n0\r\n\r\n"],
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
        [with_extension(BAD_HELLO, 0xFE0D, b"\0" * 32)],
        [get("/ok", "Cookie: " + "c" * 9000)],
    ]
    for opaque in (True, False):
        lab.govern(slot, judged(opaque=opaque))
        for pieces in unreadable:
            assert talker.passes(*pieces, expected=opaque) == opaque, pieces
    assert watch.counted()["l7_opaque"] >= 2 * (len(unreadable) - 1)
    assert watch.counted()["l7_too_long"] >= 2
    # A rule about requests is not lifted by letting unreadable payloads pass.
    lab.govern(slot, judged(opaque=True))
    assert not talker.passes(BAD, expected=False)
    assert not talker.passes(b"GET /no\r\n", expected=False)
    assert not talker.passes(BAD_HELLO, expected=False)


def test_one_profile_that_passes_a_request_is_enough(lab: ProfileLab, slot: int, talker: Talker) -> None:
    first = lab.ruleset(judged(http=[{"method": "GET", "uri": "/first"}]))
    second = lab.ruleset(judged(http=[{"method": "GET", "uri": "/second"}]))
    lab.switch(slot, lab.policy([first, second]))
    assert talker.passes(get("/first"), get("/second"), get("/first"))
    assert not talker.passes(get("/third"), expected=False)
    anything = lab.ruleset(network(traffic(*ANY_ADDRESS), traffic(*ANY_ADDRESS)))
    lab.switch(slot, lab.policy([first, anything]))
    assert talker.passes(get("/third"), b"and whatever else")


def test_what_comes_in_is_judged_on_accepted_connections(
    watch: Watch, lab: ProfileLab, slot: int, talker: Talker
) -> None:
    into = traffic(*ANY_ADDRESS, l7=application("HTTP", http=LISTED))
    lab.govern(slot, network(traffic(*ANY_ADDRESS), into))
    for address in (HERE, "::1"):
        assert talker.passes(GOOD, get("/ok", host="any.name.at.all"), address=address)
        assert talker.passes(*one_by_one(GOOD), address=address)
        assert not talker.passes(BAD, expected=False, address=address)
        assert not talker.passes(GOOD, BAD[:9], BAD[9:], expected=False, address=address)
        assert not talker.passes(HELLO, expected=False, address=address)
    assert {seen["direction"] for seen in told(watch, talker, HTTP_REQUEST)} == {1}


# The last packet of the handshake waits for data, as servers like it.
_DEFERRED = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
listener.settimeout(3)
print(listener.getsockname()[1], flush=True)
for line in sys.stdin:
    try:
        accepted, _ = listener.accept()
        accepted.settimeout(0.5)
        data = b""
        while len(data) < int(line):
            data += accepted.recv(4096)
    except TimeoutError:
        data = b""
    print(len(data), flush=True)
"""


@pytest.mark.parametrize(
    ("pieces", "passes"),
    [([GOOD], True), ([GOOD[:9], GOOD[9:]], True), ([GOOD, GOOD], True), ([BAD], False),
     ([BAD[:5], BAD[5:]], False), ([GOOD, BAD], False)],
)  # fmt: skip
def test_data_that_a_listener_gets_before_there_is_a_connection_is_judged_too(
    lab: ProfileLab, slot: int, pod: Cgroup, pieces: list[bytes], passes: bool
) -> None:
    into = traffic(*ANY_ADDRESS, l7=application("HTTP", http=LISTED))
    lab.govern(slot, network(traffic(*ANY_ADDRESS), into))
    server = pod.python(_DEFERRED)
    try:
        assert server.stdin
        assert server.stdout
        with socket.create_connection((HERE, int(server.stdout.readline()))) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                client.sendall(piece)
            server.stdin.write(f"{sum(map(len, pieces))}\n")
            server.stdin.flush()
            assert (int(server.stdout.readline()) == sum(map(len, pieces))) == passes
    finally:
        server.kill()
        server.communicate()


# Connects, says one thing, and goes on with another when told.
_KEPT_OPEN = """
import socket, sys
client = socket.create_connection((sys.argv[1], int(sys.argv[2])))
for line in sys.stdin:
    client.sendall(bytes.fromhex(line))
    print("said", flush=True)
"""


def test_a_new_policy_judges_what_was_said_and_what_nobody_read(
    watch: Watch, lab: ProfileLab, slot: int, pod: Cgroup
) -> None:
    cases = [
        (judged(), GOOD, judged(http=[]), BAD, True),
        (judged(), GOOD, judged(), GOOD, True),
        (judged(), GOOD, judged(http=[{"method": "", "uri": "/other"}]), GOOD, False),
        (judged(), HELLO, judged(sni=["other.example"]), b"\x17\3\3\0\1x", False),
        (judged(), HELLO + b"\x17\3\3\0\1x", judged(sni=["other.example"]), b"\x17\3\3\0\1x", False),
        (judged(), HELLO + b"\x17\3\3\0\1x", judged(), b"\x17\3\3\0\1x", True),
        # Rules that come later cannot know what went before.
        (network(traffic(*ANY_ADDRESS)), GOOD, judged(), GOOD, False),
        (network(traffic(*ANY_ADDRESS)), GOOD, judged(opaque=True), GOOD, True),
    ]
    with socket.create_server((HERE, 0)) as listener:
        listener.settimeout(5)
        for number, (before, first, after, second, passes) in enumerate(cases):
            lab.govern(slot, before)
            client = pod.python(_KEPT_OPEN, HERE, str(listener.getsockname()[1]))
            try:
                accepted, _ = listener.accept()
                assert client.stdin
                assert client.stdout
                for piece, arrives in ((first, True), (second, passes)):
                    accepted.settimeout(5 if arrives else 0.3)
                    client.stdin.write(piece.hex() + "\n")
                    client.stdin.flush()
                    assert client.stdout.readline() == "said\n"
                    try:
                        got = accepted.recv(8192)
                    except TimeoutError:
                        got = b""
                    assert got == (piece if arrives else b""), number
                    lab.govern(slot, after)
                accepted.close()
            finally:
                client.kill()
                client.communicate()
    assert watch.counted()["l7_opaque"]


def test_datagrams_are_unreadable_quic_among_them(
    watch: Watch, lab: ProfileLab, slot: int, pod: Cgroup
) -> None:
    quic = "c0 00 00 00 01 08 0001020304050607"
    code = (
        "import socket, sys\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"try:\n s.sendto(bytes.fromhex('{quic}') * 80, ('127.0.0.1', 443))\n"
        "except PermissionError:\n sys.exit(7)\n"
    )
    for opaque, status in ((False, 7), (True, 0)):
        lab.govern(slot, judged(opaque=opaque), generation=31 + opaque)
        assert subprocess.run(pod.command(sys.executable, "-c", code), check=False).returncode == status
    reasons = [seen["reason"] for seen in watch.events(PACKET_REFUSED) if seen["generation"] == 31]
    assert reasons == [layout.REASON_OPAQUE]


def test_a_large_upload_goes_through_and_the_next_request_is_found_behind_it(
    lab: ProfileLab, slot: int, talker: Talker
) -> None:
    lab.govern(slot, judged())
    body = b"GET /no HTTP/1.1\r\n\r\n" * 150_000
    upload = get("/form", f"Content-Length: {len(body)}", method="POST") + body
    # Sent before the other end reads: as much as fits into the sockets' buffers.
    assert talker.passes(upload[:1_500_000], expected=True)
    small = upload[: 400_000 + len(upload) - len(body)].replace(b"3000000", b" 400000")
    assert talker.passes(small, GOOD)
    assert not talker.passes(small, BAD, expected=False)
