# SPDX-License-Identifier: Apache-2.0
"""What users call their jobs (`wire/job_names.py`), from slurmctld's answer (2004) about a user's jobs.

Rules of this file:
1. Pure. The answer is that of `wire/user_jobs_question.py`, with its rules.
2. The fields were learnt from what slurmctld of 22.05.8, 24.11.5 and 26.05.5 send. From version 42 on they do not stand
   side by side: each is found by what is around it. What is found twice in a record, or not at all, is not told.
"""

from __future__ import annotations

import struct

from .errors import RemoteProtocolError
from .hostlist import expand
from .job_names import COMPONENT_CAP
from .user_jobs_question import LATER, find_stretches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .callerid import Message

#: What stands for "no number", and is the first value that is none.
NO_VALUE = 0xFFFFFFFE
#: Numbers between the array's text and the job's own number, up to 24.05.
_BETWEEN = {38: 16, 40: 24}
_TEXT_CAP = 1024
#: Seconds since 1970 that slurmctld may have seen: from 2004 to 2106.
_TIMES = range(1 << 30, 1 << 32)


def decode_names(message: Message, uid: int, wanted: Iterable[int]) -> dict[int, str]:
    """The names of those of the user's jobs that are wanted, as far as slurmctld tells them. `RemoteProtocolError`."""
    _, stretches = find_stretches(message, uid)
    version, body = message.version >> 8, message.body
    names: dict[int, str] = {}
    for stretch in stretches:
        front, behind = body[stretch.start : stretch.mark], body[stretch.mark + 4 :]
        for job_id in wanted:
            name = _later(front, job_id) if version in LATER else _earlier(front, behind, _BETWEEN[version], job_id)
            if name:
                names[job_id] = name
    return names


def _earlier(front: bytes, behind: bytes, between: int, job_id: int) -> str:
    """The job's number stands in front of the user's; the array's before it, the heterogeneous job's behind."""
    if len(front) < between + 16 or _u32(front, len(front) - 4) != job_id:
        return ""
    if len(behind) >= 16 and _u32(behind, 4):
        length = _u32(behind, 8)
        if length > _TEXT_CAP or len(behind) < 16 + length:
            return ""
        return _component(job_id, _u32(behind, 4), behind[12 : 12 + length], _u32(behind, 12 + length))
    at = len(front) - between - 16
    array, task, text = _u32(front, at), _u32(front, at + 4), _u32(front, at + 8)
    if array and task < NO_VALUE and not text:
        return f"{array}_{task}"
    return str(job_id) if not array and task == NO_VALUE else ""


def _later(front: bytes, job_id: int) -> str:
    """The array's numbers stand behind the name of the submitting host; the job's own behind those of the heterogeneous
    job, and in front of its state and of a time."""
    found = {_job_at(front, at, job_id) for at in _all_of(front, struct.pack(">I", job_id))} - {""}
    if len(found) != 1:
        return ""
    name = found.pop()
    if name != str(job_id):
        return name
    arrays = [numbers for at in range(9, len(front) - 16) for numbers in _array_at(front, at)]
    if len(arrays) != 1:
        return ""
    array, task = arrays[0]
    return f"{array}_{task}" if array else name


def _job_at(front: bytes, at: int, job_id: int) -> str:
    """The name of the job whose number stands at `at`, if it is one; empty if it is something else."""
    if at < 12 or len(front) < at + 16:
        return ""
    state, time_s = _u32(front, at + 4), struct.unpack_from(">Q", front, at + 8)[0]
    if not state or time_s not in _TIMES:
        return ""
    if not any(front[at - 12 : at]):
        return str(job_id)
    if front[at - 5]:
        return ""
    for length in range(2, min(_TEXT_CAP, at - 11)):
        start = at - 4 - length
        if _u32(front, start - 4) == length:
            return _component(job_id, _u32(front, start - 8), front[start : at - 4], _u32(front, at - 4))
    return ""


def _component(job_id: int, leader: int, text: bytes, offset: int) -> str:
    """`4800+1`, if the set of the heterogeneous job's numbers says so as well."""
    words = text[:-1].decode("ascii", "replace")
    try:
        numbers = list(expand(words if words.startswith("[") else f"[{words}]", COMPONENT_CAP))
    except RemoteProtocolError:
        return ""
    known = offset < COMPONENT_CAP and text[-1:] == b"\0" and str(job_id) in numbers and str(leader) in numbers
    return f"{leader}+{offset}" if known else ""


def _array_at(front: bytes, at: int) -> list[tuple[int, int]]:
    """Array and task (0, 0: a job that is none) at `at`, if a host's name and a number are before it, and 0 behind."""
    array, task = _u32(front, at), _u32(front, at + 4)
    is_none = not array and task == NO_VALUE
    if not (is_none or (array and task < NO_VALUE)) or any(front[at + 8 : at + 16]) or front[at - 5]:
        return []
    start = at - 5
    while start > 4 and 0x20 < front[start - 1] < 0x7F:
        start -= 1
        if _u32(front, start - 4) == at - 4 - start:
            return [(array, 0 if is_none else task)]
    return []


def _all_of(data: bytes, part: bytes) -> Iterable[int]:
    at = data.find(part)
    while at >= 0:
        yield at
        at = data.find(part, at + 1)


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")
