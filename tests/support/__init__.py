# SPDX-License-Identifier: Apache-2.0
"""What tests and benchmarks start around the code: a real Kafka broker."""
