# SPDX-License-Identifier: Apache-2.0
"""The maps of profiles as sensor/policy writes and reads them.

Input: typed keys and values (policy_state.py) and trie items as whole keys. Output: entries the kernel
programs obey once a slot's tag leads to them. A refused write raises; what was written before it stays and
leads nowhere.
"""

from __future__ import annotations

import os
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal

from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.errors import KernelError
from sensor.kernel.inventory import run_iterator
from sensor.kernel.policy_state import (
    CGROUP_NAME_BYTES,
    PROGRAM_PATH_BYTES,
    BreakGlass,
    GrantsValue,
    LearnedKey,
    LearnedValue,
    PolicyCounters,
    PolicyValue,
    ProgramKey,
    ResolverKey,
    RulesetValue,
)
from sensor.kernel.state import U32, U64

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

TrieKind = Literal["address", "port", "name", "http"]

# enum bpf_map_type; the flag is BPF_F_NO_PREALLOC, which tries must have.
_LPM_TRIE: Final = 11
_NO_PREALLOC: Final = 1
# Key bytes of the shapes in bpf/maps.h: a trie of another shape does not go into the array.
_KEY_BYTES: Final[Mapping[TrieKind, int]] = {"address": 24, "port": 8, "name": 256, "http": 256}
# A trie grows as it is filled, so the bound costs nothing: twice what a profile may hold.
_TRIE_ENTRIES: Final = 1 << 20
# One write carries so many items: 256 KB of names.
_ITEMS_A_WRITE: Final = 1024
# Descriptors of tries on their way into the arrays, below the usual limit of 1,024 open files.
_PENDING_TRIES: Final = 256

_U64_MAX: Final = (1 << 64) - 1

# enum nsp_setting
_SETTING_FLOOR: Final = 2
_SETTING_GRACE: Final = 3
_SETTING_NODE_NETWORK: Final = 6


