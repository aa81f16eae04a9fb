# SPDX-License-Identifier: Apache-2.0
"""Which pod, container or host service a cgroup is."""
