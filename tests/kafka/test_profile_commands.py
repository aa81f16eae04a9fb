# SPDX-License-Identifier: Apache-2.0
"""``nsp apply``, ``get``, ``delete`` and ``explain`` on a real Kafka."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from schemas.topics import PROFILES
from tests.support.profile_texts import profile
from tests.support.topic_io import read_all

if TYPE_CHECKING:
    from tests.support.kafka_broker import KafkaBroker

ROOT = Path(__file__).parents[2]
EXAMPLES = str(ROOT / "examples" / "profiles")
NAMES = ["shop/alert-only", "shop/http-client", "shop/server"]
TIMEOUT_S = 60


def nsp(broker: KafkaBroker, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nsp", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd=ROOT,
        env={**os.environ, "NSP_BROKERS": broker.bootstrap, "PYTHONPATH": str(ROOT)},
        input=stdin,
    )


def done(broker: KafkaBroker, *arguments: str, stdin: str = "") -> str:
    result = nsp(broker, *arguments, stdin=stdin)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def broker(fresh_kafka: KafkaBroker) -> KafkaBroker:
    fresh_kafka.create_contract_topics()
    return fresh_kafka


def test_what_is_applied_is_got_as_it_is_and_applies_again_unchanged(broker: KafkaBroker) -> None:
    assert done(broker, "apply", "-f", EXAMPLES, "--dry-run").count("created (dry run)") == len(NAMES)
    assert not read_all(broker.bootstrap, PROFILES.name)
    assert done(broker, "apply", "-f", EXAMPLES).split("\n")[:-1] == [f"{name} created" for name in NAMES]
    for output in ("json", "yaml"):
        shown = done(broker, "get", "profiles", "-o", output)
        assert done(broker, "apply", "-f", "-", stdin=shown).count("unchanged") == len(NAMES)
    table = done(broker, "get", "profiles").split("\n")
    assert [line.split()[0] for line in table[1:-1]] == NAMES
    one = yaml.safe_load(done(broker, "get", "shop/server", "-o", "yaml"))
    one["spec"]["dryRun"] = True
    assert done(broker, "apply", "-f", "-", stdin=json.dumps(one)) == "shop/server configured\n"
    assert len(read_all(broker.bootstrap, PROFILES.name)) == len(NAMES) + 1


def test_what_is_refused_leaves_what_was_there(broker: KafkaBroker) -> None:
    good = profile("actions: [enforce]")
    done(broker, "apply", "-f", "-", stdin=good)
    before = done(broker, "get", "default/test", "-o", "yaml")
    wrong = f"{good.replace('enforce', 'alert')}\n---\n{profile('actions: [block]')}"
    refused = nsp(broker, "apply", "-f", "-", stdin=wrong)
    assert refused.returncode == 1
    assert refused.stderr.startswith("nsp: refused, nothing was sent:\n-:11: spec.actions[0]: ")
    assert done(broker, "get", "default/test", "-o", "yaml") == before
    assert len(read_all(broker.bootstrap, PROFILES.name)) == 1


def test_only_what_is_there_is_deleted(broker: KafkaBroker) -> None:
    done(broker, "apply", "-f", EXAMPLES)
    absent = nsp(broker, "delete", "shop/server", "shop/gone")
    assert (absent.returncode, absent.stdout) == (1, "")
    assert "there is no profile shop/gone; `nsp get profiles` lists them" in absent.stderr
    assert done(broker, "delete", "profile/shop/server", "shop/server") == "shop/server deleted\n"
    assert nsp(broker, "get", "shop/server").returncode == 1
    done(broker, "delete", "shop/alert-only", "shop/http-client")
    assert done(broker, "get", "profiles").count("\n") == 1
    again = nsp(broker, "delete", "-f", EXAMPLES)
    assert "there is no profile shop/alert-only, shop/http-client, shop/server" in again.stderr


def test_nobody_s_answer_is_said(broker: KafkaBroker) -> None:
    silent = nsp(broker, "apply", "-f", EXAMPLES, "--wait", "--timeout", "0.2")
    assert silent.returncode == 1
    assert (
        "no node answered within 0.2 s; is a stream app running, and does it select anything?"
        in silent.stderr
    )


def test_a_workload_nobody_knows_is_named(broker: KafkaBroker) -> None:
    unknown = nsp(broker, "explain", "shop/web-1", "--to", "10.0.0.1:80")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "no pod shop/web-1 is known" in unknown.stderr
