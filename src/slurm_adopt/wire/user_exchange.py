# SPDX-License-Identifier: Apache-2.0
"""The packets between `slurm-adopt jobs`, `use`, `move` and the service for users (docs/protocol/user-exchange.md).

Rules of this file:
1. Pure: bytes to validated records and back.
2. Both sides are checked: a user may send anything, and a user's tool believes nothing that is malformed.
3. Who asks is never in a packet: the kernel says it.
"""

from __future__ import annotations

from ..record import record
from .errors import LocalProtocolError, RemoteProtocolError
from .fields import TEXT_CAP, check_rest, decode_fields, encode_fields, number_of, one_line, take_family, take_texts

COMMANDS = ("jobs", "use", "clear", "move")
#: Those that are about one job.
WITH_JOB = ("use", "move")
RESULTS = ("ok", "refused", "failed", "busy")
STATES = ("starting", "running", "suspended", "ending")
#: What is special about a job: where a login would go, what the user has chosen, where this session is.
FLAGS = ("newest", "preferred", "here")
JOB_CAP = 40
LEFT_CAP = 16
LEFT_TEXT_CAP = 80
REASON_CAP = 64
MAX_JOB = (1 << 32) - 1


@record
class UserRequest:
    """A request of a user. `job_id` is 0 unless the command is about one job."""

    command: str
    job_id: int = 0

    def __post_init__(self) -> None:
        if self.command not in COMMANDS:
            raise RemoteProtocolError(f"unknown command {self.command[:40]!r}")
        if (self.command in WITH_JOB) != (0 < self.job_id <= MAX_JOB):
            raise RemoteProtocolError(f"{self.command} with job {self.job_id}")


@record
class UserJob:
    """One of the user's jobs on this node. Times are seconds since 1970; `end_s` is 0 if it is not known."""

    job_id: int
    state: str
    started_s: int
    end_s: int = 0
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.state not in STATES or not 0 < self.job_id <= MAX_JOB:
            raise RemoteProtocolError(f"bad job {self!r}")
        if any(flag not in FLAGS for flag in self.flags):
            raise RemoteProtocolError(f"unknown flag in {self.flags}")


@record
class UserReply:
    """The answer. `text` is for the user; `moved` counts processes; `left` names those that could not be moved."""

    result: str
    reason: str
    text: str = ""
    jobs: tuple[UserJob, ...] = ()
    more: int = 0
    moved: int = 0
    left: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.result not in RESULTS or not 0 < len(self.reason) <= REASON_CAP:
            raise RemoteProtocolError(f"bad reply {self.result[:40]!r}")


def encode_user_request(request: UserRequest) -> bytes:
    """The request as one packet."""
    return encode_fields([("COMMAND", request.command), ("JOB", str(request.job_id or ""))])


def decode_user_request(packet: bytes) -> UserRequest:
    """A request packet as a validated record; `RemoteProtocolError`."""
    fields = decode_fields(packet)
    (command,) = take_texts(fields, "COMMAND")
    return UserRequest(command, number_of(fields.get("JOB", "0")))


def encode_user_reply(reply: UserReply) -> bytes:
    """The reply as one packet; jobs and processes above the caps are counted only."""
    fields = [
        ("RESULT", reply.result),
        ("REASON", reply.reason),
        ("TEXT", one_line(reply.text, TEXT_CAP)),
        ("MORE", str(reply.more + max(0, len(reply.jobs) - JOB_CAP) or "")),
        ("MOVED", str(reply.moved or "")),
    ]
    for index, job in enumerate(reply.jobs[:JOB_CAP]):
        words = (job.job_id, job.state, job.started_s, job.end_s, ",".join(job.flags) or "-")
        fields.append((f"JOB{index}", " ".join(map(str, words))))
    fields += [(f"LEFT{index}", one_line(text, LEFT_TEXT_CAP)) for index, text in enumerate(reply.left[:LEFT_CAP])]
    return encode_fields(fields)


def decode_user_reply(packet: bytes) -> UserReply:
    """A reply packet as a validated record; `RemoteProtocolError`."""
    fields = decode_fields(packet)
    result, reason = take_texts(fields, "RESULT", "REASON")
    jobs = take_family(fields, "JOB", JOB_CAP)
    left = take_family(fields, "LEFT", LEFT_CAP)
    check_rest(fields, "JOB", "LEFT")
    try:
        return UserReply(
            result=result,
            reason=reason,
            text=one_line(fields.get("TEXT", ""), TEXT_CAP),
            jobs=tuple(map(_job, jobs)),
            more=number_of(fields.get("MORE", "0")),
            moved=number_of(fields.get("MOVED", "0")),
            left=tuple(one_line(text, LEFT_TEXT_CAP) for text in left),
        )
    except LocalProtocolError as error:
        raise RemoteProtocolError(str(error)) from None


def _job(text: str) -> UserJob:
    words = text.split(" ")
    if len(words) != 5:
        raise RemoteProtocolError(f"not a job: {text[:80]!r}")
    job_id, state, started_s, end_s, flags = words
    named = () if flags == "-" else tuple(flags.split(","))
    return UserJob(number_of(job_id), state, number_of(started_s), number_of(end_s), named)
