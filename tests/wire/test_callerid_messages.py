# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.wire.callerid import (
    AUTH_MUNGE,
    MAX_CREDENTIAL,
    MAX_MESSAGE,
    REQUEST_NETWORK_CALLERID,
    RESPONSE_NETWORK_CALLERID,
    RESPONSE_SLURM_RC,
    UNKNOWN_VERSION,
    CallerReply,
    Message,
    decode_caller_reply,
    decode_length,
    decode_message,
    decode_return_code,
    encode_message,
    encode_request_body,
)
from slurm_adopt.wire.errors import Incomplete, LocalProtocolError, RemoteProtocolError
from slurm_adopt.wire.rpc_hash import BOUND_BODY, BOUND_NOT, BOUND_TYPE, MAX_HASHED_BODY, check_payload, hash_payload

VERSIONS = [number << 8 for number in range(36, 46)]
SOURCE, TARGET = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
REQUEST = bytes.fromhex(
    "00000010c000020100000000000000000000000000000010c000020200000000000000000000000000009c400000001600000002"
)
# sent by a live slurmd 22.05.8
REPLY = bytes.fromhex("000000010000000000000003766d00")
REPLY_K12 = "9c9dda3ccd68e68c5a24e75e1c15c232c5c7d7b68929d58e19d868f2ab24dc3e"


def test_callerid__request_body() -> None:
    assert encode_request_body(SOURCE, 40000, TARGET, 22) == REQUEST
    mapped = b"\0" * 10 + b"\xff\xff"
    assert encode_request_body(mapped + SOURCE, 40000, mapped + TARGET, 22) == REQUEST
    six = encode_request_body(b"\xfd" + b"\0" * 14 + b"\1", 40000, b"\xfd" + b"\0" * 14 + b"\2", 22)
    assert six.hex() == (
        "00000010fd00000000000000000000000000000100000010fd00000000000000000000000000000200009c40000000160000000a"
    )


@pytest.mark.parametrize(("source", "target"), [(b"", b""), (b"1234", b"x" * 16), (b"123", b"123")])
def test_callerid__no_such_addresses(source: bytes, target: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        encode_request_body(source, 1, target, 2)


@pytest.mark.parametrize(
    ("version", "header"),
    [
        (36 << 8, "2400 0000 0000 13ab 00000034 0000 0000 0000"),
        (37 << 8, "2500 0000 0000 13ab 00000034 0000 0000 0000"),
        (38 << 8, "2600 0000 13ab 00000034 0000 0000 0000"),
        (45 << 8, "2d00 0000 13ab 00000034 0000 0000 0000"),
    ],
)
def test_callerid__request(version: int, header: str) -> None:
    rest = bytes.fromhex(header) + bytes.fromhex("00000065 00000004") + b"CRE\0" + REQUEST
    expected = struct.pack(">I", len(rest)) + rest
    data = encode_message(version, REQUEST_NETWORK_CALLERID, REQUEST, AUTH_MUNGE, "CRE")
    assert data == expected
    assert decode_message(data) == Message(version, 0, REQUEST_NETWORK_CALLERID, AUTH_MUNGE, "CRE", REQUEST)


@pytest.mark.parametrize(
    ("version", "credential"),
    [(35 << 8, "x"), (46 << 8, "x"), (38 << 8 | 1, "x"), (38 << 8, ""), (38 << 8, "a\0b"), (38 << 8, "x" * 20000)],
)
def test_callerid__request_that_cannot_be(version: int, credential: str) -> None:
    with pytest.raises(LocalProtocolError):
        encode_message(version, REQUEST_NETWORK_CALLERID, REQUEST, AUTH_MUNGE, credential)


def reply(version: int, body: bytes, msg_type: int = RESPONSE_NETWORK_CALLERID) -> bytes:
    return encode_message(version, msg_type, body, AUTH_MUNGE, "MUNGE:abc:")


def body_of(version: int, job_id: int, sluid: int = 0, code: int = 0, node: bytes = b"vm\0") -> bytes:
    step = struct.pack(">QIII", sluid, job_id, 0xFFFFFFFE, 0xFFFFFFFE)
    number = step if version >= 44 << 8 else struct.pack(">I", job_id)
    return number + struct.pack(">II", code, len(node)) + node


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("job_id", "found"), [(1, 1), (0xFFFFFFFD, 0xFFFFFFFD), (0xFFFFFFFE, None), (0xFFFFFFFF, None), (0, None)]
)
def test_callerid__reply(version: int, job_id: int, found: int | None) -> None:
    message = decode_message(reply(version, body_of(version, job_id, 77)))
    assert decode_caller_reply(message) == CallerReply(found, 77 if version >= 44 << 8 else 0, "vm")


