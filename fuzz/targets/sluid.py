# SPDX-License-Identifier: Apache-2.0
"""Each number has one SLUID and each SLUID one number."""

from __future__ import annotations

from slurm_adopt.wire.errors import RemoteProtocolError
from slurm_adopt.wire.sluid import MAX_SLUID, decode_sluid, encode_sluid


def check(data: bytes) -> None:
    """A text; and the same bytes as a number."""
    number = int.from_bytes(data[:8], "big")
    assert decode_sluid(encode_sluid(number)) == number
    text = data.decode("utf-8", "surrogateescape")
    try:
        found = decode_sluid(text)
    except RemoteProtocolError:
        return
    assert 0 <= found <= MAX_SLUID
    assert encode_sluid(found) == text
