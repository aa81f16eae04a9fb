# SPDX-License-Identifier: Apache-2.0
"""Sample documents beside the schemas: what fits, and what must be refused and why.

``samples/<record name>/valid/*.json`` is a document each (see :mod:`schemas.documents`).
``samples/<record name>/invalid/*.json`` is ``{"reason": "...", "document": {...}}``: the reason is a part
of the error that reading the document must give.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from schemas.catalogue import HERE, current
from schemas.codec import decode_as, encode
from schemas.documents import from_document
from schemas.errors import CodecError, DocumentError, SchemaError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SAMPLES: Final = HERE / "samples"


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample.

    Attributes:
        name: Record name it is a sample of.
        path: Its file.
        document: The JSON document.
        reason: None for a valid one, else part of the error it must give.
    """

    name: str
    path: Path
    document: Any
    reason: str | None

    def record(self) -> dict[str, Any]:
        """The document as a record for the codec.

        Raises:
            DocumentError: It does not fit, as it should be for an invalid sample.
        """
        return from_document(self.name, self.document)


def load_samples(name: str | None = None, directory: Path = SAMPLES) -> Iterator[Sample]:
    """All samples, or those of one record.

    Raises:
        SchemaError: A file is not JSON or an invalid sample has no reason.
    """
    for each in [name] if name else sorted(current()):
        for path in sorted((directory / each / "valid").glob("*.json")):
            yield Sample(each, path, _load(path), None)
        for path in sorted((directory / each / "invalid").glob("*.json")):
            content = _load(path)
            if (
                not isinstance(content, dict)
                or set(content) != {"reason", "document"}
                or not content["reason"]
            ):
                raise SchemaError(f"{path.name}: an invalid sample is a reason and a document")
            yield Sample(each, path, content["document"], content["reason"])


def problem_with(sample: Sample) -> str | None:
    """What is wrong with a sample: None when it is read, or refused, as it should be."""
    try:
        record = sample.record()
    except DocumentError as error:
        if sample.reason is None:
            return f"should be valid: {error}"
        return None if sample.reason in str(error) else f"refused for another reason: {error}"
    if sample.reason is not None:
        return "should be refused, but it is valid"
    try:
        read_back = decode_as(sample.name, encode(sample.name, record))
    except CodecError as error:
        return f"fits, but the codec refuses it: {error}"
    return None if read_back == record else "does not come back as it was written"


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SchemaError(f"{path.name}: not readable as JSON: {error}") from error
