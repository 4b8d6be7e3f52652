# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.wire.errors import RemoteProtocolError
from slurm_adopt.wire.sock_diag import SocketOwner, decode_answer, encode_question, find_in_table

ENDS = (bytes([127, 0, 0, 1]), 40000, bytes([127, 0, 0, 1]), 22)
little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="a sample of a little-endian host")


def answer(ends: tuple[bytes, int, bytes, int] = ENDS, uid: int = 1001, inode: int = 77) -> bytes:
    local, local_port, remote, remote_port = ends
    body = bytes(4) + struct.pack(">HH", local_port, remote_port) + local.ljust(16, b"\0") + remote.ljust(16, b"\0")
    body += bytes(4 + 8 + 12) + struct.pack("=II", uid, inode)
    return struct.pack("=IHHII", 16 + len(body), 20, 0, 1, 0) + body


def test_sock_diag__question() -> None:
    question = encode_question(*ENDS)
    assert len(question) == 72
    assert struct.unpack_from("=IHH", question) == (72, 20, 1)
    assert question[16:18] == b"\2\6"
    assert question[24:28] == struct.pack(">HH", 40000, 22)


@pytest.mark.parametrize(
    ("local", "remote", "family"),
    [(b"\1\2\3\4", b"\5\6\7\x08", 2), (bytes(range(16)), bytes(range(16, 32)), 10)],
    ids=["IPv4", "IPv6"],
)
def test_sock_diag__question_byte_for_byte(local: bytes, remote: bytes, family: int) -> None:
    """linux/inet_diag.h: inet_diag_req_v2 behind a netlink header."""
    head = struct.pack("=IHHII", 72, 20, 1, 0, 0)[:8] + struct.pack("=II", 1, 0)
    ends = struct.pack(">HH", 40000, 22) + local + bytes(16 - len(local)) + remote + bytes(16 - len(remote))
    request = struct.pack("=BBBBI", family, 6, 0, 0, 0xFFFFFFFF) + ends + bytes(4) + b"\xff" * 8
    assert encode_question(local, 40000, remote, 22) == head + request


def test_sock_diag__the_largest_numbers() -> None:
    large = answer(uid=0xFFFFFFFE, inode=0xFFFFFFFF)
    assert decode_answer(b"\xff\xff\xff\xff" + large[4:], *ENDS) == SocketOwner(0xFFFFFFFE, 0xFFFFFFFF)


def test_sock_diag__answer() -> None:
    assert decode_answer(answer(), *ENDS) == SocketOwner(1001, 77)
    mapped = b"\0" * 10 + b"\xff\xff" + ENDS[0]
    assert decode_answer(answer((mapped, 40000, mapped, 22)), *ENDS) == SocketOwner(1001, 77)


@pytest.mark.parametrize(
    "ends",
    [
        (ENDS[0], 40001, ENDS[2], 22),
        (ENDS[0], 40000, bytes([127, 0, 0, 2]), 22),
        (bytes([1, 0, 0, 1]), 40000, ENDS[2], 22),
    ],
)
def test_sock_diag__an_answer_about_another_connection(ends: tuple[bytes, int, bytes, int]) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_answer(answer(ends), *ENDS)


def test_sock_diag__errors() -> None:
    header = struct.pack("=IHHII", 36, 2, 0, 1, 0)
    assert decode_answer(header + struct.pack("=i", -2) + bytes(16), *ENDS) is None
    for bad in (header + struct.pack("=i", -1), header, b"", struct.pack("=IHHII", 16, 3, 0, 1, 0), answer()[:-1]):
        with pytest.raises(RemoteProtocolError):
            decode_answer(bad, *ENDS)


# Linux 6.1
TABLE = b"""\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1 0 100 0 0 10 0
   1: 0100007F:9C40 0100007F:0016 01 00000000:00000000 02:000006D3 00000000  1001        0 4242 2 0 20 4 30 10 -1
"""


@little_endian
def test_sock_diag__table() -> None:
    assert find_in_table(TABLE, *ENDS) == SocketOwner(1001, 4242)
    assert find_in_table(TABLE, ENDS[2], 22, ENDS[0], 40000) is None
    six = TABLE.replace(b"0100007F", b"000000000000000000000000" + b"01000000")
    one = bytes(15) + b"\1"
    assert find_in_table(six, one, 40000, one, 22) == SocketOwner(1001, 4242)
    assert find_in_table(TABLE.replace(b"4242", b"9" * 20), *ENDS) == SocketOwner(1001, int("9" * 20))
    assert find_in_table(TABLE[: TABLE.index(b"4242") + 4], *ENDS) == SocketOwner(1001, 4242), (
        "the last row, no newline"
    )
    again = TABLE.replace(b"4242", b"4343")
    assert find_in_table(TABLE + again, *ENDS) == SocketOwner(1001, 4242), "the first one counts"
    far = (bytes([127, 0, 0, 200]), 40000, bytes([127, 0, 0, 1]), 22)
    assert find_in_table(TABLE.replace(b"0100007F:9C40", b"C800007F:9C40"), *far) == SocketOwner(1001, 4242)
    too_long = TABLE.replace(b"4242", b"9" * 21)
    # the rest of the row is missing, and the next one must not stand in for it
    short = TABLE.replace(b" 1001 ", b" 1001\n")
    for bad in (
        too_long,
        short,
        TABLE.replace(b"4242", b"x"),
        TABLE.replace(b"  1001 ", b" -1 "),
        TABLE[: TABLE.index(b"1001")],
    ):
        with pytest.raises(RemoteProtocolError):
            find_in_table(bad, *ENDS)


@given(st.binary(max_size=120))
def test_sock_diag__raises_nothing_else(data: bytes) -> None:
    for text in (data, answer()[:16] + data):
        try:
            decode_answer(text, *ENDS)
        except RemoteProtocolError:
            continue
