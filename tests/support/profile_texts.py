# SPDX-License-Identifier: Apache-2.0
"""Profiles as text, and what is said of them."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.profile.canonical import to_record
from schemas.profile.document import parse_profiles
from schemas.profile.errors import ProfileError

HEAD = "apiVersion: nsp.security/v1alpha1\nkind: SecurityProfile\nmetadata: {name: test, labels: {app: a}}\n"


def profile(spec: str) -> str:
    return HEAD + "spec:\n" + "\n".join(f"  {line}" for line in spec.strip().splitlines())


def record_of(text: str) -> dict[str, Any]:
    return to_record(parse_profiles(text)[0], 1)


def problems_of(text: str) -> str:
    with pytest.raises(ProfileError) as refused:
        parse_profiles(text, "file")
    return str(refused.value)


EGRESS = "actions: [enforce]\nprocesses:\n  - path: /bin/tool\n    network:\n      egress:\n"


def egress(*lines: str) -> str:
    return profile(EGRESS + "\n".join(f"        {line}" for line in lines))
