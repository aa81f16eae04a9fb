# SPDX-License-Identifier: Apache-2.0
"""The values of an event, in the slots of ``taxonomy``.

Input: a scene and an event. Output: :class:`Facts`: the values, and as case-folded text, because Sigma
compares without case. What is absent is None, and an empty text. Only what the loaded rules ask for is filled
in where that costs; what is known of an image is worked out once a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_apps.sigma import taxonomy as t

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_apps.correlate.view import BatchView
    from stream_apps.detect.scene import Scene

# The sensor keeps 1,024 bytes of argv; a longer text is not from one of ours, and is cut.
MAX_TEXT: Final = 8192

_PROTOCOLS: Final = {6: "tcp", 17: "udp", 132: "sctp", 136: "udplite", 1: "icmp", 58: "ipv6-icmp"}
_RECORD_TYPES: Final = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 10: "NULL", 12: "PTR", 13: "HINFO", 15: "MX", 16: "TXT",
    28: "AAAA", 33: "SRV", 35: "NAPTR", 43: "DS", 46: "RRSIG", 48: "DNSKEY", 52: "TLSA", 64: "SVCB",
    65: "HTTPS", 99: "SPF", 252: "AXFR", 255: "ANY", 257: "CAA",
}  # fmt: skip
_PARENT_SLOTS: Final = frozenset({t.PARENT_IMAGE, t.PARENT_COMMAND_LINE, t.PARENT_USER, t.PARENT_PROCESS_ID})
_DESTINATION: Final = t.DESTINATION_IP, t.DESTINATION_PORT, t.DESTINATION_IPV6
_POD_SLOTS: Final = frozenset({t.NAMESPACE, t.POD, t.CONTAINER, t.CONTAINER_IMAGE})


class Facts(NamedTuple):
    """An event's values by slot.

    Attributes:
        values: As they are; None: absent.
        texts: The same as case-folded text; empty: absent, or empty.
    """

    values: list[Any]
    texts: list[str]


class FactMaker:
    """Makes the facts of a batch's events.

    Args:
        users: Names of user ids.
        needed: Slots that rules ask for.

    Attributes:
        needs_host: A rule asks for the name behind an address.
    """

    def __init__(self, users: Mapping[int, str], needed: frozenset[int]) -> None:
        self._users = users
        self._needs_everything = t.EVERYTHING in needed
        if self._needs_everything:
            needed = frozenset(range(t.SLOTS))
        self._needs_parent = not needed.isdisjoint(_PARENT_SLOTS)
        self._needs_user = not needed.isdisjoint({t.USER, t.PARENT_USER})
        self._needs_ids = not needed.isdisjoint({t.PROCESS_ID, t.PARENT_PROCESS_ID, t.COMPUTER})
        self._needs_pod = not needed.isdisjoint(_POD_SLOTS)
        self.needs_host = t.DESTINATION_HOST in needed
        self._actors: dict[int, Facts] = {}
        self._parents: dict[int, tuple[Any, ...]] = {}
        self._adders: dict[str, Callable[[Scene, int, Mapping[str, Any], Facts], None]] = {
            "nsp.SocketConnect": self._outgoing,
            "nsp.DatagramSend": self._outgoing,
            "nsp.SocketAccept": _accepted,
            "nsp.SocketClose": self._ended,
            "nsp.DnsQuestion": _asked,
            "nsp.DnsAnswer": _answered,
        }

    def begin(self) -> None:
        """A new batch, with new indexes."""
        self._actors.clear()
        self._parents.clear()

    def make(self, scene: Scene, kind: str, index: int, event: Mapping[str, Any]) -> Facts:
        """The facts of an event of an image."""
        facts = self._actors.get(index)
        if facts is None:
            facts = self._actors[index] = self._actor(scene, index)
        add = self._adders.get(kind)
        if add is not None:
            facts = Facts(facts.values.copy(), facts.texts.copy())
            add(scene, index, event, facts)
        if self._needs_everything:
            facts.texts[t.EVERYTHING] = "\n".join(facts.texts[: t.IMAGE_NAME])
        return facts

    def _actor(self, scene: Scene, index: int) -> Facts:
        values: list[Any] = [None] * t.SLOTS
        texts = [""] * t.SLOTS
        image = scene.view.processes[index]
        path = image["executable"][:MAX_TEXT]
        lower = path.casefold()
        values[t.IMAGE] = path or None
        texts[t.IMAGE] = lower
        texts[t.IMAGE_NAME] = lower[lower.rfind("/") + 1 :]
        values[t.COMMAND_LINE] = line = " ".join(image["argv"])[:MAX_TEXT]
        texts[t.COMMAND_LINE] = line.casefold()
        facts = Facts(values, texts)
        if self._needs_user:
            _put(facts, t.USER, self._user(image))
        if self._needs_ids:
            _put(facts, t.PROCESS_ID, image["tgid"])
            _put(facts, t.COMPUTER, scene.view.node)
        if self._needs_parent:
            self._add_parent(scene, index, facts)
        if self._needs_pod:
            _add_pod(scene, index, facts)
        return facts

    def _add_parent(self, scene: Scene, index: int, facts: Facts) -> None:
        parent = _launcher(scene.view, index)
        if not parent:
            return
        known = self._parents.get(parent)
        if known is None:
            image = scene.view.processes[parent]
            path = image["executable"][:MAX_TEXT]
            line = " ".join(image["argv"])[:MAX_TEXT]
            lower = path.casefold()
            name = lower[lower.rfind("/") + 1 :]
            user = self._user(image)
            known = path or None, lower, name, line, line.casefold(), user, image["tgid"]
            self._parents[parent] = known
        values, texts = facts
        values[t.PARENT_IMAGE], texts[t.PARENT_IMAGE], texts[t.PARENT_IMAGE_NAME] = known[:3]
        values[t.PARENT_COMMAND_LINE], texts[t.PARENT_COMMAND_LINE] = known[3:5]
        _put(facts, t.PARENT_USER, known[5])
        _put(facts, t.PARENT_PROCESS_ID, known[6])

    def _user(self, image: Mapping[str, Any]) -> str:
        uid: int = image["uid"]
        return self._users.get(uid) or str(uid)

    def _outgoing(self, scene: Scene, index: int, event: Mapping[str, Any], facts: Facts) -> None:
        self._destination(scene, index, event, facts)
        _put(facts, t.PROTOCOL, _PROTOCOLS.get(event["protocol"]) or str(event["protocol"]))
        _put_flag(facts, t.INITIATED, value=True)

    def _destination(self, scene: Scene, index: int, event: Mapping[str, Any], facts: Facts) -> None:
        address = event["remote_address"]
        _put_end(facts, _DESTINATION, address, event["remote_port"])
        if self.needs_host:
            known = scene.name_behind(index, address, event["ktime_ns"])
            if known is not None:
                _put(facts, t.DESTINATION_HOST, known.name)

    def _ended(self, scene: Scene, index: int, event: Mapping[str, Any], facts: Facts) -> None:
        source = t.SOURCE_IP, t.SOURCE_PORT, t.SOURCE_IPV6
        local = event["local_address"], event["local_port"]
        if event["inbound"]:
            _accepted(scene, index, event, facts)
            _put_end(facts, source, event["remote_address"], event["remote_port"])
            return
        self._destination(scene, index, event, facts)
        _put(facts, t.PROTOCOL, "tcp")
        _put_flag(facts, t.INITIATED, value=True)
        _put_end(facts, source, *local)


def _launcher(view: BatchView, index: int) -> int:
    """As :meth:`BatchView.launcher`, without the whole chain: this runs for each program started."""
    processes, parents = view.processes, view.parents
    image = processes[index]
    tgid, start_ns = image["tgid"], image["start_ns"]
    for _ in processes:
        index = parents[index]
        if not index:
            return 0
        image = processes[index]
        if image["tgid"] != tgid or image["start_ns"] != start_ns:
            return index
    return 0


def _accepted(_: Scene, __: int, event: Mapping[str, Any], facts: Facts) -> None:
    _put_end(facts, _DESTINATION, event["local_address"], event["local_port"])
    _put(facts, t.PROTOCOL, "tcp")
    _put_flag(facts, t.INITIATED, value=False)


def _asked(_: Scene, __: int, event: Mapping[str, Any], facts: Facts) -> None:
    _put(facts, t.QUERY_NAME, event["name"][:MAX_TEXT])
    kind = event["question_type"]
    _put(facts, t.RECORD_TYPE, _RECORD_TYPES.get(kind) or str(kind))


def _answered(scene: Scene, index: int, event: Mapping[str, Any], facts: Facts) -> None:
    _asked(scene, index, event, facts)
    _put(facts, t.QUERY_STATUS, event["rcode"])
    _put(facts, t.QUERY_RESULTS, ";".join([each["data"] for each in event["records"]])[:MAX_TEXT])


def _add_pod(scene: Scene, index: int, facts: Facts) -> None:
    pod = scene.pod(index)
    if pod is None:
        return
    _put(facts, t.NAMESPACE, pod.namespace)
    _put(facts, t.POD, pod.name)
    workload = scene.view.workloads[scene.view.workload_of[index]]
    container = pod.container(workload["container_id"])
    if container is not None:
        _put(facts, t.CONTAINER, container.name)
        _put(facts, t.CONTAINER_IMAGE, container.image)


def _put(facts: Facts, slot: int, value: str | int) -> None:
    facts.values[slot] = value
    facts.texts[slot] = value.casefold() if isinstance(value, str) else str(value)


def _put_flag(facts: Facts, slot: int, *, value: bool) -> None:
    facts.values[slot] = facts.texts[slot] = "true" if value else "false"


def _put_end(facts: Facts, slots: tuple[int, int, int], address: str, port: int) -> None:
    values, texts = facts
    values[slots[0]] = texts[slots[0]] = address
    values[slots[1]] = port
    texts[slots[1]] = str(port)
    values[slots[2]] = texts[slots[2]] = "true" if ":" in address else "false"
