# SPDX-License-Identifier: Apache-2.0
"""Which DNS servers are believed: those a resolv.conf names.

Input: the text of a resolv.conf, which may be a workload's own and hostile. Output: addresses. Failure: a
line that is none is left out; a file that cannot be read names nobody.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Final

_NODE_FILE: Final = Path("/etc/resolv.conf")
# resolv.conf(5) takes three; a few more are harmless, thousands would be somebody's attempt.
MAX_RESOLVERS: Final = 8
_MAX_BYTES: Final = 64 * 1024


def resolvers_in(text: str) -> tuple[str, ...]:
    """The addresses of a resolv.conf's ``nameserver`` lines, without a zone, in order, each once."""
    found: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":  # noqa: PLR2004 - a keyword and an address
            continue
        try:
            address = str(ipaddress.ip_address(words[1].partition("%")[0]))
        except ValueError:
            continue
        if address not in found:
            found.append(address)
    return tuple(found[:MAX_RESOLVERS])


def node_resolvers(path: Path = _NODE_FILE) -> tuple[str, ...]:
    """Those of the node itself, a stub on the loopback among them."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return resolvers_in(file.read(_MAX_BYTES))
    except OSError:
        return ()
