# SPDX-License-Identifier: Apache-2.0
"""Which kernel struct members the C reads, and their offsets as compiler options.

Mirrors bpf/offsets.h (a test compares them). A member that kernels name differently has alternatives,
tried in order; the option keeps the first name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sensor.kernel.errors import KernelError

if TYPE_CHECKING:
    from sensor.kernel.btf import Btf

# struct -> member paths; "." goes into a member that is a struct itself.
MEMBERS: Final[dict[str, tuple[str, ...]]] = {
    "task_struct": (
        "tgid",
        "pid",
        "mm",
        "comm",
        "real_parent",
        "group_leader",
        "start_boottime",
        "nsproxy",
        "thread_pid",
        "cgroups",
        "exit_code",
        "signal",
        "cred",
        "files",
    ),
    "signal_struct": ("live",),
    "cred": (
        "uid",
        "gid",
    ),
    "mm_struct": (
        "exe_file",
        "arg_start",
        "arg_end",
    ),
    "file": (
        "f_inode",
        "f_path.dentry",
        "f_path.mnt",
    ),
    "inode": (
        "i_ino",
        "i_sb",
        "i_mode",
        "i_nlink",
    ),
    "super_block": ("s_dev",),
    "dentry": (
        "d_parent",
        "d_name.name",
    ),
    "vfsmount": ("mnt_root",),
    "mount": (
        "mnt",
        "mnt_parent",
        "mnt_mountpoint",
    ),
    "nsproxy": (
        "mnt_ns",
        "net_ns",
    ),
    "mnt_namespace": (
        "ns.inum",
        "user_ns",
    ),
    "user_namespace": ("level",),
    "linux_binprm": (
        "filename",
        "interp",
    ),
    "net": ("ns.inum",),
    "net_device": ("nd_net",),
    "sk_buff": ("dev",),
    "pid": (
        "level",
        "numbers",
    ),
    "upid": ("ns",),
    "pid_namespace": ("ns.inum",),
    "css_set": ("dfl_cgrp",),
    "cgroup": (
        "kn",
        "level",
        "root",
        "self",
        "self.parent",
    ),
    "kernfs_node": (
        "id",
        "name",
    ),
    "cgroup_root": ("hierarchy_id",),
    "files_struct": ("fdt",),
    "fdtable": (
        "fd",
        "max_fds",
    ),
    "socket_alloc": (
        "socket",
        "vfs_inode",
    ),
    "socket": ("sk",),
    "inet_sock": ("inet_sport",),
    "sock": (
        "__sk_common.skc_family",
        "__sk_common.skc_state",
        "__sk_common.skc_flags",
        "__sk_common.skc_dport",
        "__sk_common.skc_daddr",
        "__sk_common.skc_rcv_saddr",
        "__sk_common.skc_v6_daddr",
        "__sk_common.skc_v6_rcv_saddr",
        "sk_protocol",
    ),
    "tcp_sock": (
        "bytes_acked",
        "bytes_received",
        "bytes_sent",
        "bytes_retrans",
    ),
}

# (struct, path) -> other (struct, path) pairs that mean the same in other kernels.
ALTERNATIVES: Final[dict[tuple[str, str], tuple[tuple[str, str], ...]]] = {
    ("task_struct", "start_boottime"): (("task_struct", "real_start_time"),),  # before 5.5
    ("file", "f_path.dentry"): (("file", "__f_path.dentry"),),
    ("file", "f_path.mnt"): (("file", "__f_path.mnt"),),
    ("inode", "i_nlink"): (("inode", "__i_nlink"),),
    ("dentry", "d_name.name"): (("dentry", "__d_name.name"),),
    ("mnt_namespace", "ns.inum"): (("mnt_namespace", "ns_inum"),),
}


def option_name(structure: str, path: str) -> str:
    """The macro bpf/offsets.h asks for: ``NSP_OFF_file__f_path_mnt``."""
    return f"NSP_OFF_{structure}__{path.replace('.', '_')}"


def compiler_options(btf: Btf) -> list[str]:
    """A ``-DNSP_OFF_...=bytes`` for each member.

    Raises:
        KernelError: A member this kernel does not have under any known name.
    """
    return [
        f"-D{option_name(structure, path)}={_offset(btf, structure, path)}"
        for structure, paths in MEMBERS.items()
        for path in paths
    ]


def _offset(btf: Btf, structure: str, path: str) -> int:
    for where in ((structure, path), *ALTERNATIVES.get((structure, path), ())):
        try:
            return btf.offset(*where)
        except KeyError:
            continue
    raise KernelError(f"this kernel has no {structure}.{path}", "the sensor must learn its new name")
