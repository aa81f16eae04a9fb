# SPDX-License-Identifier: Apache-2.0
"""The draft: what was learned passes the kernel's rules, a stranger does not, and people can read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nsp.profiles import apply
from schemas.addresses import to_mapped
from schemas.profile.canonical import to_record
from schemas.profile.document import parse_profiles
from sensor.policy.decide import decide
from sensor.policy.layers import Flow, RuleTries
from sensor.policy.policy import Selection, union_of
from sensor.policy.profile import Program, compile_profile
from stream_apps.learn.completeness import Thresholds, judge
from stream_apps.learn.draft import Draft, DraftError, Wanted, draft
from stream_apps.learn.folding import network
from stream_apps.learn.profile_yaml import to_yaml
from tests.support.batches import Node, workload
from tests.support.learning import SHOP, WEB, learning, merged, node, pod, take

if TYPE_CHECKING:
    from pathlib import Path

    from stream_apps.learn.behaviour import Key
    from stream_apps.learn.draft import Place
    from stream_apps.learn.merged import Merged

HOST_UNIT = "host/web.service"


def written(found: Merged, wanted: Wanted | None = None) -> str:
    return to_yaml(draft(found, judge(found, Thresholds()), wanted or Wanted()))


def record_of(text: str) -> dict[str, Any]:
    (profile,) = parse_profiles(text.encode(), "draft")
    return to_record(profile, 1)


class Judge:
    """The kernel's decision by a drafted profile."""

    def __init__(self, text: str) -> None:
        compiled = compile_profile(record_of(text) | {"mode": "ENFORCE", "dry_run": False})
        self.policy = union_of([Selection(compiled)], 1)
        assert self.policy is not None
        self.tries = {each.content: RuleTries(each) for each in compiled.rule_sets(self.policy.rule_sets())}

    def passes(self, flow: Flow, path: str, script: str = "") -> bool:
        return decide(self.policy, flow, self.tries, Program(path, script)).outcome == "allowed"


def flows_of(key: Key) -> list[Flow]:
    """Flows that a behaviour stands for."""
    named = network(key.peer) is None
    peer = to_mapped("192.0.2.1" if named else key.peer.partition("/")[0])
    learned = frozenset({key.peer}) if named else frozenset()
    ports = {key.port, key.last_port}
    if key.kind == "EGRESS":
        return [Flow("out", key.protocol, peer, each, learned=learned) for each in ports]
    if key.kind == "INGRESS":
        return [Flow("in", key.protocol, peer, 40_000, key.port)]
    return []


def a_shop(on: Node) -> None:
    web = on.service(WEB, serving=False)
    on.listen(web, 8080)
    for number in range(100):
        on.add(
            "SocketAccept", web, cookie=1, local_address="10.1.0.1", local_port=8080,
            remote_address=f"10.{number}.0.9", remote_port=41000,
        )  # fmt: skip
    on.ask(web, "api.partner.example")
    on.ask(web, "api.partner.example.shop.svc.cluster.local")
    on.answer(web, "api.partner.example", ["198.51.100.7", "2001:db8::7"])
    on.connect(web, "198.51.100.7", 443)
    on.connect(web, "2001:db8::7", 443)
    on.send(web, "10.96.0.10", 53)
    for number in range(90):
        on.connect(web, f"10.3.0.{number}", 5432)
    for port in range(40_000, 40_100):
        on.send(web, "10.4.0.1", port)
    on.connect(web, "10.5.0.1", 0, protocol=1)
    report = on.spawn(web, "/usr/bin/python3.11", ["python3", "/app/report.py"])
    on.connect(report, "2001:db8:1::9", 25)
    idle = on.spawn(web, "/usr/bin/date")
    on.add("ProcessExit", idle, exit_status=0, signal=0)
    on.connect(on.spawn(web, "/usr/bin/nc.openbsd"), "203.0.113.66", 4444)


def shop(**sections: Any) -> Merged:
    through, on = learning(**sections), node()
    a_shop(on)
    take(through, on)
    return merged(through)


