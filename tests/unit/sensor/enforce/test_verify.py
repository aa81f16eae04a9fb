# SPDX-License-Identifier: Apache-2.0
"""Only a signed, readable order to this node and this boot is one."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import encode
from schemas.partition import partition_for
from schemas.signing import SigningKey, VerifyingKeys
from schemas.subject import enforcement_key
from sensor.enforce.errors import Refused
from sensor.enforce.order import MAX_DESTINATIONS, Order
from sensor.enforce.verify import Tombstone, Verifier

BOOT = "6f1d0c52-4a3e-4b5e-9a53-0c7de8a4b1f2"
OTHER_BOOT = "00000000-4a3e-4b5e-9a53-0c7de8a4b1f2"
NODE = "worker-1"
KEY = SigningKey.generate()
VERIFIER = Verifier(VerifyingKeys.from_pems([KEY.public_pem()]), NODE, BOOT, 6)
HERE = partition_for(NODE.encode(), 6)
NEIGHBOUR = next(f"n{i}" for i in range(99) if partition_for(f"n{i}".encode(), 6) == HERE)
STRANGER = next(f"n{i}" for i in range(99) if partition_for(f"n{i}".encode(), 6) != HERE)
PROCESS = f"process/{BOOT}/20/1020"


def fields(**changes: Any) -> dict[str, Any]:
    record = {
        "node": NODE, "subject": PROCESS, "generation": 1, "issued_at_ns": 100, "expires_at_ns": 200,
        "quarantined": True, "blocked_destinations": [], "alert_id": "", "reason": "", "evidence_boot_ns": 0,
    }  # fmt: skip
    return {**record, **changes}


def signed(**changes: Any) -> bytes:
    return KEY.sign(encode("Enforcement", fields(**changes)))


def refusal(key: bytes | None, value: bytes | None) -> Refused:
    with pytest.raises(Refused) as caught:
        VERIFIER.read(key, value)
    return caught.value


def test_a_good_order_is_read() -> None:
    order = VERIFIER.read(enforcement_key(NODE, PROCESS), signed())
    assert isinstance(order, Order)
    assert (str(order.subject), order.generation, order.quarantined) == (PROCESS, 1, True)


def test_a_neighbours_order_on_the_shared_partition_is_none_of_ours_whatever_it_holds() -> None:
    assert VERIFIER.read(enforcement_key(NEIGHBOUR, PROCESS), b"junk") is None


def test_another_nodes_order_that_does_not_belong_on_this_partition_is_foreign() -> None:
    assert refusal(enforcement_key(STRANGER, PROCESS), signed(node=STRANGER)).reason == "foreign"


def test_another_nodes_order_under_our_key_is_foreign() -> None:
    refused = refusal(enforcement_key(NODE, PROCESS), signed(node=NEIGHBOUR))
    assert (refused.reason, refused.subject) == ("foreign", PROCESS)


def test_the_signature_is_judged_before_the_content() -> None:
    bad = encode("Enforcement", fields(node="elsewhere", subject="nonsense"))
    assert refusal(enforcement_key(NODE, PROCESS), bad).reason == "unsigned"
    stranger = SigningKey.generate().sign(bad)
    assert refusal(enforcement_key(NODE, PROCESS), stranger).reason == "unknown-key"


def test_a_tombstone_is_told_from_an_order() -> None:
    found = VERIFIER.read(enforcement_key(NODE, PROCESS), None)
    assert isinstance(found, Tombstone)
    assert found.subject == PROCESS


DESTINATION = {"address": "203.0.113.9", "port": 80, "protocol": 6}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, signed()),
        (b"worker-1", signed()),
        (enforcement_key(NODE, "workload/x"), signed()),
        (enforcement_key(NODE, PROCESS), b""),
        (enforcement_key(NODE, PROCESS), KEY.sign(b"not avro")),
        (enforcement_key(NODE, PROCESS), KEY.sign(signed())),
        (enforcement_key(NODE, "process/1"), signed(subject="process/1")),
        (enforcement_key(NODE, PROCESS), signed(generation=0)),
        (enforcement_key(NODE, PROCESS), signed(expires_at_ns=100)),
        (enforcement_key(NODE, PROCESS), signed(blocked_destinations=[DESTINATION])),
    ],
)
def test_what_cannot_be_an_order_is_malformed(key: bytes | None, value: bytes) -> None:
    assert refusal(key, value).reason == "malformed"


@pytest.mark.parametrize(
    "destinations",
    [
        [{**DESTINATION, "port": 65536}],
        [{**DESTINATION, "port": -1}],
        [{**DESTINATION, "protocol": 0}],
        [{**DESTINATION, "protocol": 256}],
        [{**DESTINATION, "address": "evil.example"}],
        [
            {"address": f"10.0.{i // 256}.{i % 256}", "port": 0, "protocol": 0}
            for i in range(MAX_DESTINATIONS + 1)
        ],
    ],
)
def test_a_destination_the_kernel_could_not_hold_is_malformed(destinations: list[dict[str, Any]]) -> None:
    value = signed(subject="workload/pod", blocked_destinations=destinations)
    assert refusal(enforcement_key(NODE, "workload/pod"), value).reason == "malformed"


def test_a_process_of_another_boot_is_told_apart() -> None:
    subject = f"process/{OTHER_BOOT}/20/1020"
    assert refusal(enforcement_key(NODE, subject), signed(subject=subject)).reason == "other-boot"


@settings(max_examples=200)
@given(st.binary(max_size=60) | st.just(enforcement_key(NODE, PROCESS)), st.binary(max_size=200))
def test_whatever_comes_is_a_neighbours_or_refused(key: bytes, value: bytes) -> None:
    with suppress(Refused):
        assert VERIFIER.read(key, value) is None


def test_a_refusal_quotes_little_of_what_was_sent() -> None:
    long = "x" * 100_000
    for key, value in (
        (enforcement_key(long, PROCESS), signed()),
        (enforcement_key(NODE, f"workload/{long}"), signed()),
        (enforcement_key(NODE, PROCESS), signed(node=long)),
    ):
        refused = refusal(key, value)
        assert len(str(refused)) + len(refused.subject) < 1000