class PolicyMaps:
    """Typed access to the maps of profiles.

    Tries go into their arrays in batches, for the kernel waits 10 ms for its programs each time; at the
    latest when a slot is switched. Call flush() to have it now.

    Args:
        maps: Descriptors by map name.
        identify: The iterator program that gives running processes their program ids.
    """

    def __init__(self, maps: Mapping[str, int], identify: int) -> None:
        self._maps = maps
        self._identify = identify
        self._pending: dict[TrieKind, dict[int, int]] = {kind: {} for kind in _KEY_BYTES}
        # Put where a trie was removed; the ids tell them from others.
        self._empty: dict[TrieKind, int] = {}
        self._empty_ids: set[int] = set()

    def close(self) -> None:
        """Let go of the tries this process made."""
        waiting = (fd for tries in self._pending.values() for fd in tries.values())
        for fd in (*self._empty.values(), *waiting):
            os.close(fd)
        self._empty.clear()
        self._pending = {kind: {} for kind in _KEY_BYTES}

    def set_policy_slot(self, slot: int, tag: int) -> None:
        """Switch a slot to another policy, in one write of eight bytes."""
        self.flush()
        self._write("policy_slots", U32.pack(slot), U64.pack(tag))

    def set_settling(self, slot: int, until_ns: int) -> None:
        """Until when a workload that gets its first policy may reach what no rule passes yet."""
        self._write("settling", U32.pack(slot), U64.pack(until_ns))

    def policy_slot(self, slot: int) -> int:
        """The tag of a slot; 0 is no policy."""
        return int(U64.unpack(self._element("policy_slots", slot, U64.size))[0])

    def policy_slots(self) -> Iterator[tuple[int, int]]:
        """All slots with a policy, with their tags."""
        for key, value in self._items("policy_slots"):
            if any(value):
                yield U32.unpack(key)[0], U64.unpack(value)[0]

    def write_policy(self, index: int, value: PolicyValue | None) -> None:
        """Write a policy that no slot leads to, or (None) empty its place."""
        empty = bytes(PolicyValue.layout.size)
        self._write("policies", U32.pack(index), empty if value is None else value.pack())

    def policies(self) -> Iterator[tuple[int, PolicyValue]]:
        """All policies."""
        for key, value in self._items("policies"):
            if any(value):
                yield U32.unpack(key)[0], PolicyValue.unpack(value)

    def write_ruleset(self, index: int, value: RulesetValue) -> None:
        """Write a rule set's own entry."""
        self._write("rulesets", U32.pack(index), value.pack())

    def rulesets(self) -> Iterator[tuple[int, RulesetValue]]:
        """All rule sets."""
        for key, value in self._items("rulesets"):
            if any(value):
                yield U32.unpack(key)[0], RulesetValue.unpack(value)

    def load_trie(self, kind: TrieKind, index: int, items: Iterable[tuple[bytes, int]]) -> None:
        """Make a trie of whole keys (``struct nsp_*_rule``) and put it into a rule set's place.

        Raises:
            KernelError: No memory, or a key no trie takes; the trie is gone again.
        """
        fd = self._make_trie(kind, _TRIE_ENTRIES)
        try:
            self._fill(fd, iter(items))
        except BaseException:
            os.close(fd)
            raise
        earlier = self._pending[kind].pop(index, None)
        if earlier is not None:
            os.close(earlier)
        self._pending[kind][index] = fd
        if sum(map(len, self._pending.values())) >= _PENDING_TRIES:
            self.flush()

    def flush(self) -> None:
        """Put the tries that wait into their arrays."""
        for kind, tries in self._pending.items():
            if not tries:
                continue
            keys = b"".join(map(U32.pack, tries))
            bpf.map_update_batch(
                self._maps[f"{kind}_rules"], keys, b"".join(map(U32.pack, tries.values())), len(tries)
            )
            for fd in tries.values():
                os.close(fd)
            tries.clear()

    def drop_rulesets(self, indices: Collection[int]) -> None:
        """Empty places that nobody leads to any more, and free their tries.

        An array of maps takes no batch of deletes, and waits 10 ms for each single one: what was there is
        replaced by one trie that is empty.
        """
        self.flush()
        empty = bytes(RulesetValue.layout.size)
        for index in indices:
            self._write("rulesets", U32.pack(index), empty)
        for kind in _KEY_BYTES:
            held = [index for index in indices if self._has_trie(kind, index)]
            if held:
                keys, tries = b"".join(map(U32.pack, held)), U32.pack(self._empty_trie(kind)) * len(held)
                bpf.map_update_batch(self._maps[f"{kind}_rules"], keys, tries, len(held))

    def set_program_id(self, path: bytes, program: int) -> None:
        """Give a path its id: components leaf first, each with its NUL; a script's path as text."""
        self._write("program_ids", path.ljust(PROGRAM_PATH_BYTES, b"\0"), U32.pack(program))

    def program_ids(self) -> Iterator[tuple[bytes, int]]:
        """All paths with their ids, as set_program_id() takes them."""
        for key, value in self._items("program_ids"):
            path = key.rstrip(b"\0")
            yield (path if path.startswith(b"/") else path + b"\0"), U32.unpack(value)[0]

    def drop_program_id(self, path: bytes) -> bool:
        """Forget a path; False when it had no id."""
        return bpf.map_delete(self._maps["program_ids"], path.ljust(PROGRAM_PATH_BYTES, b"\0"))

    def identify_programs(self) -> None:
        """Give every running process the id of its executable's path, after a new path got one."""
        run_iterator(self._identify)

    def set_program_rule(self, key: ProgramKey, value: GrantsValue) -> None:
        """Write the rule sets of one program under one policy."""
        self._write("program_rules", key.pack(), value.pack())

    def program_rules(self) -> Iterator[tuple[ProgramKey, GrantsValue]]:
        """All programs' rule sets."""
        for key, value in self._items("program_rules"):
            yield ProgramKey.unpack(key), GrantsValue.unpack(value)

    def drop_program_rule(self, key: ProgramKey) -> bool:
        """Forget one; False when there was none."""
        return bpf.map_delete(self._maps["program_rules"], key.pack())

    def set_resolver(self, key: ResolverKey) -> None:
        """Believe a DNS server."""
        self._write("resolvers", key.pack(), U32.pack(1))

    def resolvers(self) -> Iterator[ResolverKey]:
        """All DNS servers that are believed."""
        for key, _ in self._items("resolvers"):
            yield ResolverKey.unpack(key)

    def drop_resolver(self, key: ResolverKey) -> bool:
        """Believe it no longer; False when it was not."""
        return bpf.map_delete(self._maps["resolvers"], key.pack())

    def set_expected_workload(self, cgroup_name: str, slot: int) -> None:
        """A cgroup of this name, outside of every workload, will be a workload with this slot."""
        self._write("expected_workloads", _cgroup_name(cgroup_name), U32.pack(slot))

    def expected_workloads(self) -> Iterator[tuple[str, int]]:
        """All names that are waited for."""
        for key, value in self._items("expected_workloads"):
            yield key.rstrip(b"\0").decode(errors="replace"), U32.unpack(value)[0]

    def drop_expected_workload(self, cgroup_name: str) -> bool:
        """Wait no longer; False when nobody did."""
        return bpf.map_delete(self._maps["expected_workloads"], _cgroup_name(cgroup_name))

    def set_exempt(self, tgid: int, start_ns: int) -> None:
        """Neither profile nor order cuts this process: the sensor itself."""
        self._write("exempt", U32.pack(tgid), U64.pack(start_ns))

    def exempt(self) -> Iterator[tuple[int, int]]:
        """The processes nothing cuts."""
        for key, value in self._items("exempt"):
            yield U32.unpack(key)[0], U64.unpack(value)[0]

    def drop_exempt(self, tgid: int) -> bool:
        """It is governed like any other; False when it was."""
        return bpf.map_delete(self._maps["exempt"], U32.pack(tgid))

    def set_break_glass(self, entry: BreakGlass) -> None:
        """No profile cuts these flows."""
        self._write("break_glass", entry.pack(), U32.pack(1))

    def break_glass(self) -> Iterator[BreakGlass]:
        """The flows no profile cuts."""
        for key, _ in self._items("break_glass"):
            yield BreakGlass.unpack(key)

    def drop_break_glass(self, entry: BreakGlass) -> bool:
        """Profiles may cut them again; False when they could."""
        return bpf.map_delete(self._maps["break_glass"], entry.pack())

    def set_learned_times(self, floor_ns: int, grace_ns: int) -> None:
        """How long at least an answered address counts, and how long beyond its TTL."""
        self._write("settings", U32.pack(_SETTING_FLOOR), U64.pack(floor_ns))
        self._write("settings", U32.pack(_SETTING_GRACE), U64.pack(grace_ns))

    def set_node_network(self, netns: int) -> None:
        """The inode number of the node's network namespace: its own addresses may have resolvers."""
        self._write("settings", U32.pack(_SETTING_NODE_NETWORK), U64.pack(netns))

    def learned(self) -> Iterator[tuple[LearnedKey, LearnedValue]]:
        """All answered addresses."""
        for key, value in self._items("learned"):
            yield LearnedKey.unpack(key), LearnedValue.unpack(value)

    def learn_before(
        self, workload_cgroup_id: int, address: bytes, expires_ns: int, name: tuple[int, bytes]
    ) -> None:
        """Note an address a workload was answered with before it had a profile: rule set 0.

        Args:
            workload_cgroup_id: Whose.
            address: 16 bytes.
            expires_ns: CLOCK_BOOTTIME.
            name: An id, and the name as ``struct nsp_name_rule``.
        """
        self._write("learned_names", U64.pack(name[0]), name[1])
        key = LearnedKey(workload_cgroup_id, 0, address).pack()
        value = LearnedValue(expires_ns, name[0]).pack()
        if bpf.map_update(self._maps["learned"], key, value, bpf.UpdateFlag.NO_EXIST):
            self._removed(workload_cgroup_id, -1)  # a place taken is one less given back
        else:
            self._write("learned", key, value)

    def drop_learned(self, key: LearnedKey) -> bool:
        """Forget one; False when it was forgotten. The workload has its place back."""
        if not bpf.map_delete(self._maps["learned"], key.pack()):
            return False
        self._removed(key.workload_cgroup_id)
        return True

    def drop_learned_unless(self, key: LearnedKey, newer_than_ns: int) -> bool:
        """Forget one that expired before; False when it was forgotten, or learned again meanwhile."""
        packed = key.pack()
        value = bpf.map_take(self._maps["learned"], packed, LearnedValue.layout.size)
        if value is None:
            return False
        if LearnedValue.unpack(value).expires_ns > newer_than_ns and bpf.map_update(
            self._maps["learned"], packed, value, bpf.UpdateFlag.NO_EXIST
        ):
            return False
        self._removed(key.workload_cgroup_id)
        return True

    def _removed(self, workload_cgroup_id: int, places: int = 1) -> None:
        key = U64.pack(workload_cgroup_id)
        before = bpf.map_lookup(self._maps["learned_removed"], key, U64.size)
        # Modulo 2^64, as the kernel subtracts.
        removed = (U64.unpack(before)[0] if before else 0) + places & _U64_MAX
        self._write("learned_removed", key, U64.pack(removed))

    def learned_in_use(self) -> Iterator[tuple[int, int]]:
        """How many places each workload has taken of its share."""
        removed = dict(self._items("learned_removed"))
        for key, added in self._items("learned_added"):
            taken = U64.unpack(added)[0] - U64.unpack(removed.get(key, bytes(U64.size)))[0] & _U64_MAX
            yield U64.unpack(key)[0], taken

    def forget_learner(self, workload_cgroup_id: int) -> None:
        """A workload is gone, and so are its addresses: it has no share any more."""
        for name in ("learned_added", "learned_removed"):
            bpf.map_delete(self._maps[name], U64.pack(workload_cgroup_id))

    def policy_counters(self, slot: int) -> PolicyCounters:
        """What was refused and alerted under a slot since load."""
        return PolicyCounters.unpack(self._element("policy_counters", slot, PolicyCounters.layout.size))

    def policy_totals(self) -> PolicyCounters:
        """The same over all slots, also of workloads that are gone, so that they only grow; 3 ms."""
        nothing = bytes(PolicyCounters.layout.size)
        held = [PolicyCounters.unpack(nothing)]
        for _, value in self._items("policy_counters"):
            if value != nothing:
                held.append(PolicyCounters.unpack(value))
        return PolicyCounters(
            sum(each.refused_calls for each in held),
            sum(each.refused_packets for each in held),
            sum(each.alerted for each in held),
            min((each.first_refused_ns for each in held if each.first_refused_ns), default=0),
            tuple(map(sum, zip(*(each.by_reason for each in held), strict=True))),
        )

    def _fill(self, fd: int, items: Iterator[tuple[bytes, int]]) -> None:
        while some := list(islice(items, _ITEMS_A_WRITE)):
            keys, values = zip(*some, strict=True)
            bpf.map_update_batch(fd, b"".join(keys), b"".join(map(U32.pack, values)), len(some))

    def _make_trie(self, kind: TrieKind, max_entries: int) -> int:
        name = f"{kind}_rules"
        return bpf.map_create(name, _LPM_TRIE, _KEY_BYTES[kind], U32.size, max_entries, _NO_PREALLOC)

    def _empty_trie(self, kind: TrieKind) -> int:
        if kind not in self._empty:
            self._empty[kind] = self._make_trie(kind, 1)
            self._empty_ids.add(bpf.map_info(self._empty[kind]).map_id)
        return self._empty[kind]

    def _has_trie(self, kind: TrieKind, index: int) -> bool:
        """Whether there is one besides the empty one."""
        map_id = bpf.map_lookup(self._maps[f"{kind}_rules"], U32.pack(index), U32.size)
        return map_id is not None and U32.unpack(map_id)[0] not in self._empty_ids

    def _element(self, name: str, index: int, value_bytes: int) -> bytes:
        value = bpf.map_lookup(self._maps[name], U32.pack(index), value_bytes)
        if value is None:
            raise KernelError(f"map {name} has no entry {index}")
        return value

    def _write(self, name: str, key: bytes, value: bytes) -> None:
        bpf.map_update(self._maps[name], key, value)

    def _items(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        fd = self._maps[name]
        return bpf.map_items(fd, bpf.map_info(fd))


def _cgroup_name(name: str) -> bytes:
    packed = name.encode()
    if len(packed) >= CGROUP_NAME_BYTES:
        raise KernelError(f"cgroup name {name!r} has more than {CGROUP_NAME_BYTES - 1} bytes")
    return packed.ljust(CGROUP_NAME_BYTES, b"\0")
