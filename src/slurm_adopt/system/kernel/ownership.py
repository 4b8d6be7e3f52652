# SPDX-License-Identifier: Apache-2.0
"""Who may write a file or a folder: one rule for all that is believed because of who owns it."""

from __future__ import annotations

import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os


def only_writable_by_owner(found: os.stat_result) -> bool:
    """Whether nobody but its owner (and root) may write it: not others, and no group but root's."""
    if found.st_mode & stat.S_IWOTH:
        return False
    return not found.st_mode & stat.S_IWGRP or found.st_gid == 0
