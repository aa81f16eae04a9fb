# SPDX-License-Identifier: Apache-2.0
"""The node agent: from the kernel's hooks to Kafka, and from signed enforcement back to the kernel's maps."""
