# SPDX-License-Identifier: Apache-2.0
"""SLUID: the 64-bit name that Slurm gives a job besides its number (25.11 and later).

Rules of this file:
1. The text is `s` and 13 upper-case base-32 digits of Crockford's alphabet (no I, L, O, U), most
   significant first; seen as a cgroup name from 26.05 on.
2. 13 digits are 65 bits: the first digit is at most `F`. There is one text for each number.
"""

from __future__ import annotations

from .errors import LocalProtocolError, RemoteProtocolError

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
TEXT_LENGTH = 14
MAX_SLUID = (1 << 64) - 1
_VALUES = {digit: value for value, digit in enumerate(ALPHABET)}


def decode_sluid(text: str) -> int:
    """The number of `s0123456789ABC`; `RemoteProtocolError` for anything else."""
    if len(text) != TEXT_LENGTH or text[0] != "s":
        raise RemoteProtocolError(f"not a SLUID: {text[:40]!r}")
    number = 0
    for digit in text[1:]:
        value = _VALUES.get(digit)
        if value is None:
            raise RemoteProtocolError(f"not a SLUID: {text!r}")
        number = number << 5 | value
    if number > MAX_SLUID:
        raise RemoteProtocolError(f"SLUID beyond 64 bits: {text!r}")
    return number


def encode_sluid(number: int) -> str:
    """The text of a 64-bit number."""
    if not 0 <= number <= MAX_SLUID:
        raise LocalProtocolError(f"not a 64-bit number: {number}")
    return "s" + "".join(ALPHABET[number >> shift & 31] for shift in reversed(range(0, 65, 5)))
