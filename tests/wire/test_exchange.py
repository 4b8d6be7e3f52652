# SPDX-License-Identifier: Apache-2.0
"""The packets between module and helper."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.record import replace
from slurm_adopt.wire.errors import LocalProtocolError, RemoteProtocolError
from slurm_adopt.wire.fields import FIELD_CAP, PACKET_CAP, TEXT_CAP, decode_fields, encode_fields, number_of, one_line
from slurm_adopt.wire.login_exchange import (
    LOG_CAP,
    Connection,
    LoginReply,
    LoginRequest,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)

CONNECTION = Connection(4, 6, "::ffff:10.0.0.2", 22, "::ffff:10.0.0.1", 40000)
REQUEST = LoginRequest(
    "account", 123456789, "sshd", "alice", 1501, "10.0.0.1", "ssh", "12", ("profile=strict", "a=b=c"), (CONNECTION,)
)
UNSET_REPLY = LoginReply("success", "adopted", unset=("SLURM_JOB_ID", "OTHER"))
LEAVE_REPLY = LoginReply("success", "exempt", leave=True)
REPLY = LoginReply(
    "success",
    "adopted",
    "info",
    "verdict=allow",
    "",
    "joined job 12",
    (("SLURM_JOB_ID", "12"), ("DISPLAY", "localhost:1.0")),
    ("user", "mount"),
    "perm_denied",
    "no",
)


def test_exchange__round_trip() -> None:
    assert decode_request(encode_request(REQUEST)) == REQUEST
    assert decode_reply(encode_reply(REPLY)) == REPLY
    assert decode_reply(encode_reply(UNSET_REPLY)) == UNSET_REPLY
    assert decode_reply(encode_reply(LEAVE_REPLY)) == LEAVE_REPLY
    for account in ("asked", "left"):
        request = replace(REQUEST, phase="open_session", account=account)
        assert decode_request(encode_request(request)) == request
    with pytest.raises(RemoteProtocolError):
        decode_request(encode_request(replace(REQUEST, account="skipped")))


def test_exchange__a_request_field_by_field() -> None:
    request = replace(REQUEST, phase="open_session", chosen="newest", auth="publickey x", strict=True, account="asked")
    fields = [
        "V=1", "PHASE=open_session", "DEADLINE=123456789", "SERVICE=sshd", "USER=alice", "UID=1501", "RHOST=10.0.0.1",
        "TTY=ssh", "JOB=12", "CHOSEN=newest", "AUTH=publickey x", "STRICT=1", "ACCOUNT=asked", "ARG0=profile=strict",
        "ARG1=a=b=c", "CONN0=4 6 ::ffff:10.0.0.2 22 ::ffff:10.0.0.1 40000",
    ]  # fmt: skip
    packet = "".join(f"{field}\0" for field in fields).encode()
    assert encode_request(request) == packet
    assert decode_request(packet) == request
    for surplus in (b"ARG3=x\0", b"CONN2=x\0", b"STRICT=\0", b"STRICT=2\0"):
        with pytest.raises(RemoteProtocolError):
            decode_request(packet + surplus)
    with pytest.raises(RemoteProtocolError):
        decode_request(packet.replace(b"STRICT=1", b"STRICT=2"))


def test_exchange__what_a_request_need_not_say() -> None:
    packet = b"V=1\0PHASE=account\0DEADLINE=1\0SERVICE=s\0USER=u\0UID=0\0"
    assert decode_request(packet) == LoginRequest("account", 1, "s", "u", 0)


def test_exchange__a_reply_field_by_field() -> None:
    reply = replace(REPLY, level="notice", error="e", unset=("A", "B"), hold=True, leave=True)
    fields = [
        "V=1", "RESULT=success", "REASON=adopted", "LEVEL=notice", "LOG=verdict=allow", "ERROR=e", "INFO=joined job 12",
        "HOLD=1", "LEAVE=1", "UNSET0=A", "UNSET1=B", "ENV0=SLURM_JOB_ID=12", "ENV1=DISPLAY=localhost:1.0", "JOIN0=user",
        "JOIN1=mount", "JOIN_FAILED=perm_denied", "JOIN_ERROR=no",
    ]  # fmt: skip
    packet = "".join(f"{field}\0" for field in fields).encode()
    assert encode_reply(reply) == packet
    assert decode_reply(packet) == reply
    for surplus in (b"ENV3=A=B\0", b"UNSET3=A\0", b"JOIN3=net\0"):
        with pytest.raises(RemoteProtocolError):
            decode_reply(packet + surplus)
    assert decode_reply(packet.replace(b"ENV1=DISPLAY=", b"ENV1=DISPLAY==")).env[1] == ("DISPLAY", "=localhost:1.0")


def test_exchange__what_a_reply_need_not_say() -> None:
    found = decode_reply(b"V=1\0RESULT=ignore\0REASON=x\0")
    assert found == LoginReply("ignore", "x")
    assert (found.hold, found.leave, found.level) == (False, False, "info")


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("family", 4, 5),
        ("family", 6, 7),
        ("fd", 0, -1),
        ("local_port", 0, -1),
        ("local_port", 65535, 65536),
        ("peer_port", 0, -1),
        ("peer_port", 65535, 65536),
    ],
)
def test_exchange__connections(name: str, good: int, bad: int) -> None:
    assert getattr(replace(CONNECTION, **{name: good}), name) == good
    with pytest.raises(RemoteProtocolError):
        replace(CONNECTION, **{name: bad})


def test_exchange__a_connection_is_six_words_with_one_blank_between_them() -> None:
    packet = encode_request(REQUEST)
    said = b"=4 6 ::ffff:10.0.0.2 22 "
    assert packet.count(said) == 1
    assert decode_request(packet) == REQUEST
    for wrong in (said.replace(b"6 ", b"6  "), said.replace(b"6 ", b"6\t"), said.replace(b"=", b"= ")):
        with pytest.raises(RemoteProtocolError):
            decode_request(packet.replace(said, wrong))


def test_exchange__the_longest_names() -> None:
    assert replace(REQUEST, user="u" * 256, service="s" * 64)
    for one in ({"user": "u" * 257}, {"service": "s" * 65}, {"user": ""}):
        with pytest.raises(RemoteProtocolError):
            replace(REQUEST, **one)


def test_fields__the_largest_packet() -> None:
    value = "x" * (PACKET_CAP - len("V=1_K=_"))
    packet = encode_fields([("K", value)])
    assert len(packet) == PACKET_CAP
    assert decode_fields(packet) == {"K": value}
    many = [(f"K{number}", "\udcff") for number in range(FIELD_CAP - 1)]
    assert list(decode_fields(encode_fields(many)).items()) == many
    for too_large in ([("K", value + "x")], [*many, ("K", "x")]):
        with pytest.raises(LocalProtocolError):
            encode_fields(too_large)


@pytest.mark.parametrize(
    ("key", "is_one"),
    [
        ("A", True),
        ("Z9_", True),
        ("Z" * 24, True),
        ("Z" * 25, False),
        ("aA", False),
        ("_A", False),
        ("9A", False),
        ("[A", False),
    ],
)
def test_fields__keys(key: str, is_one: bool) -> None:
    packet = f"V=1\0{key}=x\0".encode()
    if is_one:
        assert decode_fields(packet) == {key: "x"}
    else:
        with pytest.raises(RemoteProtocolError):
            decode_fields(packet)


def test_fields__numbers() -> None:
    assert number_of("9" * 20) == int("9" * 20)
    with pytest.raises(RemoteProtocolError):
        number_of("9" * 21)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("abc", "abc"),
        ("abcdefgh", "abcdefgh"),
        ("abcdefghi", "abcdefgh"),
        ("a\tb", "a?b"),
        ("äöüß", "äöüß"),
        ("aäöüß", "aäöü"),
        ("äö\nß", "äö?ß"),
        ("a\udcffb", "a?b"),
    ],
)
def test_fields__one_line(text: str, line: str) -> None:
    assert one_line(text, 8) == line


@pytest.mark.parametrize("packet", [encode_request(REQUEST), encode_reply(REPLY)], ids=["request", "reply"])
def test_exchange__every_truncation_is_refused_or_whole_fields(packet: bytes) -> None:
    decode = decode_request if b"PHASE" in packet else decode_reply
    whole = decode(packet)
    for end in range(len(packet)):
        try:
            assert decode(packet[:end]) != whole  # type: ignore[comparison-overlap]
        except RemoteProtocolError:
            continue
        assert packet[end - 1] == 0, "only a packet that ends with a whole field can be read"


REFUSED = [
    b"",
    b"\0",
    b"V=1",
    b"V=2\0RESULT=success\0REASON=x\0",
    b"RESULT=success\0V=1\0REASON=x\0",
    b"V=1\0RESULT=success\0",
    b"V=1\0REASON=x\0",
    b"V=1\0RESULT=success\0REASON=\0",
    b"V=1\0RESULT=SUCCESS\0REASON=x\0",
    b"V=1\0RESULT=success\0REASON=x\0REASON=y\0",
    b"V=1\0RESULT=success\0REASON=x\0lower=1\0",
    b"V=1\0RESULT=success\0REASON=x\0" + b"K" * 25 + b"=1\0",
    b"V=1\0RESULT=success\0REASON=x\0=1\0",
    b"V=1\0RESULT=success\0REASON=x\0NOVALUE\0",
    b"V=1\0RESULT=success\0REASON=x\0ENV1=A=B\0",
    b"V=1\0RESULT=success\0REASON=x\0ENV0=A\0",
    b"V=1\0RESULT=success\0REASON=x\0UNSET0=A=B\0",
    b"V=1\0RESULT=success\0REASON=x\0UNSET1=A\0",
    b"V=1\0RESULT=success\0REASON=x\0JOIN0=mount\0",
    b"V=1\0RESULT=success\0REASON=x\0JOIN0=moon\0JOIN_FAILED=ignore\0",
    b"V=1\0RESULT=success\0REASON=x\0LEVEL=loud\0",
    b"V=1\0RESULT=success\0REASON=x\0" + b"".join(b"K%d=1\0" % n for n in range(70)),
    b"V=1\0RESULT=success\0REASON=x\0LOG=" + b"x" * PACKET_CAP + b"\0",
]


@pytest.mark.parametrize("packet", REFUSED)
def test_exchange__malformed_reply(packet: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_reply(packet)


@pytest.mark.parametrize("field", [b"SERVICE=sshd", b"USER=alice", b"PHASE=account"])
def test_exchange__what_a_request_needs_is_not_empty(field: bytes) -> None:
    """It would be left out of the request that is made of it again."""
    packet = encode_request(replace(REQUEST, service="sshd", user="alice", phase="account"))
    assert field in packet
    with pytest.raises(RemoteProtocolError, match="is empty"):
        decode_request(packet.replace(field, field.partition(b"=")[0] + b"="))


@pytest.mark.parametrize("uid", [b"+5", b" 5", b"1_0", b"-1", b"4294967295", b"", b"5a", "٥".encode()])
def test_exchange__a_number_is_digits(uid: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_request(encode_request(REQUEST).replace(b"UID=1501", b"UID=" + uid))


def test_exchange__unknown_fields_are_passed_over() -> None:
    assert decode_request(encode_request(REQUEST) + b"NEWER=1\0") == REQUEST


def test_exchange__words_are_one_line_and_capped() -> None:
    reply = decode_reply(encode_reply(replace(REPLY, log="a\nb\x1b[31m", error="é" * 4000)))
    assert reply.log == "a?b?[31m"
    assert reply.error == "é" * 256


def test_exchange__every_text_is_capped_where_it_is_written() -> None:
    long = {"log": "x" * 1100, "error": "x" * 600, "info": "x" * 600, "join_error": "x" * 600}
    packet = encode_reply(replace(REPLY, **long))
    texts = dict(field.decode().split("=", 1) for field in packet.split(b"\0") if field)
    caps = {"LOG": LOG_CAP, "ERROR": TEXT_CAP, "INFO": TEXT_CAP, "JOIN_ERROR": TEXT_CAP}
    assert {name: len(texts[name]) for name in caps} == caps


def test_exchange__what_does_not_fit_is_our_fault() -> None:
    with pytest.raises(LocalProtocolError):
        encode_reply(replace(REPLY, env=(("XAUTHORITY", "x" * 5000),)))
    with pytest.raises(LocalProtocolError):
        encode_reply(replace(REPLY, env=(("A", "x\0RESULT=success"),)))


@given(st.binary(max_size=300))
def test_exchange__any_bytes_are_decoded_or_refused(data: bytes) -> None:
    for decode in (decode_request, decode_reply):
        for packet in (data, b"V=1\0" + data + b"\0"):
            try:
                decode(packet)
            except RemoteProtocolError:
                continue


@given(st.text(max_size=60).filter(lambda text: "\0" not in text), st.integers(0, 0xFFFFFFFE))
def test_exchange__any_name_survives(name: str, uid: int) -> None:
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return
    request = replace(REQUEST, user=name or "x", uid=uid, rhost=name)
    again = decode_request(encode_request(request))
    assert again.user.encode("utf-8", "surrogateescape") == request.user.encode("utf-8", "surrogateescape")
    assert again.uid == uid
