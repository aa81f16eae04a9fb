# SPDX-License-Identifier: Apache-2.0
"""YAML to validated profiles: read, checked, or refused whole with every problem.

Input: the text of a file, of one or several documents, or a List as kubectl prints one. Output:
:class:`~schemas.profile.model.Profile`. Failure: :class:`~schemas.profile.errors.ProfileError`, a line a
problem: file and line, the place in the document, the value, the cure.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from schemas.profile.errors import MAX_PROBLEMS, ProfileError
from schemas.profile.model import Profile
from schemas.profile.problems import problems_of
from schemas.profile.reading import NotDataError, documents_of, lines_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemas.profile.problems import Problem
    from schemas.profile.reading import Place

_LISTS: Final = ("List", "SecurityProfileList")


def parse_profiles(data: bytes | str, source: str = "profile") -> list[Profile]:
    """Read every profile of a text.

    Args:
        data: YAML or JSON, one or more documents; empty ones are left out.
        source: What problems call it.

    Raises:
        ProfileError: Any of them is refused.
    """
    try:
        documents = documents_of(data)
    except NotDataError as error:
        where = source if error.line is None else f"{source}:{error.line}"
        raise ProfileError([f"{where}: {error}"]) from error
    found: list[tuple[int, Problem]] = []
    more = 0
    profiles = []
    for number, place, document in _candidates(documents):
        try:
            profiles.append(Profile.model_validate_json(json.dumps(document)))
        except ValidationError as error:
            told, left = problems_of(error, document, place, MAX_PROBLEMS - len(found))
            found += [(number, each) for each in told]
            more += left
    if found:
        lines = lines_of(data, [(number, each.place) for number, each in found])
        told_lines = zip(lines, found, strict=True)
        raise ProfileError([f"{source}:{line}: {each.text}" for line, (_, each) in told_lines], more)
    if not profiles:
        raise ProfileError([f"{source}: there is no profile in it"])
    return profiles


def json_schema_text() -> str:
    """The schema as it is published in deploy/config/security-profile.schema.json."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Profile.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"


def _candidates(documents: list[Any]) -> Iterator[tuple[int, Place, Any]]:
    """What should be a profile: the number of its document, its place in it, and itself."""
    for number, document in enumerate(documents):
        if isinstance(document, dict) and document.get("kind") in _LISTS:
            items = document.get("items")
            if isinstance(items, list):
                yield from ((number, ("items", index), each) for index, each in enumerate(items))
                continue
        if document is not None:
            yield number, (), document
