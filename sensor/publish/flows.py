# SPDX-License-Identifier: Apache-2.0
"""Socket events: connect, datagram, listen, accept, close, refusals, and the inventory of sockets.

Input: a ring record's bytes and offset. Output: events appended to the batch. This is the hot path: one
unpack of the fields that are needed, one dict lookup for the process and one per address, no call that can
be left out. Budget with encoding: 5 us per event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sensor.publish import layout
from sensor.publish.layout import ALERTED, CLOSE_EVENT, FLOW_EVENT, REASONS, reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from sensor.publish.batch import BatchBuilder

_CONNECT: Final = reader(
    FLOW_EVENT,
    "ktime_ns",
    "start_ns",
    "tgid",
    "cookie",
    "remote_address",
    "remote_port",
    "protocol",
    "verdict",
)
_CLOSE: Final = reader(
    CLOSE_EVENT, "ktime_ns", "start_ns", "tgid", "cookie", "local_address", "remote_address", "local_port",
    "remote_port", "direction", "tcp_state", "bytes_sent", "bytes_received", "duration_ns",
)  # fmt: skip
_FLOW: Final = reader(
    FLOW_EVENT, "ktime_ns", "start_ns", "tgid", "cookie", "generation", "local_address", "remote_address",
    "local_port", "remote_port", "protocol", "verdict", "reason", "tcp_state", "hook",
)  # fmt: skip
_TCP: Final = 6
_TCP_SYN_SENT: Final = 2
_TCP_LISTEN: Final = 10
# Bytes of a long-lived socket are u64 in the kernel and long in Avro.
_LONG_MAX: Final = 0x7FFF_FFFF_FFFF_FFFF


class FlowEvents:
    """Handlers of the events that hold a struct nsp_flow_event.

    Args:
        batch: What they append to.
    """

    def __init__(self, batch: BatchBuilder) -> None:
        self._batch = batch
        self._addresses = batch.addresses

    def handlers(self) -> dict[int, Callable[[bytes, int, int], None]]:
        """Event type to handler(ring bytes, offset of the record, position)."""
        return {
            layout.CONNECT: self._outgoing("nsp.SocketConnect", "CONNECT"),
            layout.SENDMSG: self._outgoing("nsp.DatagramSend", "SENDMSG"),
            layout.BIND: self.bind,
            layout.LISTEN: self.listen,
            layout.ACCEPT: self.accept,
            layout.CLOSE: self.close,
            layout.PACKET_REFUSED: self.packet_refused,
            layout.SOCKET_INVENTORY: self.socket_inventory,
            layout.RAW_SOCKET: self.raw_socket,
        }

    def _outgoing(self, record_name: str, hook: str) -> Callable[[bytes, int, int], None]:
        """The handler of events that are ``record_name``, or a Refusal of ``hook``."""
        batch, addresses, unpack = self._batch, self._addresses, _CONNECT.unpack_from

        def handle(data: bytes, offset: int, position: int) -> None:
            ktime_ns, start_ns, tgid, cookie, remote, port, protocol, verdict = unpack(data, offset)
            if verdict:
                self._refusal(data, offset, position, hook)
                if verdict != ALERTED:
                    return
                position += 1  # a place of its own: records are eight bytes apart
            key = (tgid, start_ns)
            index = batch.index.get(key)
            if index is None:
                index = batch.process(key)
            if index in batch.downstream:
                batch.urgent = True
            batch.events.append((
                record_name,
                {
                    "position": position,
                    "ktime_ns": ktime_ns,
                    "process": index,
                    "cookie": cookie,
                    "protocol": protocol,
                    "remote_address": addresses[remote],
                    "remote_port": port,
                },
            ))  # fmt: skip

        return handle

    def close(self, data: bytes, offset: int, position: int) -> None:
        """SocketClose."""
        (
            ktime_ns, start_ns, tgid, cookie, local, remote, local_port, remote_port, direction, state,
            sent, received, duration_ns,
        ) = _CLOSE.unpack_from(data, offset)  # fmt: skip
        batch = self._batch
        key = (tgid, start_ns)
        index = batch.index.get(key)
        if index is None:
            index = batch.process(key)
        addresses = self._addresses
        batch.events.append((
            "nsp.SocketClose",
            {
                "position": position,
                "ktime_ns": ktime_ns,
                "process": index,
                "cookie": cookie,
                "local_address": addresses[local],
                "local_port": local_port,
                "remote_address": addresses[remote],
                "remote_port": remote_port,
                "inbound": direction == 1,
                "established": state != _TCP_SYN_SENT,
                "bytes_sent": sent & _LONG_MAX,
                "bytes_received": received & _LONG_MAX,
                "duration_ns": duration_ns & _LONG_MAX,
            },
        ))  # fmt: skip

    def listen(self, data: bytes, offset: int, position: int) -> None:
        """SocketListen; the process serves from here on."""
        flow = self._flow(data, offset, position)
        self._serves(data, offset)
        self._append("nsp.SocketListen", flow, "cookie", "protocol", "local_address", "local_port")

    def accept(self, data: bytes, offset: int, position: int) -> None:
        """SocketAccept; the process serves from here on."""
        flow = self._flow(data, offset, position)
        self._serves(data, offset)
        self._append(
            "nsp.SocketAccept", flow, "cookie", "local_address", "local_port", "remote_address", "remote_port"
        )

    def socket_inventory(self, data: bytes, offset: int, position: int) -> None:
        """SocketInventory; a listening socket says that its process serves."""
        flow = self._flow(data, offset, position)
        if is_listening(data, offset):
            self._serves(data, offset)
        self._append(
            "nsp.SocketInventory", flow, "cookie", "protocol", "tcp_state", "local_address", "local_port",
            "remote_address", "remote_port",
        )  # fmt: skip

    def bind(self, data: bytes, offset: int, position: int) -> None:
        """A bind is only reported when it was refused."""
        self._refusal(data, offset, position, "BIND")

    def raw_socket(self, data: bytes, offset: int, position: int) -> None:
        """A raw socket is only reported when a profile spoke against it."""
        self._refusal(data, offset, position, "RAW_SOCKET")

    def packet_refused(self, data: bytes, offset: int, position: int) -> None:
        """A packet of an open flow; ``hook`` says in which direction."""
        hook = _FLOW.unpack_from(data, offset)[-1]
        self._refusal(data, offset, position, "PACKET_IN" if hook == layout.ACCEPT else "PACKET_OUT")

    def _refusal(self, data: bytes, offset: int, position: int, hook: str) -> None:
        flow = self._flow(data, offset, position)
        reason = max(1, min(flow["reason"], len(REASONS)))
        flow.update(hook=hook, reason=REASONS[reason - 1], alerted_only=flow["verdict"] == ALERTED)
        self._append(
            "nsp.Refusal", flow, "cookie", "hook", "reason", "alerted_only", "generation", "protocol",
            "local_address", "local_port", "remote_address", "remote_port",
        )  # fmt: skip

    def _flow(self, data: bytes, offset: int, position: int) -> dict[str, Any]:
        (
            ktime_ns, start_ns, tgid, cookie, generation, local, remote, local_port, remote_port, protocol,
            verdict, reason, tcp_state, hook,
        ) = _FLOW.unpack_from(data, offset)  # fmt: skip
        batch = self._batch
        key = (tgid, start_ns)
        index = batch.index.get(key)
        return {
            "position": position,
            "ktime_ns": ktime_ns,
            "process": index if index is not None else batch.process(key),
            "cookie": cookie,
            "generation": generation & _LONG_MAX,
            "local_address": self._addresses[local],
            "local_port": local_port,
            "remote_address": self._addresses[remote],
            "remote_port": remote_port,
            "protocol": protocol,
            "verdict": verdict,
            "reason": reason,
            "tcp_state": tcp_state,
            "hook": hook,
        }

    def _append(self, name: str, flow: dict[str, Any], *wanted: str) -> None:
        event = {field: flow[field] for field in ("position", "ktime_ns", "process", *wanted)}
        self._batch.events.append((name, event))

    def _serves(self, data: bytes, offset: int) -> None:
        _, start_ns, tgid, *_ = _CONNECT.unpack_from(data, offset)
        image = self._batch.processes.find(tgid, start_ns)
        if image is not None:
            image.serving = True


def is_listening(data: bytes, offset: int) -> bool:
    """Whether a SOCKET_INVENTORY record is of a listening TCP socket."""
    flow = _FLOW.unpack_from(data, offset)
    return bool(flow[9] == _TCP and flow[12] == _TCP_LISTEN)
