# SPDX-License-Identifier: Apache-2.0
"""From the ring buffer to Kafka: drain, decode, batch, encode, produce, release."""
