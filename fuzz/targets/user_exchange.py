# SPDX-License-Identifier: Apache-2.0
"""A request or reply of the users' exchange that is accepted says the same after being encoded again.

Nothing of it would do anything to a terminal, and all else is refused with `RemoteProtocolError`.
"""

from __future__ import annotations

from slurm_adopt.wire import user_exchange as wire
from slurm_adopt.wire.errors import LocalProtocolError, RemoteProtocolError

from ..reader import Reader


def check(data: bytes) -> None:
    """The first byte says which of the two it is."""
    reader = Reader(data)
    try:
        if reader.number(2) == 0:
            request = wire.decode_user_request(reader.rest())
            assert wire.decode_user_request(wire.encode_user_request(request)) == request
            return
        reply = wire.decode_user_reply(reader.rest())
    except RemoteProtocolError:
        return
    assert reply.text.isprintable()
    assert all(text.isprintable() for text in reply.left)
    assert len(reply.jobs) <= wire.JOB_CAP
    assert len(reply.left) <= wire.LEFT_CAP
    try:
        packet = wire.encode_user_reply(reply)
    except LocalProtocolError:
        return
    if "" not in reply.left:  # an empty value is left out; the service names each process with its number
        assert wire.decode_user_reply(packet) == reply
