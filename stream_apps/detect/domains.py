# SPDX-License-Identifier: Apache-2.0
"""The registered domain of a name, and what stands below it.

Input: a name as asked. Output: what somebody registered (``example.co.uk``) and the rest, by the public
suffix list that the library brings; nothing is fetched. Failure: names without a registered domain (a single
label, a suffix itself, empty labels) have None.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from publicsuffixlist import PublicSuffixList

# Distinct names kept: a look-up takes 3 µs, and services ask for the same few names. Some 20 MB when full.
_CACHE_ENTRIES: Final = 65_536

_suffixes: PublicSuffixList | None = None


@lru_cache(maxsize=_CACHE_ENTRIES)
def registered_domain(name: str) -> str | None:
    """The domain that somebody registered, lower case as the name is."""
    found: str | None = _list().privatesuffix(name)
    return found


def below(name: str, domain: str) -> str:
    """What a name says below its domain; empty for the domain itself."""
    return name[: -len(domain) - 1] if len(name) > len(domain) else ""


def _list() -> PublicSuffixList:
    """The list, read when it is first asked for: 40 ms that commands which detect nothing need not take."""
    global _suffixes  # noqa: PLW0603 - a constant that is expensive to make
    if _suffixes is None:
        _suffixes = PublicSuffixList()
    return _suffixes
