# SPDX-License-Identifier: Apache-2.0
"""``python -m nsp``: the same as the installed command ``nsp``."""

from __future__ import annotations

from nsp.cli import main

if __name__ == "__main__":
    main()
