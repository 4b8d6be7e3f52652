# SPDX-License-Identifier: Apache-2.0
"""What slurmctld says of a user's jobs is believed as a whole or not at all, and is what a second, slower look finds.

The answer is the user's own: with another number it is refused, unless it has no jobs.
"""

from __future__ import annotations

from slurm_adopt.wire import user_jobs_question as wire
from slurm_adopt.wire.callerid import Message
from slurm_adopt.wire.errors import RemoteProtocolError

from ..reader import Reader

UID = 1501
#: three jobs
MAX_LEN = 600


def check(data: bytes) -> None:
    """A version, and a body."""
    reader = Reader(data)
    version = reader.one_of(wire.VERSIONS)
    body = reader.rest()
    message = Message(version << 8, 0x40, wire.RESPONSE_JOBS, None, None, body)
    try:
        _, places = wire.decode_reply(message, UID)
    except RemoteProtocolError:
        return
    assert len(places) == int.from_bytes(body[:4], "big") <= wire.JOB_CAP
    assert body.count(UID.to_bytes(4, "big")) >= len(places)
    for place in places:
        assert len(place.nodes) < wire.NODES_CAP
        assert place.nodes.isascii()
        assert place.nodes.isprintable()
        assert place.nodes.encode() in body
        assert place.end_s.to_bytes(8, "big") in body
    if places:
        try:
            wire.decode_reply(message, UID + 1)
        except RemoteProtocolError:
            return
        raise AssertionError("an answer about somebody else was taken")
