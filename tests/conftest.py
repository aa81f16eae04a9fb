# SPDX-License-Identifier: Apache-2.0
"""What every test may ask for, and which tests this machine cannot run.

Kernel tests are skipped where the kernel refuses BPF, with its reason in the summary. Kafka tests are
never skipped by themselves: a broker that cannot be had fails them, unless ``NSP_TEST_NO_KAFKA=1`` says
that this is known.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.support.kafka_broker import KafkaBroker

if TYPE_CHECKING:
    from collections.abc import Iterator

# How long an example takes says something about the machine, nothing about the code.
settings.register_profile("nsp", deadline=None)
settings.load_profile("nsp")

TESTS = Path(__file__).parent
KAFKA_FOLDERS = {"kafka", "e2e", "chaos"}
KERNEL_FOLDERS = {"kernel", "e2e", "chaos", "scenarios"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder and skip what this machine was said not to have."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in KERNEL_FOLDERS:
            item.add_marker("kernel")
        if folder in KAFKA_FOLDERS:
            item.add_marker("kafka")
        if folder == "chaos":
            item.add_marker("chaos")
    kernel_reason = _kernel_refusal() if any(item.get_closest_marker("kernel") for item in items) else None
    for item in items:
        if kernel_reason and item.get_closest_marker("kernel"):
            item.add_marker(pytest.mark.skip(reason=kernel_reason))
        if os.environ.get("NSP_TEST_NO_KAFKA") == "1" and item.get_closest_marker("kafka"):
            item.add_marker(pytest.mark.skip(reason="NSP_TEST_NO_KAFKA=1: no Kafka broker wanted"))


def _kernel_refusal() -> str | None:
    from sensor.kernel.support import check_support  # noqa: PLC0415 - unit tests alone do not touch the kernel

    return "; ".join(f"{problem.cause} ({problem.cure})" for problem in check_support()) or None


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """One real broker for the session. Topic names are fixed: a test that counts takes fresh_kafka."""
    yield from _running(tmp_path_factory.mktemp("kafka"))


@pytest.fixture
def fresh_kafka(tmp_path: Path) -> Iterator[KafkaBroker]:
    """A real broker of the test's own, empty, which it may stop, kill and start again."""
    yield from _running(tmp_path / "kafka")


def _running(directory: Path) -> Iterator[KafkaBroker]:
    broker = KafkaBroker(directory)
    broker.start()
    yield broker
    broker.kill()
