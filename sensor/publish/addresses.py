# SPDX-License-Identifier: Apache-2.0
"""Address bytes to text by one dict lookup on the drain path."""

from __future__ import annotations

from typing import Final

from schemas.addresses import to_text

# A scan through a /16 must not fill the memory: 8192 entries are about 1.5 MB. When full it starts anew,
# which costs a busy node 1 us per address once and needs no bookkeeping per hit.
MAX_ENTRIES: Final = 8192


class AddressText(dict[bytes, str]):
    """``table[sixteen_bytes]`` is the text; a missing one is made and kept."""

    def __missing__(self, address: bytes) -> str:
        if len(self) >= MAX_ENTRIES:
            self.clear()
        text = self[address] = to_text(address)
        return text


def endpoint(text: str, port: int) -> str:
    """``address:port``, IPv6 in brackets."""
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"
