# SPDX-License-Identifier: Apache-2.0
"""The command as a person runs it: exit status, one line of error, no traceback."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.signing import SigningKey, VerifyingKeys

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 60
NOBODY_LISTENS = "127.0.0.1:1"


def nsp(*arguments: str, cwd: Path = ROOT, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NSP_")}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        [sys.executable, "-m", "nsp", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd=cwd,
        env=environment,
        input=stdin,
    )


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (["topics", "create", "--brokers", NOBODY_LISTENS], 1, NOBODY_LISTENS),
        (["tail", "nsp.nothing", "--brokers", NOBODY_LISTENS], 2, "nsp.nothing"),
        (["tail", "nsp.alerts", "--brokers", NOBODY_LISTENS, "--kafka-option", "x"], 2, "name=value"),
        (["inventory", "publish", "absent.yaml", "--brokers", NOBODY_LISTENS], 1, "absent.yaml"),
        (["config", "validate", "absent.yaml"], 1, "absent.yaml"),
        (["explain", "host", "--profiles", "absent"], 1, "absent: No such file"),
        (["explain", "host"], 2, "--profiles"),
        (["learn", "--brokers", NOBODY_LISTENS], 1, NOBODY_LISTENS),
        (["learn", "--config", "absent.yaml", "--brokers", NOBODY_LISTENS], 1, "absent.yaml"),
        (["quarantine", "nonsense", "--node", "n", "--key", "k", "--brokers", NOBODY_LISTENS], 2, "subject"),
        (
            ["release", "workload/w", "--node", "n", "--key", "absent.pem", "--brokers", NOBODY_LISTENS],
            2,
            "absent.pem",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str], status: int, named: str, tmp_path: Path
) -> None:
    done = nsp(*arguments, cwd=tmp_path)
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.startswith("nsp: ")
    assert named in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_option_is_a_misuse(tmp_path: Path) -> None:
    done = nsp("topics", "create", cwd=tmp_path)
    assert done.returncode == 2
    assert "--brokers" in done.stderr
    assert "Traceback" not in done.stderr


def test_keys_fit_each_other_and_the_private_one_is_private(tmp_path: Path) -> None:
    out = tmp_path / "keys"
    assert nsp("keys", "generate", "--out", str(out)).returncode == 0
    private, public = out / "enforcement.key.pem", out / "enforcement.pub.pem"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    key = SigningKey.from_file(private)
    assert VerifyingKeys.from_files([public]).verify(key.sign(b"payload")) == b"payload"


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    assert nsp("keys", "generate", "--out", str(tmp_path)).returncode == 0
    before = (tmp_path / "enforcement.key.pem").read_bytes()
    again = nsp("keys", "generate", "--out", str(tmp_path))
    assert again.returncode == 1
    assert "exists" in again.stderr
    assert (tmp_path / "enforcement.key.pem").read_bytes() == before


def test_topics_are_listed_without_a_broker() -> None:
    done = nsp("topics", "list")
    assert done.returncode == 0
    assert "nsp.enforcement-status" in done.stdout


def test_the_schema_of_the_configuration_is_json() -> None:
    done = nsp("config", "schema")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["properties"]


def test_a_module_of_the_current_directory_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "sensor.py").write_text("print('not the sensor')")
    done = nsp("sensor", "--help", cwd=tmp_path)
    assert "not the sensor" not in done.stdout
    assert "--brokers" in done.stdout


def test_unloading_where_nothing_is_pinned_is_done_at_once(tmp_path: Path) -> None:
    done = nsp("sensor", "unload", "--pin-directory", str(tmp_path / "none"))
    assert done.returncode == 0, done.stderr
    assert "nothing is pinned" in done.stdout
