# SPDX-License-Identifier: Apache-2.0
"""KangarooTwelve (KT128 of RFC 9861) of short messages: the hash that Slurm's RPCs carry from 22.05 on.

Rules of this file:
1. Messages of one chunk only: message, customization and its length are at most 8192 bytes together. An RPC of ours has
   56 of them. Anything longer is our own mistake: callers check what comes from outside first.
2. Plain integers: one permutation (168 bytes) takes 0.12 ms. hashlib cannot do it: SHAKE has 24 rounds, not 12.
"""

from __future__ import annotations

from .errors import LocalProtocolError

CHUNK = 8192
RATE = 168
_MASK = (1 << 64) - 1
# RFC 9861 section 2.1: the last 12 round constants of Keccak-f[1600]
_ROUNDS = (
    0x000000008000808B, 0x800000000000008B, 0x8000000000008089, 0x8000000000008003,
    0x8000000000008002, 0x8000000000000080, 0x000000000000800A, 0x800000008000000A,
    0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008,
)  # fmt: skip
# rho and pi in one walk over the lanes, lane (x, y) at 5 * y + x: (where the lane goes, how far it turns)
_WALK = (
    (10, 1), (7, 3), (11, 6), (17, 10), (18, 15), (3, 21), (5, 28), (16, 36), (8, 45), (21, 55), (24, 2), (4, 14),
    (15, 27), (23, 41), (19, 56), (13, 8), (12, 25), (2, 43), (20, 62), (14, 18), (22, 39), (9, 61), (6, 20), (1, 44),
)  # fmt: skip


def _permute(lanes: list[int]) -> None:
    """Keccak-p[1600, n_r = 12] on 25 lanes of 64 bits."""
    for constant in _ROUNDS:
        columns = [lanes[x] ^ lanes[x + 5] ^ lanes[x + 10] ^ lanes[x + 15] ^ lanes[x + 20] for x in range(5)]
        for x in range(5):
            right = columns[(x + 1) % 5]
            mix = columns[x - 1] ^ (right << 1 | right >> 63) & _MASK
            for place in range(x, 25, 5):
                lanes[place] ^= mix
        moved = lanes[1]
        for place, turn in _WALK:
            moved, lanes[place] = lanes[place], (moved << turn | moved >> 64 - turn) & _MASK
        for row in range(0, 25, 5):
            a, b, c, d, e = lanes[row : row + 5]
            lanes[row : row + 5] = (a ^ ~b & c, b ^ ~c & d, c ^ ~d & e, d ^ ~e & a, e ^ ~a & b)
        lanes[0] ^= constant


def _turboshake128(message: bytes, domain: int, length: int) -> bytes:
    padded = bytearray(message)
    padded.append(domain)
    padded.extend(bytes(-len(padded) % RATE))
    padded[-1] ^= 0x80
    lanes = [0] * 25
    for start in range(0, len(padded), RATE):
        for place in range(RATE // 8):
            lanes[place] ^= int.from_bytes(padded[start + 8 * place : start + 8 * place + 8], "little")
        _permute(lanes)
    output = b""
    while True:
        output += b"".join([lane.to_bytes(8, "little") for lane in lanes[: RATE // 8]])
        if len(output) >= length:
            return output[:length]
        _permute(lanes)


def _length_encode(number: int) -> bytes:
    """The bytes of a number, big-endian and without leading zeros, then how many they are."""
    digits = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return digits + bytes([len(digits)])


def kangaroo12(message: bytes, customization: bytes = b"", length: int = 32) -> bytes:
    """`length` bytes of KT128; `LocalProtocolError` if the input is longer than one chunk."""
    text = message + customization + _length_encode(len(customization))
    if len(text) > CHUNK:
        raise LocalProtocolError(f"{len(text)} bytes to hash, at most {CHUNK}")
    return _turboshake128(text, 0x07, length)
