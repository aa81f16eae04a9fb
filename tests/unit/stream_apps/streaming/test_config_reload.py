# SPDX-License-Identifier: Apache-2.0
"""Watching the configuration: what is taken, what is refused, and how often it is said."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from stream_apps.config.file import fingerprint, load_all, rules_fingerprint
from stream_apps.pipeline import Pipeline
from stream_apps.sigma.loading import files_of
from stream_apps.streaming import config_reload
from stream_apps.streaming.config_reload import ConfigReload
from stream_apps.streaming.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stream_apps.config.file import Loaded

PATIENCE_S = 20.0


class Watched:
    """A file, a pipeline, and what watches the one for the other."""

    def __init__(self, file: Path, runner: asyncio.Runner) -> None:
        self.runner = runner
        file.write_text("respond: {dry_run: true}\n")
        self.file = file
        self.metrics = Metrics()
        loaded = load_all(file)
        self.pipeline = Pipeline(loaded.config)
        self.taken: list[Loaded] = []
        self.reload = ConfigReload(file, loaded, self.pipeline, self.metrics, self.taken.append)
        self.first = loaded.version

    def outcomes(self) -> dict[str, float]:
        return {
            name: self.metrics.config_loads.labels(name)._value.get()
            for name in ("taken", "refused", "needs_restart")
        }

    def figures(self) -> tuple[float, str]:
        return self.metrics.config_differs._value.get(), self.pipeline.version

    def watch_until(self, condition: Any) -> None:
        """Run the watch itself."""

        async def go() -> None:
            task = asyncio.create_task(self.reload.run())
            async with asyncio.timeout(PATIENCE_S):
                while not condition():  # noqa: ASYNC110 - figures have no event to wait for
                    await asyncio.sleep(0.01)
            task.cancel()

        self.runner.run(go())

    def look(self, *, asked: bool = False) -> None:
        """Read the file once."""
        self.runner.run(self.reload.reload(asked=asked))


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setattr(config_reload, "LOOK_S", 0.01)
    with structlog.testing.capture_logs(), asyncio.Runner() as runner:
        yield Watched(tmp_path / "stream.yaml", runner)


def test_a_file_that_moves_is_left_alone_until_it_holds_still(watched: Watched) -> None:
    assert [watched.reload._has_changed() for _ in range(3)] == [False, True, False]
    watched.file.write_text("respond: {dry")
    assert not watched.reload._has_changed()
    watched.file.write_text("respond: {dry_run: false}\n")
    assert [watched.reload._has_changed() for _ in range(3)] == [False, True, False]


def test_what_is_in_force_is_not_taken_again_unless_somebody_asks(watched: Watched) -> None:
    watched.look()
    watched.file.write_text(watched.file.read_text())
    watched.look()
    assert watched.outcomes() == {"taken": 0, "refused": 0, "needs_restart": 0}
    watched.reload.ask()
    watched.watch_until(lambda: watched.outcomes()["taken"] == 1)
    assert watched.figures() == (0, watched.first)


def test_a_refusal_is_told_once_and_over_when_the_file_is_the_one_in_force(watched: Watched) -> None:
    good = watched.file.read_text()
    watched.file.write_text("respond: {dry_run: 3}\n")
    for _ in range(3):
        watched.look()
    assert watched.outcomes()["refused"] == 1
    assert watched.figures() == (1, watched.first)
    watched.look(asked=True)
    assert watched.outcomes()["refused"] == 2
    watched.file.write_text(good)
    watched.look()
    assert watched.figures() == (0, watched.first)
    watched.file.unlink()
    watched.look()
    assert watched.outcomes()["refused"] == 3
    assert watched.taken == []


def test_a_directory_that_comes_later_is_found(watched: Watched, tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    watched.file.write_text(f"detect: {{sigma: {{directories: ['{rules}']}}}}\n")
    watched.watch_until(lambda: watched.outcomes()["refused"] == 1)
    rules.mkdir()
    watched.watch_until(lambda: watched.outcomes()["taken"] == 1)
    assert watched.figures()[0] == 0
    (rules / "a.yml").write_text("title: x\n")
    watched.watch_until(lambda: watched.outcomes()["taken"] == 2)
    assert len(watched.taken) == 2


def test_whatever_a_file_triggers_the_watch_goes_on(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("no")

    with monkeypatch.context() as patched:
        patched.setattr(config_reload, "load_all", broken)
        watched.file.write_text("respond: {dry_run: false}\n")
        watched.watch_until(lambda: watched.outcomes()["refused"] == 1)
        assert watched.figures() == (1, watched.first)
    watched.watch_until(lambda: watched.outcomes()["taken"] == 1)
    assert watched.figures() == (0, watched.taken[-1].version)


def test_a_swapped_link_above_a_file_changes_its_fingerprint(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text("same")
    (tmp_path / "data").symlink_to("one")
    (tmp_path / "f").symlink_to("data/f")
    before = fingerprint(tmp_path / "f")
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "data")
    assert fingerprint(tmp_path / "f") != before
    assert fingerprint(tmp_path / "absent") == fingerprint(tmp_path / "absent")


def test_a_mounted_config_map_has_each_rule_once(tmp_path: Path) -> None:
    (tmp_path / "..2026_11_23").mkdir()
    (tmp_path / "..2026_11_23" / "a.yml").write_text("x")
    (tmp_path / "..data").symlink_to("..2026_11_23")
    (tmp_path / "a.yml").symlink_to("..data/a.yml")
    assert [name for name, _ in files_of(tmp_path)] == [str(tmp_path / "a.yml")]
    before = rules_fingerprint([tmp_path])
    (tmp_path / "..2026_11_24").mkdir()
    (tmp_path / "..2026_11_24" / "a.yml").write_text("y")
    (tmp_path / "next").symlink_to("..2026_11_24")
    (tmp_path / "next").rename(tmp_path / "..data")
    assert rules_fingerprint([tmp_path]) != before
