# SPDX-License-Identifier: Apache-2.0
"""A login request or reply that is accepted says the same after being encoded again, unless it does not fit any more.

Everything else is refused with `RemoteProtocolError`.
"""

from __future__ import annotations

from slurm_adopt.wire import login_exchange as wire
from slurm_adopt.wire.errors import LocalProtocolError, RemoteProtocolError
from slurm_adopt.wire.fields import TEXT_CAP, one_line

from ..reader import Reader


def check(data: bytes) -> None:
    """The first byte says which of the two it is."""
    reader = Reader(data)
    if reader.number(2):
        _check_reply(reader.rest())
    else:
        _check_request(reader.rest())


def _check_request(packet: bytes) -> None:
    try:
        request = wire.decode_request(packet)
    except RemoteProtocolError:
        return
    assert len(packet) <= wire.PACKET_CAP
    assert len(request.args) <= wire.ARG_CAP
    assert len(request.connections) <= wire.CONNECTION_CAP
    try:
        again = wire.encode_request(request)
    except LocalProtocolError:
        return  # NAME=007 became NAME=7, but unset fields are left out: only a packet at the cap can grow
    if "" not in request.args:  # an empty value is left out, and PAM has no empty word
        assert wire.decode_request(again) == request


def _check_reply(packet: bytes) -> None:
    try:
        reply = wire.decode_reply(packet)
    except RemoteProtocolError:
        return
    assert reply.result in wire.RESULTS
    assert all(name and "=" not in name for name, _ in reply.env)
    try:
        again = wire.decode_reply(wire.encode_reply(reply))
    except LocalProtocolError:
        return
    texts = ("log", "error", "info", "join_error")
    for field in type(reply).__annotations__:
        if field not in texts:
            assert getattr(again, field) == getattr(reply, field) or (not reply.joins and field.startswith("join"))
    for field, cap in (("log", wire.LOG_CAP), ("error", TEXT_CAP), ("info", TEXT_CAP)):
        assert getattr(again, field) == one_line(getattr(reply, field), cap)
        assert getattr(again, field).isprintable()
