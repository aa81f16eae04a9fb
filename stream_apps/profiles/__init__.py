# SPDX-License-Identifier: Apache-2.0
"""SecurityProfiles and pods -> one order for each profile and node. Pure.

``record`` says what is wrong with a published profile, ``book`` knows which pods each profile selects,
``orders`` what each node was told, ``desk`` compares the two.
"""
