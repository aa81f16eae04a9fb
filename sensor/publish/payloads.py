# SPDX-License-Identifier: Apache-2.0
"""What was said on connections whose profile judges payloads: HTTP requests and TLS hellos.

Input: a ring record's bytes and offset. Output: HttpRequest and TlsHello events appended to the batch. The
bytes are a client's, and hostile: text is UTF-8 where it is that, and escaped where it is not. The kernel
bounds how many of them there are, so nothing here is made for speed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sensor.publish import layout
from sensor.publish.layout import HTTP_EVENT, PAYLOAD_NOTES, REASONS, TLS_EVENT, VERDICTS, reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from sensor.publish.batch import BatchBuilder

_FLOW: Final = (
    "ktime_ns", "start_ns", "tgid", "cookie", "generation", "local_address", "remote_address", "local_port",
    "remote_port", "verdict", "reason", "direction",
)  # fmt: skip
_HTTP: Final = reader(HTTP_EVENT, *_FLOW, "uri_bytes", "host_bytes", "seen", "method", "uri", "host")
_TLS: Final = reader(TLS_EVENT, *_FLOW, "name_bytes", "seen", "name")
_LONG_MAX: Final = 0x7FFF_FFFF_FFFF_FFFF


class PayloadEvents:
    """Handlers of events about payloads.

    Args:
        batch: What they append to.
    """

    def __init__(self, batch: BatchBuilder) -> None:
        self._batch = batch

    def handlers(self) -> dict[int, Callable[[bytes, int, int], None]]:
        """Event type to handler(ring bytes, offset of the record, position)."""
        return {layout.HTTP_REQUEST: self.http, layout.TLS_HELLO: self.tls}

    def http(self, data: bytes, offset: int, position: int) -> None:
        """HttpRequest."""
        *flow, uri_bytes, host_bytes, seen, method, uri, host = _HTTP.unpack_from(data, offset)
        self._batch.events.append((
            "nsp.HttpRequest",
            {
                **self._flow(flow, position),
                "method": _text(method.rstrip(b"\0")),
                "uri": _text(uri[:uri_bytes]),
                "uri_bytes": uri_bytes,
                "host": _text(host[:host_bytes]),
                "notes": _notes(seen),
            },
        ))  # fmt: skip

    def tls(self, data: bytes, offset: int, position: int) -> None:
        """TlsHello."""
        *flow, name_bytes, seen, name = _TLS.unpack_from(data, offset)
        self._batch.events.append((
            "nsp.TlsHello",
            {**self._flow(flow, position), "server_name": _text(name[:name_bytes]), "notes": _notes(seen)},
        ))  # fmt: skip

    def _flow(self, values: list[Any], position: int) -> dict[str, Any]:
        (
            ktime_ns, start_ns, tgid, cookie, generation, local, remote, local_port, remote_port, verdict,
            reason, direction,
        ) = values  # fmt: skip
        batch = self._batch
        key = (tgid, start_ns)
        index = batch.index.get(key)
        return {
            "position": position,
            "ktime_ns": ktime_ns,
            "process": batch.process(key) if index is None else index,
            "cookie": cookie,
            "inbound": direction == 1,
            "local_address": batch.addresses[local],
            "local_port": local_port,
            "remote_address": batch.addresses[remote],
            "remote_port": remote_port,
            "verdict": VERDICTS[verdict],
            "reason": REASONS[reason - 1] if reason else None,
            "generation": generation & _LONG_MAX,
        }


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")


def _notes(seen: int) -> list[str]:
    return [note for bit, note in enumerate(PAYLOAD_NOTES) if seen >> bit & 1]
