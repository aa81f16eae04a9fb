# SPDX-License-Identifier: Apache-2.0
"""``kill -9`` of the sensor in the middle of a profile's update: the old rules or the new ones, never a mix.

Two versions take turns, each allowing one of two servers and thousands of other networks, so that building
one takes a while. Somebody in the pod dials both servers all the time.
"""

from __future__ import annotations

import errno
import random
import time
from typing import TYPE_CHECKING, Any, Final

from schemas.codec import encode
from tests.support.profile_loop import (
    ALLOWED,
    ALLOWED_ADDRESS,
    KEY,
    OTHER_ADDRESS,
    PORT,
    RESOLVE_AND_CONNECT,
    ProfileLoop,
    profile,
    profile_loop,
)
from tests.support.profiles import network, rules
from tests.support.profiles import profile as record
from tests.support.topic_io import write

if TYPE_CHECKING:
    from pathlib import Path

    from demo.scene import Reader
    from tests.support.kafka_broker import KafkaBroker

ROUNDS: Final = 6
FILLING: Final = 20_000
# From the profile on the topic to the switch of the slot passes about as long.
LONGEST_DELAY_S: Final = 0.6
SETTLE_S: Final = 0.5
# Dials one, the other, and the first again: when the first says the same twice, it held in between as well.
PROBE = """
import errno, json, socket, struct, sys, time
def dial(address):
    with socket.socket() as calling:
        calling.settimeout(1)
        try:
            calling.connect((address, int(sys.argv[3])))
        except OSError as error:
            return error.errno or errno.ETIMEDOUT  # the rules changed while it was dialling
        calling.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return 0
while True:
    line = {"event": "dialled", "said": [dial(sys.argv[each]) for each in (1, 2, 1)]}
    print(json.dumps(line), flush=True)
    time.sleep(0.01)
"""


def version(number: int) -> dict[str, Any]:
    """Odd ones allow one server, even ones the other."""
    server = OTHER_ADDRESS if number % 2 else ALLOWED_ADDRESS
    filling = [f"{11 + number}.{each >> 8}.{each & 255}.0/24" for each in range(FILLING)]
    selector = {"match_labels": {"app": "client"}, "match_expressions": []}
    return record(
        "client",
        namespace="shop",
        generation=time.time_ns(),
        pod_selector=selector,
        default=network(rules(f"{server}/32", *filling)),
    )


def publish(loop: ProfileLoop, number: int) -> int:
    """Publish a version; its generation."""
    made = version(number)
    write(loop.scene.brokers, "nsp.profiles", [(KEY.encode(), encode("SecurityProfile", made))])
    generation: int = made["generation"]
    return generation


def wait_until_applied(loop: ProfileLoop, generation: int) -> None:
    loop.scene.wait(
        f"generation {generation}",
        lambda: any(each["profile_generation"] == generation for each in loop.statuses("APPLIED")),
    )


def start_probe(loop: ProfileLoop) -> Reader:
    probe = loop.scene.start("client", "-c", PROBE, ALLOWED_ADDRESS, OTHER_ADDRESS, str(PORT))
    loop.scene.wait("the probe", lambda: probe.has("dialled"))
    return probe


def mixed(probe: Reader) -> list[list[int]]:
    """What neither version says."""
    said = [each["said"] for each in list(probe.lines)]
    steady = [each for each in said if each[0] == each[2]]
    assert steady
    return [each for each in steady if sorted(each[:2]) != [0, errno.EPERM]]


def test_an_update_is_whole_or_not_at_all(fresh_kafka: KafkaBroker, tmp_path: Path) -> None:
    with profile_loop(fresh_kafka, tmp_path / "logs") as loop:
        wait_until_applied(loop, publish(loop, 0))
        probe = start_probe(loop)
        for number in range(1, ROUNDS + 1):
            newest = publish(loop, number)
            time.sleep(random.uniform(0, LONGEST_DELAY_S))
            loop.scene.kill("sensor")
            time.sleep(SETTLE_S)
            loop.scene.start_sensor()
            wait_until_applied(loop, newest)
            wanted = [errno.EPERM, 0, errno.EPERM] if number % 2 else [0, errno.EPERM, 0]
            loop.scene.wait(f"version {number}", lambda wanted=wanted: probe.lines[-1]["said"] == wanted)
        assert mixed(probe) == []


def test_a_profile_holds_while_the_sensor_is_dead(fresh_kafka: KafkaBroker, tmp_path: Path) -> None:
    with profile_loop(fresh_kafka, tmp_path / "logs") as loop:
        loop.apply(profile())
        loop.scene.kill("sensor")
        assert loop.python(RESOLVE_AND_CONNECT, ALLOWED, str(PORT), "50") == {"failed": []}
        assert loop.dial(OTHER_ADDRESS) == errno.EPERM
        probe = start_probe(loop)
        loop.scene.start_sensor()
        loop.scene.wait_until_sensor_is_healthy()
        time.sleep(2 * SETTLE_S)
        assert {each["said"][1] for each in list(probe.lines)} == {errno.EPERM}
        assert "ended" in loop.delete()
        assert loop.dial(OTHER_ADDRESS) == 0
