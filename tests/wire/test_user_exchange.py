# SPDX-License-Identifier: Apache-2.0
"""The packets between users and the service for users."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.wire.errors import RemoteProtocolError
from slurm_adopt.wire.fields import PACKET_CAP, TEXT_CAP
from slurm_adopt.wire.user_exchange import (
    FLAGS,
    JOB_CAP,
    LEFT_CAP,
    LEFT_TEXT_CAP,
    MAX_JOB,
    REASON_CAP,
    RESULTS,
    STATES,
    UserJob,
    UserReply,
    UserRequest,
    decode_user_reply,
    decode_user_request,
    encode_user_reply,
    encode_user_request,
)

REQUESTS = [UserRequest("jobs"), UserRequest("clear"), UserRequest("use", 7), UserRequest("move", MAX_JOB)]
REPLY = UserReply(
    "failed",
    "user-move-incomplete",
    "not everything",
    (UserJob(7, "running", 1_795_388_000, 1_795_391_600, ("newest", "here")), UserJob(6, "ending", 1)),
    3,
    12,
    ("4711 refused",),
)


@pytest.mark.parametrize("request_", REQUESTS)
def test_user_exchange__requests(request_: UserRequest) -> None:
    packet = encode_user_request(request_)
    assert decode_user_request(packet) == request_
    for end in range(len(packet)):
        with pytest.raises(RemoteProtocolError):
            decode_user_request(packet[:end])
    for junk in (b"x", b"\0", b"JOB=1\0COMMAND=x\0"):
        with pytest.raises(RemoteProtocolError):
            decode_user_request(packet + junk)


def test_user_exchange__the_smallest_and_the_largest() -> None:
    assert UserRequest("use", 1).job_id == 1
    assert UserReply("ok", "r" * REASON_CAP).reason
    for job in (0, MAX_JOB + 1):
        with pytest.raises(RemoteProtocolError):
            UserRequest("use", job)
    for reason in ("", "r" * (REASON_CAP + 1)):
        with pytest.raises(RemoteProtocolError):
            UserReply("ok", reason)
    found = decode_user_reply(b"V=1\0RESULT=ok\0REASON=r\0")
    assert found == UserReply("ok", "r")
    assert found.text == ""


def test_user_exchange__what_is_left_out_is_counted() -> None:
    jobs = tuple(UserJob(number, "running", 1) for number in range(1, JOB_CAP + 3))
    left = ("x" * 80, "y" * 81)
    reply = decode_user_reply(encode_user_reply(UserReply("ok", "r", jobs=jobs, more=2, left=left)))
    assert (len(reply.jobs), reply.more) == (JOB_CAP, 4)
    assert reply.left == ("x" * 80, "y" * 80)
    long = b"V=1\0RESULT=ok\0REASON=r\0LEFT0=" + b"z" * 81 + b"\0"
    assert decode_user_reply(long).left == ("z" * 80,)
    with pytest.raises(RemoteProtocolError):
        decode_user_reply(long + b"LEFT2=x\0")


def test_user_exchange__reply() -> None:
    packet = encode_user_reply(REPLY)
    assert decode_user_reply(packet) == REPLY
    for end in range(len(packet)):
        try:
            assert decode_user_reply(packet[:end]) != REPLY
        except RemoteProtocolError:
            continue
        assert packet[end - 1] == 0


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"V=1\0",
        b"V=1\0COMMAND=\0",
        b"V=1\0COMMAND=format\0",
        b"V=1\0COMMAND=jobs\0JOB=7\0",
        b"V=1\0COMMAND=use\0",
        b"V=1\0COMMAND=use\0JOB=0\0",
        b"V=1\0COMMAND=use\0JOB=-1\0",
        b"V=1\0COMMAND=use\0JOB=+7\0",
        b"V=1\0COMMAND=use\0JOB=7 \0",
        b"V=1\0COMMAND=use\0JOB=4294967296\0",
        b"V=1\0COMMAND=use\0JOB=\xd9\xa3\0",
        b"V=1\0COMMAND=use\0JOB=7\0JOB=8\0",
        b"COMMAND=jobs\0V=1\0",
        b"V=1\0COMMAND=jobs\0" + b"A=b\0" * 63,
        b"V=1\0COMMAND=jobs\0A=" + b"b" * PACKET_CAP + b"\0",
    ],
)
def test_user_exchange__refused_requests(packet: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_user_request(packet)


@pytest.mark.parametrize(
    "field",
    [
        "JOB0=7 running 1 2",
        "JOB0=7 sleeping 1 2 -",
        "JOB0=0 running 1 2 -",
        "JOB0=7 running 1 2 golden",
        "JOB0=7 running -1 2 -",
        "JOB1=7 running 1 2 -",
        "MORE=x",
        "MOVED=1.5",
    ],
)
def test_user_exchange__refused_replies(field: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_user_reply(b"V=1\0RESULT=ok\0REASON=user-jobs\0" + field.encode() + b"\0")
    for start in ("RESULT=fine\0REASON=x", "RESULT=ok", "REASON=x", "RESULT=ok\0REASON=" + "x" * 65):
        with pytest.raises(RemoteProtocolError):
            decode_user_reply(b"V=1\0" + start.encode() + b"\0")


def test_user_exchange__both_ends_cap_what_is_shown() -> None:
    long = "x" * (TEXT_CAP + 1)
    packet = encode_user_reply(UserReply("ok", "r", long, left=(long,)))
    assert [len(field) for field in packet.split(b"\0") if b"xx" in field] == [TEXT_CAP + 5, LEFT_TEXT_CAP + 6]
    sent = f"V=1\0RESULT=ok\0REASON=r\0TEXT={long}\0LEFT0={long}\0".encode()
    reply = decode_user_reply(sent)
    assert (len(reply.text), [len(text) for text in reply.left]) == (TEXT_CAP, [LEFT_TEXT_CAP])


def test_user_exchange__a_job_is_five_words_with_one_blank_between_them() -> None:
    assert decode_user_reply(b"V=1\0RESULT=ok\0REASON=x\0JOB0=7 running 1 2 -\0").jobs == (UserJob(7, "running", 1, 2),)
    for job in (b"7  running 1 2 -", b"7 running\t1 2 -", b" 7 running 1 2 -", b"7 running 1 2 - "):
        with pytest.raises(RemoteProtocolError):
            decode_user_reply(b"V=1\0RESULT=ok\0REASON=x\0JOB0=" + job + b"\0")


def test_user_exchange__unknown_fields_are_passed_over() -> None:
    assert decode_user_request(b"V=1\0COMMAND=jobs\0FUTURE=1\0") == UserRequest("jobs")


def test_user_exchange__what_is_shown_is_printable() -> None:
    reply = decode_user_reply(b"V=1\0RESULT=ok\0REASON=x\0TEXT=a\x1b[2Jb\n\xff\0LEFT0=\x071\0")
    assert reply.text.isprintable()
    assert reply.left[0].isprintable()


jobs = st.builds(
    UserJob,
    st.integers(1, MAX_JOB),
    st.sampled_from(STATES),
    st.integers(0, 1 << 40),
    st.integers(0, 1 << 40),
    st.lists(st.sampled_from(FLAGS), unique=True).map(tuple),
)


@given(
    st.sampled_from(RESULTS),
    st.text(max_size=2000),
    st.lists(jobs, max_size=60).map(tuple),
    st.lists(st.text(max_size=300), max_size=40).map(tuple),
)
def test_user_exchange__every_reply_fits_a_packet(
    result: str, text: str, listed: tuple[UserJob, ...], left: tuple[str, ...]
) -> None:
    left = tuple(f"1 {one}" for one in left)
    again = decode_user_reply(encode_user_reply(UserReply(result, "user-x", text, listed, left=left)))
    assert again.jobs == listed[:JOB_CAP]
    assert again.more == max(0, len(listed) - JOB_CAP)
    assert len(again.left) == min(LEFT_CAP, len(left))


@given(st.binary(max_size=300))
def test_user_exchange__garbage_is_refused_in_one_way(packet: bytes) -> None:
    for decode in (decode_user_request, decode_user_reply):
        try:
            decode(packet)  # type: ignore[operator]
        except RemoteProtocolError:
            continue
