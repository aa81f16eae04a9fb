# SPDX-License-Identifier: Apache-2.0
"""Tests: unit/ needs nothing, kernel/ needs root and BPF, kafka/ and e2e/ need a real broker."""
