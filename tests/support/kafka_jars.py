# SPDX-License-Identifier: Apache-2.0
"""Get the jars of Apache Kafka once, from Maven Central, into the user's cache.

Input: ``kafka/pom.xml``. Output: a folder of jars, keyed by the content of that file, so a new version
is a new folder. Failure: ``KafkaUnavailableError`` with what is missing; tests that need a broker then
fail rather than pass unseen.

``python -m tests.support.kafka_jars`` fills the cache ahead of the first test.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

POM = Path(__file__).parent / "kafka" / "pom.xml"
# A cold resolve takes about 30 s on a slow line; beyond this the line is broken.
MAVEN_TIMEOUT_S = 600


class KafkaUnavailableError(Exception):
    """Java, Maven or the jars cannot be had on this machine."""


def cache_directory() -> Path:
    """The folder of the jars of exactly this pom."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nsp"
    return root / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"


def kafka_class_path() -> str:
    """The Java class path of the broker, downloading it first when the cache is empty."""
    target = cache_directory()
    if not target.is_dir():
        _fill(target)
    return ":".join(sorted(str(jar) for jar in target.glob("*.jar")))


def _fill(target: Path) -> None:
    """Resolve into a neighbour and rename: a folder that exists is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir():
            return
        partial = target.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        _run_maven(partial)
        partial.rename(target)


def _run_maven(directory: Path) -> None:
    if not shutil.which("mvn"):
        msg = "Maven is not installed, so Apache Kafka cannot be fetched: run tools/setup test"
        raise KafkaUnavailableError(msg)
    command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
    result = subprocess.run(
        [*command, f"-DoutputDirectory={directory}"],
        capture_output=True,
        text=True,
        timeout=MAVEN_TIMEOUT_S,
        check=False,
    )
    if result.returncode != 0:
        msg = f"Maven could not fetch Apache Kafka:\n{(result.stdout + result.stderr)[-2000:]}"
        raise KafkaUnavailableError(msg)


if __name__ == "__main__":
    try:
        kafka_class_path()
    except KafkaUnavailableError as error:
        sys.exit(str(error))
