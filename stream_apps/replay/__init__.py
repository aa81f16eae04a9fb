# SPDX-License-Identifier: Apache-2.0
"""Old batches through the pipeline once more, to see what it would have said. Pure.

Whoever reads them (nsp/replay.py, from Kafka) hands over bytes and gets a report; the pipeline decides as it
does live, and nothing of what it decides leaves this package but figures and text.
"""
