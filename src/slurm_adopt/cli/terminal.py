# SPDX-License-Identifier: Apache-2.0
"""What the command may do with the terminal it writes to."""

from __future__ import annotations

import os
import sys


def has_colour() -> bool:
    """Colours on a terminal only, and not where NO_COLOR (no-color.org) or TERM=dumb says otherwise."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def width() -> int:
    """Columns of the terminal: COLUMNS, else what the kernel says of it, else 80."""
    given = os.environ.get("COLUMNS", "")
    if given.isascii() and given.isdigit() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
