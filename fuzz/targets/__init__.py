# SPDX-License-Identifier: Apache-2.0
"""A target is a module with `check(data)`, which raises on bytes that break the invariant of its first paragraph.

Rules of this room:
1. An invariant compares: with what is encoded again, with a second implementation, or with a simple rule from the
   documents. That nothing raises but the one error is in each of them.
2. A target keeps nothing between two calls and does the same with the same bytes.
"""

from __future__ import annotations

import pkgutil


def names() -> list[str]:
    """All Python targets."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))
