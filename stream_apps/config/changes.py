# SPDX-License-Identifier: Apache-2.0
"""Settings one by one, and what differs between two configurations.

Input: configurations that were accepted. Output: :class:`Setting` by place, for ``nsp config explain``, and
the places that differ, with those apart that only a new process can take over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

    from stream_apps.config.document import StreamConfig
    from stream_apps.config.problems import Place

# Connections, keys and ports are opened once. Learning reads its topic at start and sizes what it keeps by
# its bounds. Logs are set up once.
NEEDS_RESTART: Final[tuple[Place, ...]] = (
    ("kafka",),
    ("signing",),
    ("service",),
    ("learn", "enabled"),
    ("learn", "bounds"),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        place: Where it is.
        value: Its value, as JSON has it.
        field: What the model says of it; None for an item of a list.
    """

    place: Place
    value: Any
    field: FieldInfo | None

    @property
    def needs_restart(self) -> bool:
        """Whether only a new process takes another value."""
        return any(self.place[: len(each)] == each for each in NEEDS_RESTART)


def name_of(place: Place) -> str:
    """A place as people write it."""
    return ".".join(map(str, place))


def settings(config: StreamConfig) -> dict[Place, Setting]:
    """Every setting of a configuration, in the order of the document; lists are one setting."""
    return {each.place: each for each in _settings(config, ())}


def changed(old: StreamConfig, new: StreamConfig) -> list[tuple[Setting, Setting]]:
    """What differs, as it was and as it is."""
    before, after = settings(old), settings(new)
    return [(before[place], each) for place, each in after.items() if before[place].value != each.value]


def restart_needed(old: StreamConfig, new: StreamConfig) -> list[str]:
    """The settings that differ and cannot be changed in flight."""
    return [name_of(each.place) for _, each in changed(old, new) if each.needs_restart]


def _settings(section: BaseModel, place: Place) -> Iterator[Setting]:
    for name, field in type(section).model_fields.items():
        inner = (*place, field.alias or name)
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _settings(value, inner)
        else:
            yield Setting(inner, plain(value), field)


def plain(value: Any) -> Any:
    """A value as JSON has it; of an item of a list what is no default."""
    if isinstance(value, BaseModel):
        return {
            field.alias or name: plain(getattr(value, name))
            for name, field in type(value).model_fields.items()
            if getattr(value, name) != field.get_default(call_default_factory=True)
        }
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
