# SPDX-License-Identifier: Apache-2.0
"""One structured log line: `key=value key="va\\"lue"`, in a fixed order, safe to parse whatever a user is called."""

from __future__ import annotations

from ..words import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

BARE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:/@+,%*"


def format_line(pairs: Iterable[tuple[str, str | int]]) -> str:
    """Pairs as one line; empty values are left out."""
    return " ".join(
        [
            f"{key}={value if isinstance(value, int) or not value.strip(BARE) else _quote(value)}"
            for key, value in pairs
            if value != ""
        ]
    )


def _quote(text: str) -> str:
    return '"' + printable(text).replace("\\", "\\\\").replace('"', '\\"') + '"'
