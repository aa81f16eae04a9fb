# SPDX-License-Identifier: Apache-2.0
"""What a profile is called, and what it selects: ``metadata``, label selectors, services of the host.

Input: those parts of a document, by way of model.py. Failure: pydantic's, which problems.py puts into words.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from schemas.profile import values

# Profiles of the host have no namespace of their own.
HOST_NAMESPACE: Final = "host"
_LABEL: Final = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
# As Kubernetes has them: RFC 1123 subdomain and label.
ObjectName = Annotated[str, Field(pattern=rf"^{_LABEL}(\.{_LABEL})*$", max_length=253)]
Namespace = Annotated[str, Field(pattern=f"^{_LABEL}$", max_length=63)]


class Section(BaseModel):
    """One object of the document."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel)


class Metadata(Section):
    """``metadata``: what Kubernetes puts there besides is left alone, and nothing else."""

    name: ObjectName
    namespace: Namespace = "default"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    uid: Any = None
    resource_version: Any = None
    generation: Any = None
    generate_name: Any = None
    creation_timestamp: Any = None
    deletion_timestamp: Any = None
    deletion_grace_period_seconds: Any = None
    finalizers: Any = None
    owner_references: Any = None
    managed_fields: Any = None
    self_link: Any = None


class Requirement(Section):
    """One of ``matchExpressions``."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] = []

    @model_validator(mode="after")
    def _values_belong_to_lists(self) -> Self:
        if self.operator in {"In", "NotIn"} and not self.values:
            raise ValueError(f"{self.operator} needs values; add some, or use Exists")
        if self.operator in {"Exists", "DoesNotExist"} and self.values:
            raise ValueError(f"{self.operator} takes no values; remove them, or use In")
        return self


class Selector(Section):
    """A LabelSelector as in Kubernetes; an empty one selects everything."""

    match_labels: dict[str, str] = {}
    match_expressions: list[Requirement] = []


class ServiceSection(Section):
    """A host service: exactly one of the three."""

    unit: Annotated[str, AfterValidator(lambda text: text and values.unit_name(text))] = ""
    cgroup_path: Annotated[str, AfterValidator(lambda text: text and values.cgroup_path(text))] = ""
    executable: Annotated[str, AfterValidator(lambda text: text and values.program_path(text))] = ""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(map(bool, (self.unit, self.cgroup_path, self.executable))) != 1:
            raise ValueError("a service is a unit, a cgroupPath or an executable; give exactly one of them")
        return self
