# SPDX-License-Identifier: Apache-2.0
"""Takes orders from Kafka, carries them out in the kernel, and says what became of them.

::

    nsp.enforcement ─► consumer ─► verify ─► controller ─► apply ─► kernel maps
                                                 │
                              nsp.enforcement-status ◄─ status

``controller`` decides and knows no Kafka and no BPF; ``agent`` wires it to both.
"""
