# SPDX-License-Identifier: Apache-2.0
"""Ed25519 over enforcement: who may cut a process off the network.

The stream app holds a :class:`SigningKey`; each sensor holds the public halves it trusts
(:class:`VerifyingKeys`: more than one, so that keys can be changed without a gap). Input and output are
``SignedEnforcement`` values; the payload bytes are verified as they are, before anything decodes them.
Failure: :class:`schemas.errors.SignatureRefused` with the reason, or :class:`schemas.errors.KeyFileError`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from schemas.codec import decode, encode
from schemas.errors import CodecError, KeyFileError, SignatureRefused

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# A signature of ours must mean nothing elsewhere, and one made elsewhere nothing here.
DOMAIN: Final = b"nsp-enforcement-v1\0"
KEY_ID_DIGITS: Final = 16


def key_id_of(public: Ed25519PublicKey) -> str:
    """First hex digits of SHA-256 over the raw public key."""
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:KEY_ID_DIGITS]


class SigningKey:
    """The private half."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.key_id: str = key_id_of(private.public_key())

    @classmethod
    def generate(cls) -> Self:
        """Make a new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """Read an unencrypted PKCS#8 PEM.

        Raises:
            KeyFileError: It holds no Ed25519 private key.
        """
        try:
            private = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise KeyFileError(f"not an unencrypted private key in PEM form: {error}") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise KeyFileError(f"not an Ed25519 key but {type(private).__name__}")
        return cls(private)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read the key file of a stream app.

        Raises:
            KeyFileError: The file is not readable or holds no such key; the text names the file.
        """
        try:
            return cls.from_pem(_read(path))
        except KeyFileError as error:
            raise KeyFileError(f"signing key {path}: {error}") from error

    def to_pem(self) -> bytes:
        """The private key as unencrypted PKCS#8 PEM: keep it out of reach of others (mode 0600)."""
        return self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def public_pem(self) -> bytes:
        """The public key as PEM, for the sensors."""
        return self._private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, payload: bytes) -> bytes:
        """Sign an encoded ``Enforcement``.

        Returns:
            The value for nsp.enforcement: an encoded ``SignedEnforcement``.
        """
        signature = self._private.sign(DOMAIN + payload)
        return encode(
            "SignedEnforcement", {"key_id": self.key_id, "payload": payload, "signature": signature}
        )


class VerifyingKeys:
    """The public halves a sensor trusts."""

    def __init__(self, keys: Iterable[Ed25519PublicKey]) -> None:
        self._keys = {key_id_of(key): key for key in keys}

    @property
    def key_ids(self) -> frozenset[str]:
        """The ids of the keys that are trusted."""
        return frozenset(self._keys)

    @classmethod
    def from_pems(cls, pems: Iterable[bytes]) -> Self:
        """Read public keys.

        Raises:
            KeyFileError: One of them is no Ed25519 public key.
        """
        return cls([_public_key(pem) for pem in pems])

    @classmethod
    def from_files(cls, paths: Iterable[Path]) -> Self:
        """Read the key files of a sensor.

        Raises:
            KeyFileError: A file is not readable or holds no such key; the text names the file.
        """
        keys = []
        for path in paths:
            try:
                keys.append(_public_key(_read(path)))
            except KeyFileError as error:
                raise KeyFileError(f"verifying key {path}: {error}") from error
        return cls(keys)

    def verify(self, data: bytes) -> bytes:
        """Check a value of nsp.enforcement.

        Returns:
            The payload, exactly the bytes that were signed.

        Raises:
            SignatureRefused: Unsigned (empty signature, or a bare Enforcement), by an unknown key, with a
                signature that does not match, or not readable.
        """
        try:
            name, signed = decode(data)
        except CodecError as error:
            raise SignatureRefused("malformed", str(error)) from error
        if name == "Enforcement":
            raise SignatureRefused("unsigned", "a bare Enforcement, without a signature around it")
        if name != "SignedEnforcement":
            raise SignatureRefused("malformed", f"expected SignedEnforcement, the message is {name}")
        if not signed["signature"]:
            raise SignatureRefused("unsigned", "the signature is empty")
        key = self._keys.get(signed["key_id"])
        if key is None:
            raise SignatureRefused(
                "unknown-key", f"key {signed['key_id'][:KEY_ID_DIGITS]!r} is not trusted here"
            )
        payload: bytes = signed["payload"]
        try:
            key.verify(signed["signature"], DOMAIN + payload)
        except InvalidSignature as error:
            detail = f"the signature does not match the payload under key {signed['key_id']}"
            raise SignatureRefused("bad-signature", detail) from error
        return payload


def _public_key(pem: bytes) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"not a public key in PEM form: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"not an Ed25519 key but {type(key).__name__}")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error.strerror}") from error
