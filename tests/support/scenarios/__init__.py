# SPDX-License-Identifier: Apache-2.0
"""Labelled scenarios: attacks and their benign twins, run for real, recorded, and judged by the pipeline.

``catalogue`` is the table, ``stage`` runs it on a real kernel, ``recording`` is what is kept of each,
``mutations`` changes recordings as an attacker would, ``judge`` lets the pipeline see them.
"""
