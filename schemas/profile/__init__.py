# SPDX-License-Identifier: Apache-2.0
"""SecurityProfiles: what both sides and the command need to know of them."""
