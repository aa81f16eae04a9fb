# SPDX-License-Identifier: Apache-2.0
"""The demonstration: one attack on a small web shop, seen, decided, cut and acknowledged.

``python -m demo`` (``make demo``) builds four hosts out of network namespaces and cgroups, starts
the real pipeline on an embedded broker, lets a benign client use the shop, exploits the shop, and
watches on the Kafka topics how the sensor cuts the attacker off while the shop goes on serving.
Nothing here is imported by the product.
"""
