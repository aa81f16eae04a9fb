# SPDX-License-Identifier: Apache-2.0
"""Rules by their topic on a real Kafka: pushed by the command, judged by every stream app, withdrawn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.codec import decode_as, encode
from schemas.samples import load_samples
from schemas.signing import SigningKey
from tests.support.batches import Node
from tests.support.stream_process import StreamProcess
from tests.support.topic_io import read_all, write, write_batches

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.kafka_broker import KafkaBroker

ROOT = Path(__file__).parents[2]
WAIT_S = 30.0
RULE_ID = "5c5e2c52-7a0e-4c57-8a59-3d0c5be8f1aa"
RULE = f"""title: Curl runs
id: {RULE_ID}
level: high
logsource: {{category: process_creation, product: linux}}
detection:
  selection:
    Image|endswith: /curl
  condition: selection
"""
OF_OTHERS = RULE.replace("5c5e2c52", "5c5e2c53").replace("linux", "windows")


def nsp(bootstrap: str, *arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "nsp", "rules", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        env={**os.environ, "NSP_BROKERS": bootstrap, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == status, done.stderr
    return done.stdout or done.stderr


def wait_for(condition: Callable[[], bool], what: str, *apps: StreamProcess) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what + "\n".join(each.log_tail() for each in apps)
        time.sleep(0.05)


def rules_of(app: StreamProcess) -> float:
    return app.metric('nsp_stream_pipeline_size{stage="detect",table="sigma_rules"}')


def alerts(bootstrap: str) -> list[str]:
    values = [each.value() for each in read_all(bootstrap, "nsp.alerts")]
    found = [decode_as("Alert", each) for each in values if each]
    return [each["id"] for each in found if each["rule_id"] == f"sigma.{RULE_ID}"]


def curl(node: Node) -> dict[str, object]:
    node.spawn(node.service("/usr/sbin/cron", serving=False), "/usr/bin/curl", ["curl", "http://a"])
    return node.batch()


def test_a_rule_that_is_pushed_reaches_every_app_and_goes_when_it_is_withdrawn(
    fresh_kafka: KafkaBroker, tmp_path: Path
) -> None:
    broker = fresh_kafka
    broker.create_contract_topics()
    bootstrap = broker.bootstrap
    directory = tmp_path / "rules"
    directory.mkdir()
    (directory / "curl.yml").write_text(f"{RULE}---\n{OF_OTHERS}")
    key = SigningKey.generate()
    apps = [StreamProcess(tmp_path / name, bootstrap, key) for name in ("one", "two")]
    node = Node()
    try:
        for each in apps:
            each.start_and_wait()
        assert nsp(bootstrap, "push", str(directory)) == "1 pushed, 0 unchanged, 1 for other logs\n"
        wait_for(lambda: all(rules_of(each) == 1 for each in apps), "the rule in both", *apps)
        assert nsp(bootstrap, "push", str(directory)) == "0 pushed, 1 unchanged, 1 for other logs\n"
        write_batches(bootstrap, [curl(node)])
        wait_for(lambda: len(alerts(bootstrap)) == 1, "its alert", *apps)
        _bad_rules_change_nothing(bootstrap, directory, apps)
        nsp(bootstrap, "rm", RULE_ID)
        wait_for(lambda: all(rules_of(each) == 0 for each in apps), "withdrawn in both", *apps)
        assert nsp(bootstrap, "list", "-o", "json") == "[]\n"
        assert "is published" in nsp(bootstrap, "rm", RULE_ID, status=1)
        assert [each.stop() for each in apps] == [0, 0]
    finally:
        for each in apps:
            each.kill()


def _bad_rules_change_nothing(bootstrap: str, directory: Path, apps: list[StreamProcess]) -> None:
    (directory / "bad.yml").write_text(RULE.replace("Image", "Imag").replace("5c5e2c52", "5c5e2c54"))
    assert "bad.yml:7: refused" in nsp(bootstrap, "push", str(directory), status=1)
    (listed,) = json.loads(nsp(bootstrap, "list", "-o", "json"))
    assert (listed["id"], listed["title"], listed["text"]) == (RULE_ID, "Curl runs", RULE)
    assert RULE_ID in nsp(bootstrap, "list")
    # Past the command, by somebody who may write to the topic.
    (good,) = [each for each in load_samples("SigmaRule") if each.reason is None]
    bad = {**good.record(), "text": RULE.replace("Image", "Imag")}
    write(bootstrap, "nsp.rules", [(RULE_ID.encode(), encode("SigmaRule", bad))])
    wait_for(lambda: len(list(read_all(bootstrap, "nsp.dead-letter"))) == 1, "one letter, of one app", *apps)
    assert all(rules_of(each) == 1 for each in apps)
