# SPDX-License-Identifier: Apache-2.0
"""A running stream app goes over to another configuration, or stays with the one in force."""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.attacks import attack_batch
from tests.support.stream_process import StreamProcess
from tests.support.topic_io import read_all, read_records, write_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.kafka_broker import KafkaBroker

TIMEOUT_S = 60.0
OFF = "detect: {nsp.rce-egress: {enabled: false}}\n"
RULE_ID = "5c5e2c52-0000-4000-8000-000000000001"
RULE = f"""
title: curl is started
id: {RULE_ID}
status: test
logsource: {{category: process_creation, product: linux}}
detection:
  selection: {{Image|endswith: /curl}}
  condition: selection
level: high
"""


@pytest.fixture
def app(fresh_kafka: KafkaBroker, tmp_path: Path) -> Iterator[StreamProcess]:
    fresh_kafka.create_contract_topics()
    made = StreamProcess(tmp_path / "app", fresh_kafka.bootstrap)
    yield made
    made.kill()


class Attacks:
    """Attack after attack on one node, each followed until it is processed."""

    def __init__(self, app: StreamProcess) -> None:
        self._app = app
        self._number = 0

    def alerts(self) -> dict[str, dict[str, Any]]:
        """The alerts about one more attack, by rule."""
        self._number += 1
        before = len(self._told())
        done = processed(self._app)
        write_batches(self._app.bootstrap, [attack_batch("node", self._number)])
        wait(lambda: processed(self._app) > done, "the batch is processed", self._app)
        wait(lambda: self._app.metric("nsp_stream_output_queue ") == 0, "outputs are delivered", self._app)
        return {each["rule_id"]: each for each in self._told()[before:]}

    def _told(self) -> list[dict[str, Any]]:
        return [each for each in read_records(self._app.bootstrap, "nsp.alerts") if each["audit"] is None]


def processed(app: StreamProcess) -> float:
    return app.metric('nsp_stream_messages_total{outcome="processed",topic="nsp.events"}')


def wait(condition: Callable[[], object], what: str, app: StreamProcess) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}:\n{app.log_tail()}"
        time.sleep(0.1)


