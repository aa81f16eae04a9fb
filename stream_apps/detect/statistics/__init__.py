# SPDX-License-Identifier: Apache-2.0
"""Published scores, as functions of numbers: no events, no clocks, no state."""
