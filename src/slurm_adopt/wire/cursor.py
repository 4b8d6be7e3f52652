# SPDX-License-Identifier: Apache-2.0
"""A cursor over received bytes.

Rules of this file:
1. Every read checks that the bytes are there; `Incomplete` is the only error for too few.
2. A length that came from outside is checked against the caller's cap before it is used.
3. Whoever has read a whole message calls `check_end()`: bytes left over are an error.
"""

from __future__ import annotations

import struct

from .errors import Incomplete, RemoteProtocolError


class Cursor:
    """Reads values off `data` from `position` on."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        end = self.position + count
        if end > len(self.data):
            raise Incomplete(f"{count} bytes wanted at {self.position}, {len(self.data) - self.position} there")
        chunk = self.data[self.position : end]
        self.position = end
        return chunk

    def unpack(self, layout: str) -> int:
        """One integer of a `struct` layout such as `">I"` or `"=i"`."""
        try:
            (value,) = struct.unpack_from(layout, self.data, self.position)
        except struct.error:
            raise Incomplete(
                f"{layout} wanted at {self.position}, {len(self.data) - self.position} bytes there"
            ) from None
        self.position += struct.calcsize(layout)
        return int(value)

    def take_capped(self, count: int, cap: int, what: str) -> bytes:
        """`count` bytes where `count` came from the peer and may be at most `cap`."""
        if count < 0 or count > cap:
            raise RemoteProtocolError(f"{what}: length {count} is outside 0..{cap}")
        return self.take(count)

    def check_end(self) -> None:
        """Nothing may follow."""
        if self.position != len(self.data):
            raise RemoteProtocolError(f"{len(self.data) - self.position} bytes too many")
