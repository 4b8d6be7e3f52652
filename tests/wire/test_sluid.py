# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.wire.errors import LocalProtocolError, RemoteProtocolError
from slurm_adopt.wire.sluid import MAX_SLUID, decode_sluid, encode_sluid


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("s0000000000000", 0),
        ("s0000000000001", 1),
        ("s000000000000Z", 31),
        ("s0000000000010", 32),
        ("sFZZZZZZZZZZZZ", MAX_SLUID),
    ],
)
def test_sluid__text_and_number(text: str, number: int) -> None:
    assert decode_sluid(text) == number
    assert encode_sluid(number) == text


@given(st.integers(0, MAX_SLUID))
def test_sluid__round_trip(number: int) -> None:
    text = encode_sluid(number)
    assert len(text) == 14
    assert decode_sluid(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "s000000000000",
        "s00000000000000",
        "S0000000000000",
        "s000000000000I",
        "s000000000000L",
        "s000000000000O",
        "s000000000000U",
        "s000000000000a",
        "sG000000000000",
        "s-000000000000",
        "s000000 000000",
    ],
)
def test_sluid__refuses(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_sluid(text)


@pytest.mark.parametrize("number", [-1, 1 << 64])
def test_sluid__cannot_be_written(number: int) -> None:
    with pytest.raises(LocalProtocolError):
        encode_sluid(number)


@given(st.text(max_size=20))
def test_sluid__raises_nothing_else(text: str) -> None:
    with suppress(RemoteProtocolError):
        assert encode_sluid(decode_sluid(text)) == text
