# SPDX-License-Identifier: Apache-2.0
"""A drafted profile as YAML with its evidence as comments. Pure.

PyYAML writes no comments, so the few shapes a profile has are laid out here; each scalar is still written by
PyYAML, which knows what must be quoted. What is written is read and checked by whoever publishes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_apps.learn.draft import Draft, Place

_STEP: Final = "  "
# Lists of objects name their elements by one of these.
_NAMED_BY: Final = ("path", "protocol", "unit")


def to_yaml(draft: Draft) -> str:
    """The whole file."""
    header = [f"# {_comment(line)}".rstrip() for line in draft.header]
    return "\n".join([*header, *_mapping(draft.document, "", (), draft.notes)]) + "\n"


def _mapping(node: Mapping[str, Any], indent: str, place: Place, notes: Mapping[Place, str]) -> Iterator[str]:
    for key, value in node.items():
        here = (*place, key)
        if isinstance(value, dict):
            yield f"{indent}{_scalar(key)}:" + (" {}" if not value else "")
            yield from _mapping(value, indent + _STEP, here, notes)
        elif isinstance(value, list):
            yield f"{indent}{_scalar(key)}:" + (" []" if not value else "")
            for element in value:
                yield from _element(element, indent + _STEP, here, notes)
        else:
            yield f"{indent}{_scalar(key)}: {_scalar(value)}"


def _element(element: Any, indent: str, place: Place, notes: Mapping[Place, str]) -> Iterator[str]:
    if not isinstance(element, dict):
        note = notes.get((*place, str(element)), "")
        yield f"{indent}- {_scalar(element)}" + (f"  # {_comment(note)}" if note else "")
        return
    name = next((str(element[each]) for each in _NAMED_BY if each in element), "")
    here = (*place, name)
    if note := notes.get(here, ""):
        yield f"{indent}# {_comment(note)}"
    lines = _mapping(element, indent + _STEP, here, notes)
    yield f"{indent}- {next(lines).lstrip()}"
    yield from lines


def _comment(text: str) -> str:
    """One line, whatever a workload called its programs: YAML ends lines at U+2028 too."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text
    )


def _scalar(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=False)
    return text.removesuffix("\n").removesuffix("...").removesuffix("\n")
