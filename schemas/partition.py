# SPDX-License-Identifier: Apache-2.0
"""Which partition a key belongs to, as Java clients, aiokafka and librdkafka's ``murmur2_random`` have it.

Producers let their client do this from the message key. ``nsp.enforcement`` is the exception: it is
partitioned by node name, whatever the key, so that a sensor has to read one partition only.
"""

from __future__ import annotations

from typing import Final

_MASK: Final = 0xFFFFFFFF
_SEED: Final = 0x9747B28C
_FACTOR: Final = 0x5BD1E995
_SHIFT: Final = 24


def murmur2(data: bytes) -> int:
    """MurmurHash2, 32 bits, with Kafka's seed, as an unsigned number.

    Source: ``org.apache.kafka.common.utils.Utils.murmur2``, which returns the same bits signed.
    """
    value = (_SEED ^ len(data)) & _MASK
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        part = int.from_bytes(data[at : at + 4], "little") * _FACTOR & _MASK
        part = (part ^ part >> _SHIFT) * _FACTOR & _MASK
        value = value * _FACTOR & _MASK ^ part
    if whole != len(data):
        value = (value ^ int.from_bytes(data[whole:], "little")) * _FACTOR & _MASK
    value = (value ^ value >> 13) * _FACTOR & _MASK
    return value ^ value >> 15


def partition_for(key: bytes, partitions: int) -> int:
    """The partition of a key on a topic of so many partitions.

    Raises:
        ValueError: A topic without partitions.
    """
    if partitions < 1:
        raise ValueError(f"a topic has at least one partition, not {partitions}")
    return (murmur2(key) & 0x7FFFFFFF) % partitions
