# SPDX-License-Identifier: Apache-2.0
"""The contract between sensors and stream apps: what is on each topic and how it is written.

Both sides import this package and it imports neither. ``avro/`` holds the schemas, ``samples/``
documents that fit them and documents that must not, ``released/`` every schema a release has ever
written, so that old messages stay readable.
"""