def test_all_that_was_learned_passes_and_strangers_do_not() -> None:
    found = shop()
    judge_of = Judge(written(found))
    flows = [(flow, key) for key in found.learned() for flow in flows_of(key)]
    assert len(flows) > 10
    assert [key for flow, key in flows if not judge_of.passes(flow, key.path, key.script)] == []
    stranger = Flow("out", 6, to_mapped("203.0.113.9"), 443)
    assert not judge_of.passes(stranger, WEB)
    assert not judge_of.passes(Flow("out", 6, to_mapped("10.3.0.1"), 22), WEB)
    assert not judge_of.passes(Flow("in", 6, to_mapped("10.7.0.9"), 41_000, 9090), WEB)
    assert not judge_of.passes(Flow("out", 6, to_mapped("203.0.113.66"), 4444), "/usr/bin/nc.openbsd")
    assert not judge_of.passes(Flow("out", 6, to_mapped("10.3.0.1"), 5432), "/usr/bin/date")
    assert not judge_of.passes(Flow("out", 6, to_mapped("10.3.0.1"), 5432), "/usr/bin/curl")
    unknown_name = Flow("out", 6, to_mapped("192.0.2.1"), 443, learned=frozenset({"evil.example"}))
    assert not judge_of.passes(unknown_name, WEB)


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([WEB, "/usr/bin/python3.11", "/opt/x y"]),
            st.sampled_from(["10.0.0.", "10.0.1.", "198.51.100.", "2001:db8::", "2001:db8:1::"]),
            st.integers(1, 120),
            st.sampled_from([22, 53, 80, 443, 40_000, 40_001, 65_535]),
            st.sampled_from([6, 17]),
        ),
        min_size=1,
        max_size=80,
    )
)
def test_whatever_is_learned_passes(done: list[tuple[str, str, int, int, int]]) -> None:
    through = learning(learn={"bounds": {"addresses": 6, "ephemeral_ports": 2}})
    on = node()
    images: dict[str, int] = {}
    for path, prefix, number, port, protocol in done:
        image = images.setdefault(path, on.service(path)) if path in images else on.service(path)
        on.connect(images.setdefault(path, image), f"{prefix}{number}", port, protocol)
    take(through, on)
    found = merged(through)
    judge_of = Judge(written(found))
    beyond = found.beyond["destinations"]
    refused = {
        (path, prefix, number, port, protocol)
        for path, prefix, number, port, protocol in done
        if not judge_of.passes(Flow("out", protocol, to_mapped(f"{prefix}{number}"), port), path)
    }
    assert len(refused) <= beyond


def test_a_draft_alerts_only_and_says_how_complete_it_is_with_evidence_for_each_rule() -> None:
    text = written(shop())
    record = record_of(text)
    assert (record["mode"], record["dry_run"]) == ("ALERT", True)
    assert (record["namespace"], record["name"]) == ("shop", "deployment-shop")
    assert record["pod_selector"]["match_labels"] == {"app": "shop"}
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert any("coverage" in line and "95 %" in line and "not seen" in line for line in head)
    assert any("Not to be enforced yet" in line for line in head)
    assert any("/usr/bin/date" in line for line in head)
    assert any("/usr/bin/nc.openbsd reached 203.0.113.66/32 on 4444/tcp" in line for line in head)
    for rule in ("api.partner.example", "10.3.0.0/26", "2001:db8:1::9/128", "8080", "32768-65535"):
        (line,) = [each for each in text.splitlines() if each.strip().lstrip("- ").split("  #")[0] == rule]
        assert "# first 20" in line
        assert "pod-hour" in line


def test_a_draft_is_what_apply_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "profile.yaml"
    file.write_text(written(shop()))
    apply([file], dry_run=True)
    assert capsys.readouterr().out == "shop/deployment-shop is valid\n"


def test_trusted_resolvers_are_named_as_such_and_reached_on_no_other_port() -> None:
    found = shop(correlate={"names": {"trusted_resolvers": ["10.96.0.0/24"]}})
    text = written(found, Wanted(resolvers=("10.96.0.0/24",)))
    assert record_of(text)["resolvers"] == ["10.96.0.10"]
    judge_of = Judge(text)
    assert judge_of.passes(Flow("either", 17, to_mapped("10.96.0.10"), 53, to_resolver=True), WEB)
    assert not judge_of.passes(Flow("out", 6, to_mapped("10.96.0.10"), 443), WEB)