def test_callerid__reply_of_a_live_slurmd() -> None:
    assert body_of(38 << 8, 1) == REPLY
    payload = bytes([2]) + bytes.fromhex(REPLY_K12)
    assert check_payload(payload, 38 << 8, RESPONSE_NETWORK_CALLERID, REPLY) == BOUND_BODY
    assert decode_caller_reply(decode_message(reply(44 << 8, body_of(44 << 8, 5, 0xFFFFFFFFFFFFFFFE)))).sluid == 0
    assert decode_caller_reply(decode_message(reply(38 << 8, body_of(38 << 8, 5, node=b"")))).node_name == ""


@pytest.mark.parametrize("version", VERSIONS)
def test_callerid__every_truncation_and_junk(version: int) -> None:
    data = reply(version, body_of(version, 1))
    for end in range(len(data)):
        with pytest.raises(Incomplete):
            decode_message(data[:end])
    with pytest.raises(RemoteProtocolError):
        decode_message(data + b"\0")
    body = body_of(version, 1)
    for short in range(len(body)):
        with pytest.raises(RemoteProtocolError):
            decode_caller_reply(decode_message(reply(version, body[:short])))
    with pytest.raises(RemoteProtocolError):
        decode_caller_reply(decode_message(reply(version, body + b"\0")))
    for short in range(20, len(data) - 4):
        # whole by its length, cut inside: no amount of further bytes completes it
        cut = struct.pack(">I", short) + data[4 : 4 + short]
        with pytest.raises(RemoteProtocolError) as caught:
            decode_message(cut)
        assert not isinstance(caught.value, Incomplete)


def patched(version: int, place: int, value: str) -> bytes:
    data = bytearray(reply(version, body_of(version, 1)))
    raw = bytes.fromhex(value)
    data[place : place + len(raw)] = raw
    return bytes(data)


