# SPDX-License-Identifier: Apache-2.0
"""The question when a job ends (4021), as slurm_get_end_time(3) asks slurmctld, and its answer (7002).

Learnt from what libslurm and slurmctld of 20.11.4, 22.05.8, 24.11.5 and 26.05.5 send to each other.

Rules of this file:
1. Pure. Header, auth section and refusals (8001) are those of `wire/callerid.py`.
2. Only layouts up to version 25.05 are spoken: from 25.11 on both bodies begin with a SLUID. Every slurmctld takes the
   versions of at least two releases before its own.
3. slurmctld puts no credential into its answer from 23.02 on (flag 0x40): what is decoded here may decide nothing but
   what a user is told.
"""

from __future__ import annotations

import struct

from .callerid import Message
from .cursor import Cursor
from .errors import LocalProtocolError, RemoteProtocolError

REQUEST_JOB_END_TIME = 4021
RESPONSE_JOB_END_TIME = 7002
#: The last version whose bodies have a job id and no SLUID.
LAST_VERSION = 43 << 8
#: slurmctld knows no such job (any more).
RC_INVALID_JOB_ID = 2017
JOB_ID_CAP = 0xFFFFFFF0
#: The answer's length where a SLUID stands in front (24.11; 20.11 and 22.05 have 20 bytes).
WITH_SLUID = 28


def encode_request(job_id: int) -> bytes:
    """The body: the job, and no sibling cluster."""
    if not 0 < job_id < JOB_ID_CAP:
        raise LocalProtocolError(f"no job id: {job_id}")
    return struct.pack(">II", job_id, 0)


def decode_reply(message: Message, job_id: int) -> int:
    """When the job ends, in seconds since 1970; a job without a limit ends a year from now."""
    if message.msg_type != RESPONSE_JOB_END_TIME or message.version > LAST_VERSION:
        raise RemoteProtocolError(f"message type {message.msg_type} of version {message.version:#x}")
    cursor = Cursor(message.body)
    if len(message.body) == WITH_SLUID:
        cursor.take(8)
    answered = cursor.unpack(">I")
    cursor.take(8)  # step and het component: unset
    end_s = cursor.unpack(">Q")
    cursor.check_end()
    if answered != job_id:
        raise RemoteProtocolError(f"an answer about job {answered}, not {job_id}")
    return end_s
