# SPDX-License-Identifier: Apache-2.0
"""What workloads do, merged over their replicas: how complete that is, and a SecurityProfile from it."""
