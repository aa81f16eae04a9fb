# SPDX-License-Identifier: Apache-2.0
"""What is done about it: policy, limits, the never-cut list, desired state, and how long it took."""