def test_what_was_refused_is_in_no_rule_even_within_a_network() -> None:
    through, on = learning(), node()
    a_shop(on)
    take(through, on)
    on.refuse(on.service(WEB), "10.3.0.33", 5432, reason="ADDRESS")
    take(through, on)
    judge_of = Judge(written(merged(through)))
    assert judge_of.passes(Flow("out", 6, to_mapped("10.3.0.32"), 5432), WEB)
    assert not judge_of.passes(Flow("out", 6, to_mapped("10.3.0.33"), 5432), WEB)


def test_drift_is_left_out_and_told_unless_it_is_asked_for() -> None:
    found = shop()
    key = next(each for each in found.behaviours if each.peer == "2001:db8:1::9/128")
    found.behaviours[key].drift = True
    assert "left out" in written(found).lower()
    assert "2001:db8:1::9/128  #" not in written(found)
    assert "DRIFT" in next(
        line
        for line in written(found, Wanted(with_drift=True)).splitlines()
        if "2001:db8:1::9/128  #" in line
    )


def test_a_service_of_hosts_is_selected_by_its_unit_and_may_reach_itself() -> None:
    through = learning()
    on = Node(
        workloads=[workload("host/worker-1/web.service", unit="web.service", cgroup_path="/system.slice/w")]
    )
    on.connect(on.service(WEB, workload=0), "127.0.0.1", 9000)
    take(through, on)
    text = written(merged(through, HOST_UNIT))
    record = record_of(text)
    assert (record["scope"], [each["unit"] for each in record["services"]]) == ("NODE", ["web.service"])
    assert Judge(text).passes(Flow("out", 6, to_mapped("127.0.0.1"), 9000), WEB)
    assert not Judge(text).passes(Flow("out", 6, to_mapped("127.0.0.1"), 9001), WEB)


@pytest.mark.parametrize(
    ("records", "of", "why"),
    [
        ([pod(5)], "pod/0b9c1c52-7a0e-4c57-8a59-000000000000", "nsp.pods does not tell"),
        ([pod(0, labels={"pod-template-hash": "x"})], SHOP, "share no label"),
    ],
)
def test_what_no_profile_could_select_is_refused_with_the_reason(
    records: list[dict[str, Any]], of: str, why: str
) -> None:
    through, on = learning(*records), node()
    a_shop(on)
    take(through, on)
    with pytest.raises(DraftError, match=why):
        written(merged(through, of))


def test_hostile_text_stays_in_its_comment_and_its_scalar() -> None:
    through, on = learning(), node()
    hostile = "/tmp/x\n- evil: [*a"
    web = on.service(hostile)
    on.connect(web, "198.51.100.7", 443)
    on.connect(on.spawn(web, "/usr/bin/nc"), "203.0.113.9", 1)
    on.ask(web, "a.example\n# b")
    take(through, on)
    text = written(merged(through))
    (document,) = yaml.safe_load_all(text)
    # No profile can name such a path: it is left out, and said in a comment that stays one.
    assert "processes" not in document["spec"]
    assert record_of(text)["processes"] == []
    assert "Left out, no profile can name it" in text
    begins = ("#", "apiVersion", "kind", "metadata", "spec", " ")
    assert [line for line in text.splitlines() if not line.startswith(begins)] == []


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\n", "\r"])
def test_what_a_program_is_called_ends_no_comment(end: str) -> None:
    planted = f"/tmp/x{end}---{end}kind: SecurityProfile{end}"
    document = {"spec": {"processes": [{"path": "/usr/bin/a"}], "fqdns": ["b.example"]}}
    places: list[Place] = [("spec", "processes", "/usr/bin/a"), ("spec", "fqdns", "b.example")]
    text = to_yaml(Draft(document, (f"runs {planted}",), dict.fromkeys(places, planted)))
    assert list(yaml.safe_load_all(text)) == [document]
