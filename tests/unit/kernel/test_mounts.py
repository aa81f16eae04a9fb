# SPDX-License-Identifier: Apache-2.0
"""Finding bpffs and the cgroup v2 hierarchy on hosts that differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensor.kernel.errors import KernelError
from sensor.kernel.mounts import cgroup2_mount, ensure_bpffs, file_system_of, parse_mountinfo

UNIFIED = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw
24 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
25 23 0:30 / /sys/fs/bpf rw,nosuid shared:11 - bpf bpf rw,mode=700
"""
HYBRID = """\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
24 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
30 24 0:28 /part /mnt/a\\040space/deep/cgroup rw - cgroup2 cgroup2 rw
25 24 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
26 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""


def test_the_v2_hierarchy_is_found_on_unified_and_hybrid_hosts() -> None:
    assert cgroup2_mount(parse_mountinfo(UNIFIED)) == Path("/sys/fs/cgroup")
    assert cgroup2_mount(parse_mountinfo(HYBRID)) == Path("/sys/fs/cgroup/unified")


def test_a_host_without_v2_gets_the_mount_command() -> None:
    with pytest.raises(KernelError, match="mount -t cgroup2"):
        cgroup2_mount(parse_mountinfo("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"))


def test_the_deepest_mount_decides_the_file_system() -> None:
    mounts = parse_mountinfo(UNIFIED)
    assert file_system_of(Path("/sys/fs/bpf/nsp"), mounts) == "bpf"
    assert file_system_of(Path("/sys/fs/bpfx"), mounts) == "sysfs"
    assert file_system_of(Path("/var/lib"), mounts) == "ext4"


def test_the_later_of_two_mounts_on_one_place_counts() -> None:
    covered = parse_mountinfo(UNIFIED + "40 25 0:40 / /sys/fs/bpf rw - tmpfs tmpfs rw\n")
    assert file_system_of(Path("/sys/fs/bpf/nsp"), covered) == "tmpfs"


def test_escaped_names_are_read() -> None:
    assert Path("/mnt/a space/deep/cgroup") in {mount.point for mount in parse_mountinfo(HYBRID)}


def test_a_pin_directory_elsewhere_is_refused_with_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="under /sys/fs/bpf"):
        ensure_bpffs(tmp_path)
