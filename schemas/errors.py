# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a message, a subject, a key or a sample.

All are permanent: the same bytes fail again, so a caller counts and drops (or dead-letters) and
never retries.
"""

from __future__ import annotations

from typing import Literal

RefusalReason = Literal["unsigned", "unknown-key", "bad-signature", "malformed"]


class SchemaError(Exception):
    """Base of everything this package raises."""


class CodecError(SchemaError):
    """Bytes that are no message of ours, or a record that does not fit its schema."""


class SubjectError(SchemaError):
    """A text that names no enforcement subject."""


class DocumentError(SchemaError):
    """A JSON document that does not fit its schema; the text begins with the place."""


class KeyFileError(SchemaError):
    """A key file that cannot be read or holds no Ed25519 key of the wanted kind."""


class SignatureRefused(SchemaError):  # noqa: N818 - a refusal is a decision, not a fault
    """A signed message that is not obeyed.

    Args:
        reason: The word that is counted and reported.
        detail: For people.
    """

    def __init__(self, reason: RefusalReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: RefusalReason = reason
        self.detail = detail