# offsets in a v38 message: length 0, version 4, flags 6, type 8, body length 10, forward 14, ret 16, family 18,
# plugin 20, credential length 24, credential 28..38, body 39
@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, "00000000"),
        (0, "0000000f"),
        (0, "00010001"),
        (0, "ffffffff"),
        (4, "2300"),
        (4, "2e00"),
        (4, "2601"),
        (4, "0000"),
        (4, "ffff"),
        (6, "0040"),
        (10, "0000000e"),
        (10, "00000010"),
        (10, "ffffffff"),
        (14, "0001"),
        (16, "0001"),
        (18, "0002"),
        (18, "000a"),
        (24, "00000000"),
        (24, "00004001"),
        (24, "ffffffff"),
        (30, "00"),
        (30, "ff"),
        (38, "41"),
    ],
)
def test_callerid__malformed_messages(place: int, value: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_message(patched(38 << 8, place, value))


@pytest.mark.parametrize(
    "body",
    [
        body_of(38 << 8, 1, code=1),
        body_of(38 << 8, 1, node=b"vm"),
        body_of(38 << 8, 1, node=b"v\0m\0"),
        body_of(38 << 8, 1, node=b"\xff\0"),
        body_of(38 << 8, 1, node=b"x" * 600 + b"\0"),
        body_of(45 << 8, 1),
    ],
)
def test_callerid__malformed_bodies(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_caller_reply(decode_message(reply(38 << 8, body)))


def refusal(version: int, code: int, flags: int = 0x40) -> bytes:
    index = b"\0\0" if version <= 37 << 8 else b""
    rest = struct.pack(">HH", version, flags) + index + struct.pack(">HIHHHI", RESPONSE_SLURM_RC, 4, 0, 0, 0, code)
    return struct.pack(">I", len(rest)) + rest


@pytest.mark.parametrize("version", [36 << 8, 38 << 8, 45 << 8, 46 << 8, 99 << 8, UNKNOWN_VERSION])
def test_callerid__refusal_without_credential(version: int) -> None:
    message = decode_message(refusal(version, 1007))
    assert (message.plugin, message.credential) == (None, None)
    assert decode_return_code(message) == 1007
    with pytest.raises(RemoteProtocolError):
        decode_caller_reply(message)


def test_callerid__refusals_with_credential_and_addresses() -> None:
    assert decode_return_code(decode_message(reply(38 << 8, struct.pack(">I", 5003), RESPONSE_SLURM_RC))) == 5003
    for address in ("0002 0100007f 1a2a", "000a 00000010" + "00" * 16 + "1a2a", "0001"):
        rest = struct.pack(">HHHIHH", 38 << 8, 0x40, RESPONSE_SLURM_RC, 4, 0, 0) + bytes.fromhex(address)
        rest += struct.pack(">I", 13000)
        assert decode_return_code(decode_message(struct.pack(">I", len(rest)) + rest)) == 13000
    with pytest.raises(RemoteProtocolError):
        decode_return_code(decode_message(reply(38 << 8, REPLY)))
    with pytest.raises(RemoteProtocolError):
        decode_return_code(decode_message(reply(38 << 8, bytes(5), RESPONSE_SLURM_RC)))


def test_callerid__length() -> None:
    with pytest.raises(Incomplete):
        decode_length(b"\0\0\0")
    assert decode_length(struct.pack(">I", MAX_MESSAGE) + b"rest") == MAX_MESSAGE + 4


@given(st.binary(max_size=120), st.sampled_from([*VERSIONS, 46 << 8, UNKNOWN_VERSION, 0]), st.booleans())
def test_callerid__raises_nothing_else(tail: bytes, version: int, framed: bool) -> None:
    data = struct.pack(">H", version) + tail
    try:
        message = decode_message(struct.pack(">I", len(data)) + data if framed else tail)
    except RemoteProtocolError:
        return
    for decode in (decode_caller_reply, decode_return_code):
        try:
            decode(message)
        except RemoteProtocolError:
            continue


def test_callerid__the_largest_numbers() -> None:
    version = 45 << 8
    assert decode_message(encode_message(version, RESPONSE_SLURM_RC, b"x", 0xFFFFFFFF, "c")).plugin == 0xFFFFFFFF
    rest = struct.pack(">HHHIHHH", version, 0xFFFF, 0xFFFF, 0, 0, 0, 0)
    message = decode_message(struct.pack(">I", len(rest)) + rest)
    assert (message.flags, message.msg_type, message.body) == (0xFFFF, 0xFFFF, b"")
    assert decode_return_code(Message(version, 0, RESPONSE_SLURM_RC, None, None, b"\xff" * 4)) == 0xFFFFFFFF
    assert encode_message(version, 0xFFFF, b"", AUTH_MUNGE, "c")[8:10] == b"\xff\xff"
    most = encode_message(version, RESPONSE_SLURM_RC, b"", AUTH_MUNGE, "c" * (MAX_CREDENTIAL - 1))
    assert decode_message(most).credential == "c" * (MAX_CREDENTIAL - 1)
    with pytest.raises(LocalProtocolError):
        encode_message(version, RESPONSE_SLURM_RC, b"", AUTH_MUNGE, "c" * MAX_CREDENTIAL)


def test_callerid__the_shortest_and_the_longest_message() -> None:
    assert decode_length(struct.pack(">I", 16)) == 20
    data = reply(38 << 8, REPLY)
    assert decode_message(data, len(data) - 4).body == REPLY
    with pytest.raises(RemoteProtocolError, match=f"message of {len(data) - 4} bytes"):
        decode_message(data, len(data) - 5)


def test_callerid__an_address_that_is_too_long() -> None:
    for size, is_good in ((16, True), (17, False)):
        rest = struct.pack(">HHHIHH", 38 << 8, 0x40, RESPONSE_SLURM_RC, 4, 0, 0)
        rest += struct.pack(">HI", 10, size) + bytes(size + 2) + bytes(4)
        data = struct.pack(">I", len(rest)) + rest
        if is_good:
            assert decode_return_code(decode_message(data)) == 0
        else:
            with pytest.raises(RemoteProtocolError, match="address"):
                decode_message(data)


@pytest.mark.parametrize(
    ("body", "word"), [(body_of(38 << 8, 1, node=b"x" * 600 + b"\0"), "node name"), (REPLY[:-2] + b"\0\0", "node name")]
)
def test_callerid__a_name_that_is_none(body: bytes, word: str) -> None:
    with pytest.raises(RemoteProtocolError, match=f"^{word}"):
        decode_caller_reply(Message(38 << 8, 0, RESPONSE_NETWORK_CALLERID, AUTH_MUNGE, "c", body))


def test_callerid__says_what_is_too_long() -> None:
    with pytest.raises(RemoteProtocolError, match=r"^credential"):
        decode_message(patched(38 << 8, 24, "00004001"))
    with pytest.raises(RemoteProtocolError, match=r"^body"):
        decode_message(patched(38 << 8, 10, "ffffffff"))


def test_callerid__another_message_with_the_same_body() -> None:
    with pytest.raises(RemoteProtocolError, match="type"):
        decode_caller_reply(Message(38 << 8, 0, RESPONSE_SLURM_RC, AUTH_MUNGE, "c", REPLY))
    with pytest.raises(RemoteProtocolError, match="type"):
        decode_caller_reply(Message(46 << 8, 0, RESPONSE_NETWORK_CALLERID, AUTH_MUNGE, "c", body_of(46 << 8, 1)))


def test_callerid__only_two_mapped_addresses_are_shortened() -> None:
    mapped, plain = bytes(10) + b"\xff\xff\1\2\3\4", bytes(15) + b"\1"
    assert encode_request_body(mapped, 1, mapped, 2)[-4:] == struct.pack(">I", 2)
    for one, other in ((mapped, plain), (plain, mapped)):
        body = encode_request_body(one, 1, other, 2)
        assert body[4:20] + body[24:40] == one + other
        assert body[-4:] == struct.pack(">I", 10)


HOST = struct.pack("=H", REQUEST_NETWORK_CALLERID)
K12 = bytes.fromhex("025e73f44711e687578b63d18c74b39a272e8bfea95df967ddc5648f17c15704c9")
SHA3 = bytes.fromhex("04ad1d38bf1a0716ee6efa66372e737182d8bf984381849bde745312ddebd9d934")


@pytest.mark.parametrize("version", VERSIONS)
def test_rpc_hash__what_we_send(version: int) -> None:
    expected = b"\1" + HOST if version < 38 << 8 else K12
    assert hash_payload(version, REQUEST_NETWORK_CALLERID, REQUEST) == expected


@pytest.mark.parametrize(
    ("payload", "before_38", "from_38"),
    [
        (b"", BOUND_NOT, None),
        (b"\1" + HOST, BOUND_TYPE, None),
        (b"\1" + HOST + b"\0", None, None),
        (b"\1\x13\xac", None, None),
        (K12, BOUND_BODY, BOUND_BODY),
        (SHA3, BOUND_BODY, BOUND_BODY),
        (K12[:-1], None, None),
        (K12 + b"\0", None, None),
        (b"\3" + K12[1:], None, None),
        (b"\4" + K12[1:], None, None),
        (K12[:-1] + b"\0", None, None),
    ],
)
def test_rpc_hash__what_we_believe(payload: bytes, before_38: str | None, from_38: str | None) -> None:
    for version in VERSIONS:
        expected = before_38 if version < 38 << 8 else from_38
        assert check_payload(payload, version, REQUEST_NETWORK_CALLERID, REQUEST) == expected


def test_rpc_hash__our_own_request_sent_back_is_no_reply() -> None:
    for version in VERSIONS:
        ours = hash_payload(version, REQUEST_NETWORK_CALLERID, REQUEST)
        assert check_payload(ours, version, RESPONSE_NETWORK_CALLERID, REQUEST) is None
        assert check_payload(ours, version, RESPONSE_NETWORK_CALLERID, REPLY) is None


def test_rpc_hash__a_body_too_long_to_hash() -> None:
    assert check_payload(K12, 38 << 8, RESPONSE_NETWORK_CALLERID, bytes(9000)) is None
    longest = bytes(MAX_HASHED_BODY)
    assert check_payload(hash_payload(38 << 8, 0xFFFF, longest), 38 << 8, 0xFFFF, longest) == BOUND_BODY
    assert check_payload(hash_payload(36 << 8, 0xFFFF, b""), 36 << 8, 0xFFFF, b"") == BOUND_TYPE
