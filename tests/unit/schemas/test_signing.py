# SPDX-License-Identifier: Apache-2.0
"""Only what a trusted key signed, byte for byte, is obeyed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import decode_as, encode
from schemas.errors import KeyFileError, SignatureRefused
from schemas.signing import SigningKey, VerifyingKeys

if TYPE_CHECKING:
    from pathlib import Path

KEY = SigningKey.generate()
TRUSTED = VerifyingKeys.from_pems([KEY.public_pem()])
PAYLOAD = b"\xc3\x01payload"


def refusal(data: bytes, trusted: VerifyingKeys = TRUSTED) -> str:
    with pytest.raises(SignatureRefused) as caught:
        trusted.verify(data)
    return caught.value.reason


def changed(**fields: object) -> bytes:
    return encode("SignedEnforcement", {**decode_as("SignedEnforcement", KEY.sign(PAYLOAD)), **fields})


@given(st.binary(max_size=200))
def test_what_was_signed_comes_back_byte_for_byte(payload: bytes) -> None:
    assert TRUSTED.verify(KEY.sign(payload)) == payload


def test_a_sensor_that_trusts_two_keys_obeys_both() -> None:
    new = SigningKey.generate()
    both = VerifyingKeys.from_pems([KEY.public_pem(), new.public_pem()])
    assert both.key_ids == {KEY.key_id, new.key_id}
    assert both.verify(KEY.sign(PAYLOAD)) == PAYLOAD
    assert both.verify(new.sign(PAYLOAD)) == PAYLOAD


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (changed(payload=PAYLOAD + b"x"), "bad-signature"),
        (changed(signature=bytes(64)), "bad-signature"),
        (
            changed(signature=decode_as("SignedEnforcement", KEY.sign(PAYLOAD))["signature"][:63]),
            "bad-signature",
        ),
        (changed(signature=b""), "unsigned"),
        (changed(key_id=""), "unknown-key"),
        (SigningKey.generate().sign(PAYLOAD), "unknown-key"),
        (KEY.sign(PAYLOAD)[:-1], "malformed"),
        (KEY.sign(PAYLOAD) + b"x", "malformed"),
        (b"", "malformed"),
        (b'{"quarantined": true}', "malformed"),
    ],
    # Keys and signatures are new in each run; names of tests must not be.
    ids=[
        "another payload",
        "another signature",
        "a short signature",
        "no signature",
        "no key",
        "another key",
        "a byte less",
        "a byte more",
        "nothing",
        "JSON",
    ],
)
def test_anything_else_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    assert refusal(data) == reason


def test_a_bare_enforcement_is_unsigned_and_another_record_malformed() -> None:
    enforcement = {
        "node": "n", "subject": "workload/x", "generation": 1, "issued_at_ns": 1, "expires_at_ns": 2,
        "quarantined": True, "blocked_destinations": [], "alert_id": "", "reason": "", "evidence_boot_ns": 0,
    }  # fmt: skip
    assert refusal(encode("Enforcement", enforcement)) == "unsigned"
    letter = {"topic": "t", "partition": 0, "offset": 0, "stage": "s", "reason": "r", "failed_at_ns": 0}
    assert refusal(encode("DeadLetter", letter)) == "malformed"


def test_another_keys_signature_under_a_trusted_key_id_is_refused() -> None:
    forged = decode_as("SignedEnforcement", SigningKey.generate().sign(PAYLOAD))
    assert refusal(encode("SignedEnforcement", {**forged, "key_id": KEY.key_id})) == "bad-signature"


def test_a_signature_made_for_another_purpose_is_refused() -> None:
    private = serialization.load_pem_private_key(KEY.to_pem(), password=None)
    assert isinstance(private, ed25519.Ed25519PrivateKey)
    assert refusal(changed(signature=private.sign(PAYLOAD))) == "bad-signature"


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, len(KEY.sign(PAYLOAD)) - 1), bit=st.integers(0, 7))
def test_no_single_bit_can_change(at: int, bit: int) -> None:
    data = bytearray(KEY.sign(PAYLOAD))
    data[at] ^= 1 << bit
    assert refusal(bytes(data)) in {"malformed", "unknown-key", "bad-signature", "unsigned"}


def test_the_key_id_is_the_digest_of_the_raw_public_key() -> None:
    public = serialization.load_pem_public_key(KEY.public_pem())
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    assert KEY.key_id == hashlib.sha256(raw).hexdigest()[:16]
    assert SigningKey.from_pem(KEY.to_pem()).key_id == KEY.key_id


def test_a_key_file_that_will_not_do_is_named_with_the_reason(tmp_path: Path) -> None:
    text = tmp_path / "text.pem"
    text.write_text("hello")
    other = tmp_path / "ec.pem"
    curve = ec.generate_private_key(ec.SECP256R1())
    pkcs8 = serialization.PrivateFormat.PKCS8
    other.write_bytes(curve.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption()))
    public = tmp_path / "public.pem"
    public.write_bytes(KEY.public_pem())
    with pytest.raises(KeyFileError, match=r"text\.pem: not an unencrypted private key"):
        SigningKey.from_file(text)
    with pytest.raises(KeyFileError, match=r"ec\.pem: not an Ed25519 key"):
        SigningKey.from_file(other)
    with pytest.raises(KeyFileError, match=r"gone\.pem: cannot be read: No such file"):
        SigningKey.from_file(tmp_path / "gone.pem")
    with pytest.raises(KeyFileError, match=r"public\.pem: not an unencrypted private key"):
        SigningKey.from_file(public)
    with pytest.raises(KeyFileError, match=r"text\.pem: not a public key"):
        VerifyingKeys.from_files([public, text])
    assert VerifyingKeys.from_files([public]).key_ids == {KEY.key_id}
