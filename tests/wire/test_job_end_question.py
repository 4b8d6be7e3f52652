# SPDX-License-Identifier: Apache-2.0
"""The question when a job ends, with the answers that slurmctld of 20.11, 22.05 and 24.11 has given."""

from __future__ import annotations

import pytest

from slurm_adopt.wire.callerid import RESPONSE_SLURM_RC, Message, decode_message, decode_return_code
from slurm_adopt.wire.errors import LocalProtocolError, RemoteProtocolError
from slurm_adopt.wire.job_end_question import (
    JOB_ID_CAP,
    LAST_VERSION,
    RC_INVALID_JOB_ID,
    RESPONSE_JOB_END_TIME,
    decode_reply,
    encode_request,
)

#: Job 1 ends at 1795804665 (24.11.5, which sends no credential); slurmctld of 22.05.8 and 20.11.4 answers with the same
#: body behind a credential.
ANSWER = "0000002c2a0000441b5a0000001c000000000000000000000000000000000001fffffffefffffffe000000006b09cdf9"
BODY = "00000001fffffffefffffffe000000006b09cdd7"
UNKNOWN = "000000142a0000441f4100000004000000000000000007e1"


def answer(body: str, version: int = 38 << 8, kind: int = RESPONSE_JOB_END_TIME) -> Message:
    return Message(version, 0, kind, 101, "MUNGE:", bytes.fromhex(body))


def test_job_end_question__request() -> None:
    assert encode_request(1).hex() == "0000000100000000"
    for bad in (0, -1, 0xFFFFFFFE):
        with pytest.raises(LocalProtocolError):
            encode_request(bad)


def test_job_end_question__recorded_answers() -> None:
    assert decode_reply(answer(BODY), 1) == 1795804631
    message = decode_message(bytes.fromhex(UNKNOWN))
    assert message.msg_type == RESPONSE_SLURM_RC
    assert decode_return_code(message) == RC_INVALID_JOB_ID


def test_job_end_question__the_latest_layout_that_is_spoken() -> None:
    """24.11 has a SLUID, which it leaves unset, in front of what 20.11 and 22.05 say."""
    message = decode_message(bytes.fromhex(ANSWER))
    assert (message.plugin, message.msg_type) == (None, RESPONSE_JOB_END_TIME)
    assert decode_reply(message, 1) == 1795804665


def test_job_end_question__the_largest_numbers() -> None:
    job = JOB_ID_CAP - 1
    assert encode_request(job) == job.to_bytes(4, "big") + bytes(4)
    with pytest.raises(LocalProtocolError):
        encode_request(JOB_ID_CAP)
    body = job.to_bytes(4, "big").hex() + "fffffffe" * 2 + "f" * 16
    assert decode_reply(answer(body, LAST_VERSION), job) == 0xFFFFFFFFFFFFFFFF


@pytest.mark.parametrize("cut", range(20))
def test_job_end_question__truncated(cut: int) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_reply(answer(BODY[: 2 * cut]), 1)


@pytest.mark.parametrize(
    "message",
    [answer(BODY + "00"), answer(BODY, kind=7001), answer(BODY, LAST_VERSION + 256), answer("00000002" + BODY[8:])],
    ids=["junk behind it", "another type", "a layout with SLUID", "another job"],
)
def test_job_end_question__malformed(message: Message) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_reply(message, 1)
