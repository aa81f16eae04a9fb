# SPDX-License-Identifier: Apache-2.0
"""The programs that play in the demonstration: standard library only, one file a process."""
