# SPDX-License-Identifier: Apache-2.0
"""What can go wrong in the sensor outside of the kernel part, and whether trying again helps."""

from __future__ import annotations


class SensorError(Exception):
    """Base of the sensor's errors."""


class SettingsError(SensorError):
    """A setting that cannot be used. Permanent: a person has to change it.

    Args:
        name: The flag without dashes in front.
        value: What was given.
        cure: What would be accepted.
    """

    def __init__(self, name: str, value: str, cure: str) -> None:
        super().__init__(f"--{name} {value!r} cannot be used; expected: {cure}")
        self.name = name
        self.value = value
        self.cure = cure
