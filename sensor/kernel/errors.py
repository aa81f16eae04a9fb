# SPDX-License-Identifier: Apache-2.0
"""What can go wrong between the sensor and the kernel, each with what a person can do about it.

``retryable`` says whether the same call may succeed later by itself; everything else needs somebody to
change something, so a sensor that meets it says so and ends.
"""

from __future__ import annotations

import errno
import os


class KernelError(Exception):
    """Base of everything this package raises; its text ends with the cure, where there is one.

    Args:
        message: What failed, with the name of the thing it failed on.
        cure: What to do about it; empty when the message says it all.
    """

    retryable = False

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(f"{message}; {cure}" if cure else message)
        self.message = message
        self.cure = cure


class BpfCallError(KernelError):
    """A bpf(2) command the kernel refused."""

    def __init__(self, command: str, subject: str, number: int) -> None:
        on = f" {subject}" if subject else ""
        super().__init__(f"bpf {command}{on}: {os.strerror(number)}", _CURES.get(number, ""))
        self.errno = number
        self.retryable = number in {errno.EAGAIN, errno.EINTR, errno.EBUSY}


class ProgramRefused(KernelError):  # noqa: N818 - the verifier refuses; nothing is broken
    """The verifier did not accept a program; the text holds the end of its log, which names the line."""

    def __init__(self, program: str, number: int, log_tail: str) -> None:
        cure = _CURES.get(number, "") if number == errno.EPERM else ""
        super().__init__(f"program {program} refused: {os.strerror(number)}\n{log_tail}", cure)
        self.errno = number
        self.log_tail = log_tail


class LoaderFailed(KernelError):  # noqa: N818 - named after what happened
    """The loader child ended without a result."""


class PinsIncompatible(KernelError):  # noqa: N818 - a state of the node, not of the code
    """What is pinned belongs to a sensor with another layout, or to another cgroup."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "run `nsp sensor unload` (enforcement ends), then start the sensor again")


class PinsInUse(KernelError):  # noqa: N818 - a state of the node, not of the code
    """Another live sensor, or its loader, holds the pin directory."""

    retryable = True


_CURES = {
    errno.EPERM: "needs root, or CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYS_ADMIN",
    errno.EACCES: "needs root, or CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYS_ADMIN",
    errno.ENOSYS: "this kernel was built without CONFIG_BPF_SYSCALL",
    errno.ENOENT: "nothing is there: not pinned, or already removed",
    errno.EEXIST: "something is there already: `nsp sensor unload` removes what an earlier sensor pinned",
    errno.ENOMEM: "not enough memory for the maps: lower their sizes",
    errno.E2BIG: "the map is full, or the kernel is too old for this command",
    errno.ENOLINK: "the cgroup of this link is gone",
}
