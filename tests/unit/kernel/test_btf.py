# SPDX-License-Identifier: Apache-2.0
"""The BTF reader on a small blob built here, with the cases kernels have: nesting, anonymity, qualifiers."""

from __future__ import annotations

import struct

import pytest

from sensor.kernel.btf import Btf
from sensor.kernel.errors import KernelError
from sensor.kernel.offsets import compiler_options, option_name

INT, STRUCT, UNION, TYPEDEF, VOLATILE, FUNC, FUNC_PROTO = 1, 4, 5, 8, 9, 12, 13


class Blob:
    """Writes BTF: https://docs.kernel.org/bpf/btf.html."""

    def __init__(self) -> None:
        self._strings = bytearray(b"\0")
        self._types = bytearray()
        self._count = 0

    def text(self, name: str) -> int:
        if not name:
            return 0
        at = self._strings.find(b"\0" + name.encode() + b"\0")
        if at >= 0:
            return at + 1
        self._strings += name.encode() + b"\0"
        return len(self._strings) - len(name) - 1

    def add(self, kind: int, name: str, size_or_type: int, extra: bytes = b"", vlen: int = 0) -> int:
        self._types += struct.pack("<III", self.text(name), kind << 24 | vlen, size_or_type) + extra
        self._count += 1
        return self._count

    def composite(self, kind: int, name: str, members: list[tuple[str, int, int]]) -> int:
        extra = b"".join(struct.pack("<III", self.text(member), of, bits) for member, of, bits in members)
        return self.add(kind, name, 64, extra, len(members))

    def bytes(self) -> bytes:
        header = struct.pack(
            "<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self._types), len(self._types), len(self._strings)
        )
        return header + bytes(self._types) + bytes(self._strings)


@pytest.fixture
def btf() -> Btf:
    blob = Blob()
    number = blob.add(INT, "int", 4, bytes(4))
    inner = blob.composite(STRUCT, "path", [("mnt", number, 0), ("dentry", number, 64)])
    qualified = blob.add(VOLATILE, "", blob.add(TYPEDEF, "path_t", inner))
    anonymous = blob.composite(UNION, "", [("i_nlink", number, 32), ("__i_nlink", number, 32)])
    blob.composite(
        STRUCT,
        "file",
        [("first", number, 0), ("f_path", qualified, 128), ("", anonymous, 512), ("bits", number, 3)],
    )
    blob.add(FUNC, "bpf_iter_task", blob.add(FUNC_PROTO, "", 0))
    blob.add(TYPEDEF, "btf_trace_x", number)
    return Btf(blob.bytes())


def test_members_are_found_through_typedefs_qualifiers_and_anonymous_unions(btf: Btf) -> None:
    assert btf.offset("file", "first") == 0
    assert btf.offset("file", "f_path.dentry") == 24
    assert btf.offset("file", "i_nlink") == 68


@pytest.mark.parametrize(("structure", "path"), [("file", "gone"), ("gone", "first"), ("file", "bits")])
def test_what_is_not_there_or_has_no_byte_offset_is_a_key_error(btf: Btf, structure: str, path: str) -> None:
    with pytest.raises(KeyError):
        btf.offset(structure, path)


def test_functions_and_typedefs_have_their_ids(btf: Btf) -> None:
    assert btf.function_id("bpf_iter_task") == 8
    assert btf.typedef_id("btf_trace_x") == 9
    with pytest.raises(KeyError):
        btf.function_id("btf_trace_x")


def test_other_bytes_are_refused() -> None:
    with pytest.raises(KernelError, match="not little-endian BTF"):
        Btf(bytes(64))


def test_a_member_no_kernel_name_fits_is_named(btf: Btf) -> None:
    with pytest.raises(KernelError, match="task_struct"):
        compiler_options(btf)


def test_an_alternative_name_is_used_under_the_first_name(monkeypatch: pytest.MonkeyPatch, btf: Btf) -> None:
    monkeypatch.setattr("sensor.kernel.offsets.MEMBERS", {"file": ("renamed.dentry",)})
    monkeypatch.setattr(
        "sensor.kernel.offsets.ALTERNATIVES", {("file", "renamed.dentry"): (("file", "f_path.dentry"),)}
    )
    assert compiler_options(btf) == ["-DNSP_OFF_file__renamed_dentry=24"]
    assert option_name("sock", "__sk_common.skc_num") == "NSP_OFF_sock____sk_common_skc_num"
