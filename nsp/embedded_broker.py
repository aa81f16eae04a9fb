# SPDX-License-Identifier: Apache-2.0
"""A Kafka broker in one small process, for the demonstration and for quick tests.

It is the mock cluster inside the librdkafka that confluent-kafka bundles: the real protocol, one broker,
everything in memory and lost at its end. It has no admin interface, so every topic of the topic table is
created through its C interface before clients connect.

Output: the address on stdout and, with ``--address-file``, in a file that exists only when it is
complete. Failure: exit status 1 with the reason. It dies with the process that started it.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import confluent_kafka

from schemas.topics import TOPICS

if TYPE_CHECKING:
    from collections.abc import Mapping

_PRODUCER = 0  # rd_kafka_type_t
_ERROR_BYTES = 512
_BROKERS = 1
_REPLICAS = 1
_PR_SET_PDEATHSIG = 1


class EmbeddedBrokerError(Exception):
    """The mock cluster could not be started."""


class EmbeddedBroker:
    """A mock cluster within this process; it lives as long as the process."""

    def __init__(self, partitions: Mapping[str, int]) -> None:
        """Start it with these topics (name -> number of partitions)."""
        library = _librdkafka()
        error = ctypes.create_string_buffer(_ERROR_BYTES)
        handle = library.rd_kafka_new(_PRODUCER, library.rd_kafka_conf_new(), error, _ERROR_BYTES)
        if not handle:
            raise EmbeddedBrokerError(error.value.decode(errors="replace"))
        cluster = library.rd_kafka_mock_cluster_new(handle, _BROKERS)
        if not cluster:
            raise EmbeddedBrokerError("librdkafka refused to start its mock cluster")
        # A group starts when its first member is there: 3 s, else, in which others could join.
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)
        for name, count in partitions.items():
            if code := library.rd_kafka_mock_topic_create(cluster, name.encode(), count, _REPLICAS):
                raise EmbeddedBrokerError(f"topic {name} was refused with error {code}")
        self.bootstrap: str = library.rd_kafka_mock_cluster_bootstraps(cluster).decode()


def _librdkafka() -> ctypes.CDLL:
    """Open the library that confluent-kafka brought along; wheels keep it beside the package."""
    beside = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
    found = sorted(beside.glob("librdkafka*.so*"))
    try:
        library = ctypes.CDLL(str(found[0]) if found else "librdkafka.so.1")
    except OSError as error:
        raise EmbeddedBrokerError("confluent-kafka is not installed from its wheel") from error
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    library.rd_kafka_conf_new.restype = pointer
    library.rd_kafka_new.restype = pointer
    library.rd_kafka_new.argtypes = [number, pointer, text, ctypes.c_size_t]
    library.rd_kafka_mock_cluster_new.restype = pointer
    library.rd_kafka_mock_cluster_new.argtypes = [pointer, number]
    library.rd_kafka_mock_group_initial_rebalance_delay_ms.restype = None
    library.rd_kafka_mock_group_initial_rebalance_delay_ms.argtypes = [pointer, ctypes.c_int32]
    library.rd_kafka_mock_cluster_bootstraps.restype = text
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [pointer]
    library.rd_kafka_mock_topic_create.restype = number
    library.rd_kafka_mock_topic_create.argtypes = [pointer, text, number, number]
    return library


def _die_with(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent ends; end now if it already has."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def main() -> None:
    """Run the broker until a signal ends it."""
    _die_with(os.getppid())
    parser = argparse.ArgumentParser(
        prog="python -m nsp.embedded_broker", description="in-memory Kafka broker"
    )
    parser.add_argument("--address-file", type=Path, help="write host:port here once the broker is ready")
    address_file: Path | None = parser.parse_args().address_file
    ended = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ended)
    try:
        broker = EmbeddedBroker({topic.name: topic.partitions for topic in TOPICS.values()})
    except EmbeddedBrokerError as error:
        sys.exit(f"embedded broker: {error}")
    print(broker.bootstrap, flush=True)
    if address_file:
        partial = address_file.with_suffix(".partial")
        partial.write_text(broker.bootstrap)
        partial.rename(address_file)
    signal.sigwait(ended)


if __name__ == "__main__":
    main()
