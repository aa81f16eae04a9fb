# SPDX-License-Identifier: Apache-2.0
"""What belongs together: programs and their lineage, workloads and pods, addresses and names, batches."""
