# SPDX-License-Identifier: Apache-2.0
"""Measurements anyone can repeat: ``python -m bench NAME``; the README's figures come from here."""
