# SPDX-License-Identifier: Apache-2.0
"""SecurityProfiles -> rule sets -> map entries.

``profile`` compiles a record, ``policy`` unites the profiles of a workload, ``apply`` brings the kernel to it
in one step, ``decide`` answers from the same compiled rules what the kernel would.
"""
