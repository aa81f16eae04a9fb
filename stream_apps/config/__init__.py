# SPDX-License-Identifier: Apache-2.0
"""The configuration of the stream apps: its sections, reading it, what changed, what is wrong with it."""
