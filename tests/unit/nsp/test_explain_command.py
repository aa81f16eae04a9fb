# SPDX-License-Identifier: Apache-2.0
"""``nsp explain`` on files, as a person runs it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from typer.testing import CliRunner

from nsp.errors import CommandError
from nsp.explain import app
from schemas.profile.canonical import to_document
from tests.support.profiles import TCP, application, network, process, profile, rules, service

if TYPE_CHECKING:
    from pathlib import Path

POD = {
    "uid": "6f3c1d2e-0000-4000-8000-000000000001",
    "namespace": "shop",
    "name": "web-1",
    "labels": {"app": "web"},
    "node": "n1",
    "ips": [],
    "containers": [],
}
API_POD = POD | {"uid": f"{POD['uid']}-2", "name": "api", "labels": {"app": "api"}}
PODS = (POD, API_POD)
SELECTOR = {"match_labels": {"app": "web"}, "match_expressions": []}
GET_V1, POST_IN = {"method": "GET", "uri": "/v1/*"}, {"method": "POST", "uri": "/in"}
WEB = profile(
    namespace="shop",
    pod_selector=SELECTOR,
    default=network(
        rules("10.0.0.0/8", names=("*.example.com",), ports=((TCP, 443, 443),)),
        rules("10.0.0.0/8", ports=((TCP, 8080, 8080),)),
    ),
    processes=[process("/usr/bin/curl")],
)
API = profile(
    "api",
    namespace="shop",
    pod_selector=SELECTOR | {"match_labels": {"app": "api"}},
    default=network(
        rules(
            "10.0.0.0/8",
            names=("*.example.com",),
            ports=((TCP, 80, 80), (TCP, 443, 443)),
            l7_given=application("DNS", "HTTP", "HTTPS", http=[GET_V1], sni=["login.example.org"]),
        ),
        rules("10.0.0.0/8", ports=((TCP, 80, 80),), l7_given=application("HTTP", http=[POST_IN])),
    ),
)
SSH = profile("ssh", namespace="host", scope="NODE", services=[service(unit="ssh.service")])


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    folder = tmp_path / "profiles"
    folder.mkdir()
    records = (WEB, API, SSH, profile("other", namespace="other"))
    (folder / "all.yaml").write_text(yaml.safe_dump_all(to_document(each) for each in records))
    pods = tmp_path / "pods.json"
    pods.write_text(
        json.dumps(
            {"pods": [each | dict.fromkeys(("owner_kind", "owner_name", "service_account")) for each in PODS]}
        )
    )
    return ["--profiles", str(folder), "--pods", str(pods)]


def explained(files: list[str], *arguments: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(app, [*arguments, *files, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.output.splitlines()]


def outcomes(files: list[str], *arguments: str) -> list[str]:
    return [each["verdict"]["outcome"] for each in explained(files, *arguments)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["shop/web-1", "--to", "10.1.2.3:443"], ["allowed"]),
        (["shop/web-1", "--to", "10.1.2.3:80"], ["refused"]),
        (["shop/web-1", "--to", "www.example.com:443"], ["allowed", "allowed"]),
        (["shop/web-1", "--to", "example.org:443"], ["refused", "refused"]),
        (["shop/web-1", "--to", "[2001:db8::1]:443"], ["refused"]),
        (["shop/web-1", "--to", "10.1.2.3:443", "--protocol", "udp"], ["refused"]),
        (["shop/web-1", "--to", "10.1.2.3:443", "--process", "/usr/bin/curl"], ["refused"]),
        (["shop/web-1", "--from", "10.1.2.3", "--port", "8080"], ["allowed"]),
        ([str(POD["uid"]), "--from", "192.0.2.1", "--port", "8080"], ["refused"]),
        (["ssh.service", "--from", "10.1.2.3", "--port", "22"], ["refused"]),
        (["shop/web-1", "--ask", "www.example.com"], ["allowed"]),
        (["shop/web-1", "--ask", "example.com."], ["refused"]),
        (["shop/web-1", "--ask", "www.example.com", "--to", "10.0.0.53:53"], ["refused"]),
        (["shop/web-1", "--ask", "www.example.com", "--from", "10.0.0.1"], ["refused"]),
        (["shop/web-1", "--ask", "www.example.com", "--from", "10.0.0.1", "--port", "8080"], ["refused"]),
        (["shop/web-1", "--listen", "8080"], ["allowed"]),
        (["shop/web-1", "--listen", "80"], ["refused"]),
        (["shop/web-1", "--to", "10.1.2.3", "--protocol", "icmp"], ["refused"]),
        (["shop/api", "--request", "GET http://www.example.com/v1/x?y"], ["allowed", "allowed"]),
        (["shop/api", "--request", "GET http://www.example.com:8080/v1/x"], ["allowed", "refused"]),
        (["shop/api", "--request", "GET http://www.example.com/v2"], ["allowed", "refused"]),
        (["shop/api", "--request", "GET http://www.example.com/v1/../v2"], ["allowed", "refused"]),
        (["shop/api", "--request", "GET http://other.example.com/v1/", "--to", "10.1.2.3:80"], ["allowed"]),
        (["shop/api", "--request", "GET http://example.org/v1/", "--to", "10.1.2.3:80"], ["refused"]),
        (["shop/api", "--request", "GET http://10.1.2.3/v1/"], ["allowed"]),
        (["shop/api", "--request", "POST http://api/in", "--from", "10.1.2.3", "--port", "80"], ["allowed"]),
        (["shop/api", "--request", "GET http://api/in", "--from", "10.1.2.3", "--port", "80"], ["refused"]),
        (["shop/api", "--sni", "login.example.org", "--to", "10.1.2.3:443"], ["allowed"]),
        (["shop/api", "--sni", "www.example.com"], ["allowed", "refused"]),
        (["shop/api", "--sni", "www.example.com", "--protocol", "udp", "--to", "10.1.2.3:443"], ["refused"]),
        (["shop/gone", "--unknown-workload", "deny", "--to", "10.1.2.3:443"], ["refused"]),
        (["shop/gone", "--unknown-workload", "alert", "--listen", "80"], ["alerted"]),
        (["shop/gone", "--unknown-workload", "allow", "--ask", "a.example"], ["allowed"]),
        (["nginx.service", "--from", "10.1.2.3", "--port", "22"], ["allowed"]),
        (["/system.slice/ssh.service", "--to", "10.1.2.3:1"], ["allowed"]),
        (["host", "--to", "10.1.2.3:443"], ["allowed"]),
    ],
)
def test_a_flow_is_answered_as_the_rules_of_its_workload_say(
    files: list[str], arguments: list[str], expected: list[str]
) -> None:
    assert outcomes(files, *arguments) == expected


def test_without_a_flow_the_profiles_are_shown(files: list[str]) -> None:
    (document,) = explained(files, "shop/web-1")
    assert [each["profile"] for each in document["profiles"]] == ["shop/web"]
    assert document["verdict"] is None


def test_text_names_the_rule(files: list[str]) -> None:
    done = CliRunner().invoke(app, ["shop/web-1", "--to", "10.1.2.3:443", *files])
    assert done.output.splitlines()[0] == "tcp to 10.1.2.3:443:"
    assert done.output.splitlines()[-1] == "allowed by shop/web"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shop/gone"], "no pod shop/gone is known"),
        (["shop/gone.1"], "no pod shop/gone.1 is known"),
        (["example.com"], "or a unit as ssh.service"),
        (["shop/web-1", "--to", "ex ample:80"], '"ex ample" is not a DNS name'),
        (["shop/web-1", "--to", "*.example.com:80"], "is many names"),
        (["shop/web-1", "--to", "[fe80::1%eth0]:80"], "has a zone"),
        (["shop/web-1", "--process", "curl"], '--process "curl" is not an absolute path'),
        (["shop/web-1", "--to", "10.1.2.3"], "is not HOST:PORT"),
        (["shop/web-1", "--to", "10.1.2.3:99999"], "is not HOST:PORT"),
        (["shop/web-1", "--from", "nonsense"], "--from"),
        (["shop/web-1", "--ask", "a.example", "--sni", "a.example"], "questions of their own"),
        (["shop/web-1", "--ask", "*.a.example"], "is many names"),
        (["shop/web-1", "--ask", "a.example", "--to", "10.0.0.1:80"], "is no DNS server"),
        (["shop/web-1", "--ask", "a.example", "--listen", "80"], "needs no --listen"),
        (["shop/web-1", "--request", "http://a.example/"], "--request"),
        (["shop/web-1", "--request", "GET https://a.example/"], "is none; write it like"),
        (["shop/web-1", "--request", "GET http://u@a.example/"], "is none; write it like"),
        (["shop/web-1", "--request", "GET http://a.example:x/"], "--request"),
        (["shop/web-1", "--sni", "a..b"], "--sni"),
        (["shop/web-1", "--script", "/x"], "--process"),
        (["shop/web-1", "--unknown-workload", "maybe"], "allow, alert or deny"),
        (["shop/web-1", "--port", "22"], "--from, which is not given"),
        (["shop/web-1", "--to", "10.1.2.3:1", "--protocol", "tpc"], "--protocol tpc"),
    ],
)
def test_what_is_not_understood_is_said(files: list[str], arguments: list[str], said: str) -> None:
    with pytest.raises(CommandError, match=re.escape(said)):
        CliRunner().invoke(app, [*arguments, *files], catch_exceptions=False)


def test_profiles_that_are_none_are_named(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "profiles" / "wrong.yaml").write_text("kind: Something\n")
    with pytest.raises(CommandError, match=r"wrong\.yaml:1: apiVersion"):
        CliRunner().invoke(app, ["host", *files], catch_exceptions=False)


def test_some_source_of_profiles_is_needed() -> None:
    with pytest.raises(CommandError, match="neither --brokers nor --profiles"):
        CliRunner().invoke(app, ["host"], catch_exceptions=False, env={"NSP_BROKERS": ""})


def test_a_name_is_asked_for_as_it_is_on_the_wire(files: list[str], tmp_path: Path) -> None:
    allowed = profile(
        "idn",
        namespace="shop",
        pod_selector=SELECTOR,
        default=network(rules(names=("xn--bcher-kva.example",))),
    )
    file = tmp_path / "idn.yaml"
    file.write_text(yaml.safe_dump(to_document(allowed)))
    given = ["--profiles", str(file), *files[2:]]
    assert outcomes(given, "shop/web-1", "--to", "B\u00fccher.example.:443") == ["allowed", "allowed"]
    assert outcomes(given, "shop/web-1", "--to", "bucher.example:443") == ["refused", "refused"]
