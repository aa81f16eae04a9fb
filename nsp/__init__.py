# SPDX-License-Identifier: Apache-2.0
"""The command a person types. It imports the other packages; none of them imports it."""
