# SPDX-License-Identifier: Apache-2.0
"""The question which jobs a user has (2039), as `squeue -u` asks slurmctld, and where they run, from its answer (2004).

Learnt from what slurmctld of 22.05.8, 24.11.5 and 26.05.5 send.

Rules of this file:
1. Pure. Header, auth section and refusals (8001) are those of `wire/callerid.py`.
2. A job's record has more than a hundred fields, which differ between releases, and most of them are of no use here.
   What is read is one stretch of it: from the user's number to the end of the job and to its nodes. It is found by the
   number, and read strictly. No text of a job can look like it: it holds NUL bytes, which no text does.
3. There are as many stretches as slurmctld says there are records, each with the user's own number, or the answer is
   malformed: half of it is not believed, and another user's job is never told of.
4. slurmctld puts no credential into its answer from 23.02 on (flag 0x40): what is decoded here may decide nothing but
   what a user is told.
"""

from __future__ import annotations

import struct

from ..record import record
from .cursor import Cursor
from .errors import LocalProtocolError, RemoteProtocolError
from .hostlist import MAX_NAME_LENGTH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .callerid import Message

REQUEST_USER_JOBS = 2039
RESPONSE_JOBS = 2004
#: Up to 900 bytes a job (26.05): some 500 jobs. Whoever has more at once knows where to look for them.
ANSWER_CAP = 512 * 1024
#: The user's number stands in a record two or three times; whoever answers may write nothing else.
MARK_CAP = 8
#: All jobs that slurmctld has in memory, also those that wait or have ended: an array's waiting tasks are one.
JOB_CAP = 1024
#: A job's nodes as a list in brackets; names of thousands of nodes without any order may be longer.
NODES_CAP = 16 * 1024
#: Bytes of numbers that nobody needs here, up to 24.05: to the end of the job, and from there to the cluster's name.
_SKIPPED = {38: (70, 52), 40: (72, 52)}
#: From 24.11 on. 25.11 and 26.05 answer in the layout of 25.05 if they are asked in it.
LATER = (42, 43)
VERSIONS = (38, 40, 42, 43)


@record
class JobPlace:
    """Where a job of the user runs or has run: the list of its nodes, empty for one that waits; when it ends (0: not
    known), in seconds since 1970, which has passed for one that is over."""

    nodes: str
    end_s: int


def encode_request(uid: int) -> bytes:
    """The body: the user, and no flag (hidden partitions' jobs are among those of their own user)."""
    if not 0 < uid < 0xFFFFFFFE:
        raise LocalProtocolError(f"no user: {uid}")
    return struct.pack(">IH", uid, 0)


@record
class Stretch:
    """What is read of a job's record, and where: the bytes of the record in front of the user's number, from `start`
    (the end of the stretch before it) to `mark`."""

    place: JobPlace
    start: int
    mark: int


def decode_reply(message: Message, uid: int) -> tuple[int, tuple[JobPlace, ...]]:
    """slurmctld's time of the answer, in seconds since 1970, and the user's jobs."""
    now_s, stretches = find_stretches(message, uid)
    return now_s, tuple([stretch.place for stretch in stretches])


def find_stretches(message: Message, uid: int) -> tuple[int, list[Stretch]]:
    """slurmctld's time of the answer, and what is read of each of the user's jobs."""
    version = message.version >> 8
    if message.msg_type != RESPONSE_JOBS or version not in VERSIONS or message.version & 0xFF:
        raise RemoteProtocolError(f"message type {message.msg_type} of version {message.version:#x}")
    cursor = Cursor(message.body)
    count = cursor.unpack(">I")
    now_s = cursor.unpack(">Q")
    cursor.take(8)  # of the last look for jobs that may start
    if count > JOB_CAP:
        raise RemoteProtocolError(f"{count} jobs, at most {JOB_CAP}")
    stretches = _stretches(cursor, version, struct.pack(">I", uid), count)
    if len(stretches) != count:
        raise RemoteProtocolError(f"{count} jobs, {len(stretches)} of them in the known layout")
    return now_s, stretches


def _stretches(cursor: Cursor, version: int, mark: bytes, count: int) -> list[Stretch]:
    stretches: list[Stretch] = []
    start = cursor.position
    at = cursor.data.find(mark, start)
    tries = 0
    while at >= 0:
        tries += 1
        if tries > MARK_CAP * count:
            raise RemoteProtocolError(f"more than {MARK_CAP} times the user's number for each of {count} jobs")
        cursor.position = at + len(mark)
        try:
            place = _later(cursor) if version in LATER else _earlier(cursor, *_SKIPPED[version])
        except RemoteProtocolError:
            cursor.position = at + 1  # the same number elsewhere: a group's, a time
        else:
            stretches.append(Stretch(place, start, at))
            start = cursor.position
        at = cursor.data.find(mark, cursor.position)
    return stretches


def _earlier(cursor: Cursor, before: int, behind: int) -> JobPlace:
    """Up to 24.05, from behind the user's number: group, heterogeneous job (number, set, offset), profile."""
    cursor.take(8)
    _text(cursor)
    cursor.take(8)
    cursor.take(before)
    return _end_and_nodes(cursor, behind)


def _later(cursor: Cursor) -> JobPlace:
    """From 24.11 on, from behind the user's number: four texts (the user's name, the array's tasks), limits, start."""
    for _ in range(4):
        _text(cursor)
    cursor.take(16)
    return _end_and_nodes(cursor, 8)


def _end_and_nodes(cursor: Cursor, behind: int) -> JobPlace:
    """The end, numbers, and the names of cluster, nodes, nodes to come and partition."""
    end_s = cursor.unpack(">Q")
    cursor.take(behind)
    cluster, nodes, _, partition = (_text(cursor) for _ in range(4))
    if not cluster or not partition or len(cluster) > MAX_NAME_LENGTH:
        raise RemoteProtocolError("no names of cluster and partition")
    return JobPlace(nodes, end_s)


def _text(cursor: Cursor) -> str:
    """A text, empty for NULL."""
    raw = cursor.take_capped(cursor.unpack(">I"), NODES_CAP, "text")
    if not raw:
        return ""
    if len(raw) == 1 or raw[-1] or 0 in raw[:-1] or not raw.isascii():
        raise RemoteProtocolError("not a text")
    text = raw[:-1].decode("ascii")
    if not text.isprintable():
        raise RemoteProtocolError("a text that is not printable")
    return text
