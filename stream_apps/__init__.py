# SPDX-License-Identifier: Apache-2.0
"""Stream apps: events in, decisions out.

``correlate`` joins what belongs together, ``detect`` says what is wrong, ``respond`` what is done about it;
``pipeline`` runs the three over a batch. All of that is pure: no Kafka, no clock, no file. ``streaming`` is
the wiring to Kafka, ``config`` the one file a person writes.
"""
