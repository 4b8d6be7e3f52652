# SPDX-License-Identifier: Apache-2.0
"""Values out of fuzzed bytes; what is not there is 0 or empty."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


class Reader:
    """Takes values off `data`, one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        """The next bytes, as many as there are."""
        piece = self.data[self.at : self.at + count]
        self.at += len(piece)
        return piece

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self.data))

    def number(self, below: int) -> int:
        """A number from 0 on."""
        size = max(1, (below.bit_length() + 7) // 8)
        return int.from_bytes(self.take(size), "little") % below

    def one_of(self, values: tuple[T, ...]) -> T:
        """One of these."""
        return values[self.number(len(values))]

    def text(self, cap: int) -> str:
        """A text of at most `cap` bytes, as the file system's names are decoded: any byte may be in it but NUL."""
        return self.take(self.number(cap + 1)).replace(b"\0", b"=").decode("utf-8", "surrogateescape")
