# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from Crypto.Hash import KangarooTwelve
from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.wire.errors import LocalProtocolError
from slurm_adopt.wire.kangaroo12 import CHUNK, kangaroo12


def pattern(length: int) -> bytes:
    """ptn() of RFC 9861: 00 01 … FA, again and again."""
    return bytes(index % 0xFB for index in range(length))


REQUEST = bytes.fromhex(
    "00000010c000020100000000000000000000000000000010c000020200000000000000000000000000009c400000001600000002"
)


@pytest.mark.parametrize(
    ("message", "customization", "length", "tail"),
    [
        # RFC 9861, section 5 (KT128)
        (b"", b"", 32, "1AC2D450FC3B4205D19DA7BFCA1B37513C0803577AC7167F06FE2CE1F0EF39E5"),
        (b"", b"", 64, "1AC2D450FC3B4205D19DA7BFCA1B37513C0803577AC7167F06FE2CE1F0EF39E5"
                       "4269C056B8C82E48276038B6D292966CC07A3D4645272E31FF38508139EB0A71"),
        (b"", b"", 10032, "E8DC563642F7228C84684C898405D3A834799158C079B12880277A1D28E2FF6D"),
        (pattern(1), b"", 32, "2BDA92450E8B147F8A7CB629E784A058EFCA7CF7D8218E02D345DFAA65244A1F"),
        (pattern(17), b"", 32, "6BF75FA2239198DB4772E36478F8E19B0F371205F6A9A93A273F51DF37122888"),
        (pattern(17**2), b"", 32, "0C315EBCDEDBF61426DE7DCF8FB725D1E74675D7F5327A5067F367B108ECB67C"),
        (pattern(17**3), b"", 32, "CB552E2EC77D9910701D578B457DDF772C12E322E4EE7FE417F92C758F0D59D0"),
        (b"", pattern(1), 32, "FAB658DB63E94A246188BF7AF69A133045F46EE984C56E3C3328CAAF1AA1A583"),
        (b"\xff", pattern(41), 32, "D848C5068CED736F4462159B9867FD4C20B808ACC3D5BC48E0B06BA0A3762EC4"),
        # made by a live slurmd 22.05.8, and for it
        (REQUEST, b"\x13\xab", 32, "5e73f44711e687578b63d18c74b39a272e8bfea95df967ddc5648f17c15704c9"),
        (bytes.fromhex("000000010000000000000003766d00"), b"\x13\xac", 32,
         "9c9dda3ccd68e68c5a24e75e1c15c232c5c7d7b68929d58e19d868f2ab24dc3e"),
    ],
)  # fmt: skip
def test_kangaroo12__vectors(message: bytes, customization: bytes, length: int, tail: str) -> None:
    found = kangaroo12(message, customization, length)
    assert len(found) == length
    assert found[-len(tail) // 2 :] == bytes.fromhex(tail)


@given(st.integers(0, 1200), st.binary(max_size=20), st.integers(0, 400))
def test_kangaroo12__agrees_with_another_implementation(size: int, customization: bytes, length: int) -> None:
    message = pattern(size)
    assert kangaroo12(message, customization, length) == KangarooTwelve.new(message, customization).read(length)


def test_kangaroo12__one_chunk_and_no_more() -> None:
    longest = bytes(CHUNK - 4)
    assert kangaroo12(longest, b"\x13\xac") == KangarooTwelve.new(longest, b"\x13\xac").read(32)
    with pytest.raises(LocalProtocolError):
        kangaroo12(longest + b"\0", b"\x13\xac")