def version(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def in_force(app: StreamProcess, text: str) -> bool:
    return app.metric(f'nsp_stream_config_info{{version="{version(text)}"}}') == 1


def loads(app: StreamProcess, outcome: str) -> float:
    return app.metric(f'nsp_stream_config_loads_total{{outcome="{outcome}"}}')


def said(app: StreamProcess, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(each) for each in app.log.read_text().splitlines() if each.startswith("{")]
    return [each for each in lines if event in each.get("event", "")]


def test_the_next_event_is_judged_by_a_changed_file_and_a_wrong_one_changes_nothing(
    app: StreamProcess,
) -> None:
    app.start_and_wait()
    attacks = Attacks(app)
    first = app.text()
    alert = attacks.alerts()["nsp.rce-egress"]
    assert alert["config_version"] == version(first)
    assert in_force(app, first)

    app.more = OFF
    app.configure()
    wait(lambda: in_force(app, app.text()), "the file is in force", app)
    assert "nsp.rce-egress" not in attacks.alerts()
    assert loads(app, "taken") == 1
    assert app.metric("nsp_stream_config_since_seconds ") > time.time() - TIMEOUT_S

    good = app.text()
    app.config.write_text(good.replace("dry_run: false", "dry_run: maybe"))
    wait(lambda: loads(app, "refused") == 1, "the file is refused", app)
    assert app.metric("nsp_stream_config_differs ") == 1
    assert in_force(app, good)
    assert "nsp.rce-egress" not in attacks.alerts()
    (refusal,) = said(app, "configuration refused")
    assert refusal["reasons"][0].startswith(f"{app.config}:5: respond.dry_run: ")

    app.config.write_text(good)
    wait(lambda: app.metric("nsp_stream_config_differs ") == 0, "it is the one in force again", app)
    app.more = ""
    app.configure()
    wait(lambda: in_force(app, first), "the first is in force again", app)
    assert attacks.alerts()["nsp.rce-egress"]["config_version"] == version(first)
    assert app.health() == "ok"
    assert app.stop() == 0, app.log_tail()


def test_attacks_while_files_change_are_each_told_and_cut_once(app: StreamProcess) -> None:
    app.start_and_wait()
    attacks = 0
    for number in range(1, 5):
        batches = [attack_batch(f"node-{each % 5}", each // 5 + 1) for each in range(attacks, attacks + 100)]
        attacks += 100
        app.more = f"detect: {{repeat_after_s: {600 + number}, nsp.port-scan: {{ports: {15 + number}}}}}\n"
        app.configure()
        # Half of them twice, as after a rebalance: they lie on both sides of the change.
        write_batches(app.bootstrap, batches)
        write_batches(app.bootstrap, batches[50:])
        wait(lambda: in_force(app, app.text()), "the file is in force", app)
        write_batches(app.bootstrap, batches[50:])
    wait(lambda: processed(app) == 4 * 200, "all is processed", app)
    wait(lambda: app.metric("nsp_stream_output_queue ") == 0, "outputs are delivered", app)
    alerts = read_records(app.bootstrap, "nsp.alerts")
    ids = [each["id"] for each in alerts if each["rule_id"] == "nsp.rce-egress" and each["audit"] is None]
    assert len(ids) == len(set(ids)) == attacks
    keys = [each.key() for each in read_all(app.bootstrap, "nsp.enforcement") if b"/process/" in each.key()]
    assert len(keys) == len(set(keys)) == attacks
    assert len({each["config_version"] for each in alerts}) >= 4
    assert loads(app, "taken") == 4


def test_what_needs_a_restart_is_named_and_nothing_of_the_file_is_taken(app: StreamProcess) -> None:
    app.start_and_wait()
    attacks = Attacks(app)
    first = app.text()
    app.config.write_text(first.replace("group: nsp-stream", "group: other") + OFF)
    wait(lambda: loads(app, "needs_restart") == 1, "it is told", app)
    assert app.metric("nsp_stream_config_differs ") == 1
    (told,) = said(app, "needs a restart")
    assert told["reasons"] == ["kafka.group needs a restart"]
    alert = attacks.alerts()["nsp.rce-egress"]
    assert alert["config_version"] == version(first)


def test_a_swapped_link_as_kubernetes_mounts_a_config_map_is_seen_with_its_rules(
    app: StreamProcess, tmp_path: Path
) -> None:
    mount = tmp_path / "mount"
    more = f"detect: {{sigma: {{directories: ['{mount / 'rules'}']}}}}\n"

    def publish(name: str, text: str, rules: dict[str, str]) -> None:
        data = mount / f"..{name}"
        data.mkdir(parents=True)
        (data / "stream.yaml").write_text(text)
        (mount / "rules").mkdir(exist_ok=True)
        behind = mount / "rules" / f"..{name}"
        behind.mkdir()
        for file, content in rules.items():
            (behind / file).write_text(content)
        for place, target in ((mount, data), (mount / "rules", behind)):
            (place / "..next").symlink_to(target.name)
            (place / "..next").rename(place / "..data")
        if not (mount / "stream.yaml").is_symlink():
            (mount / "stream.yaml").symlink_to("..data/stream.yaml")
        for file in rules:
            if not (mount / "rules" / file).is_symlink():
                (mount / "rules" / file).symlink_to(f"..data/{file}")

    publish("one", app.text() + more, {"a.yml": RULE})
    app.given = mount / "stream.yaml"
    app.start_and_wait()
    attacks = Attacks(app)
    assert set(attacks.alerts()) >= {"nsp.rce-egress", f"sigma.{RULE_ID}"}
    assert said(app, "rule refused") == []
    text = app.text() + more + "  # other\n"
    text = text.replace("detect: {", "detect: {nsp.rce-egress: {enabled: false}, ")
    publish("two", text, {"a.yml": RULE.replace("/curl", "/nothing")})
    wait(lambda: in_force(app, text), "the link's new target is in force", app)
    wait(lambda: not attacks.alerts(), "neither rule matches", app)


def test_hanging_up_loads_again_and_arms_what_was_dismantled(app: StreamProcess) -> None:
    app.respond = (
        "  policies:\n"
        "    - name: new\n"
        "      rules: [nsp.rce-egress]\n"
        "      disarmer: {max_workloads: 9, max_trees: 1, new_for_s: 3600}\n"
    )
    app.start_and_wait()
    attacks = Attacks(app)
    assert attacks.alerts()["nsp.rce-egress"]["response"]["decision"] == "issued"
    assert attacks.alerts()["nsp.rce-egress"]["response"]["decision"] == "dismantled"
    app.hang_up()
    wait(lambda: loads(app, "taken") == 1, "it is loaded again", app)
    assert attacks.alerts()["nsp.rce-egress"]["response"]["decision"] == "issued"
