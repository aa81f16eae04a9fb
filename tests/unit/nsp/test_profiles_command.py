# SPDX-License-Identifier: Apache-2.0
"""``nsp apply``, ``get`` and ``delete`` as a person runs them, without a broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from nsp.cli import app
from nsp.errors import FAILED, MISUSED, CommandError
from nsp.profile_files import load
from schemas.codec import MAX_PUBLISHED_PROFILE_BYTES
from schemas.profile.reading import MAX_FILE_BYTES
from tests.support.profile_texts import egress, profile

if TYPE_CHECKING:
    from pathlib import Path

# Port 1 of this machine: nothing answers there, and nobody is to be asked.
NOBODY = "127.0.0.1:1"
GOOD = profile("actions: [alert]")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "profile.yaml"
    path.write_text(GOOD)
    return path


def refused(*arguments: str, stdin: str | None = None) -> CommandError:
    with pytest.raises(CommandError) as error:
        CliRunner().invoke(app, arguments, catch_exceptions=False, input=stdin, env={"NSP_BROKERS": ""})
    return error.value


def test_a_dry_run_needs_no_broker(file: Path) -> None:
    for arguments, stdin in (
        (["-f", str(file)], None),
        (["-f", str(file.parent)], None),
        (["-f", "-"], GOOD),
    ):
        done = CliRunner().invoke(
            app, ["apply", "--dry-run", *arguments], input=stdin, env={"NSP_BROKERS": ""}
        )
        assert (done.exit_code, done.output) == (0, "default/test is valid\n")


@pytest.mark.parametrize(
    ("command", "exit_code", "said"),
    [
        (["apply", "-f", "{file}"], MISUSED, "--brokers or NSP_BROKERS says where Kafka is"),
        (["apply", "-f", "{file}/none"], FAILED, "Not a directory"),
        (["apply", "-f", "{empty}"], FAILED, "no .yaml, .yml, .json file in it"),
        (["get", "profiles", "-o", "xml", "--brokers", NOBODY], MISUSED, "table, yaml or json"),
        (["delete", "--brokers", NOBODY], MISUSED, "name profiles as NAMESPACE/NAME"),
        (["delete", "shop/web"], MISUSED, "--brokers or NSP_BROKERS says where Kafka is"),
    ],
)
def test_what_is_misused_is_said_before_anybody_is_asked(
    file: Path, tmp_path: Path, command: list[str], exit_code: int, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    error = refused(*(each.format(file=file, empty=tmp_path / "empty") for each in command))
    assert said in str(error)
    assert error.exit_code == exit_code


def test_every_problem_of_every_file_is_told_and_the_good_ones_are_not_sent(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD + "\n---\n" + GOOD)
    (tmp_path / "b.yaml").write_text(GOOD)
    (tmp_path / "c.yaml").write_text(profile("actions: [block]"))
    said = str(refused("apply", "-f", str(tmp_path), "--brokers", NOBODY))
    assert said.startswith("refused, nothing was sent:\n")
    assert "a.yaml: default/test is there twice; keep one" in said
    assert f"b.yaml: default/test is there and in {tmp_path / 'a.yaml'}; keep one" in said
    assert "c.yaml:5: spec.actions[0]" in said


def test_what_has_ended_is_not_applied_and_may_be_deleted(file: Path) -> None:
    file.write_text(profile("actions: [alert]\nexpiresAt: 2020-01-01T00:00:00Z"))
    said = str(refused("apply", "--dry-run", "-f", str(file)))
    assert "default/test: spec.expiresAt is over, so it would never be in force; give a later time" in said
    # Deleting needs its name only.
    assert list(load([file])) == ["default/test"]


def test_what_fits_no_message_is_refused_here(file: Path) -> None:
    names = [
        f"{number}{'-x' * 25}.{'y' * 60}.{'z' * 60}" for number in range(MAX_PUBLISHED_PROFILE_BYTES // 170)
    ]
    file.write_text(egress(f"fqdns: [{', '.join(names)}]"))
    assert f"larger than {MAX_PUBLISHED_PROFILE_BYTES} bytes" in str(
        refused("apply", "--dry-run", "-f", str(file))
    )


def test_a_file_without_end_is_read_no_further_than_needed() -> None:
    said = str(refused("apply", "--dry-run", "-f", "/dev/zero"))
    assert said.endswith(f"/dev/zero: larger than {MAX_FILE_BYTES} bytes; split it")


def test_what_no_sensor_could_compile_is_refused_here(file: Path) -> None:
    suffix = f"*.{'a' * 48}.example"
    file.write_text(profile(f"actions: [alert]\ndefault: {{egress: {{fqdns: ['{suffix}']}}}}"))
    said = str(refused("apply", "--dry-run", "-f", str(file)))
    assert f"{file}: default/test: default: name {suffix!r}: a suffix cannot begin with a label of 48" in said
    assert "list the names themselves" in said
    # Deleting needs its name only.
    assert list(load([file])) == ["default/test"]
