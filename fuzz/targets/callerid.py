# SPDX-License-Identifier: Apache-2.0
"""A message of Slurm's RPCs is taken whole or not at all.

Of an accepted message every shorter piece is refused, one byte more is refused, and where it has nothing that we never
send (an address, flags) encoding it again gives the same bytes. Bodies are exact.
"""

from __future__ import annotations

from slurm_adopt.wire import callerid as wire
from slurm_adopt.wire import job_end_question
from slurm_adopt.wire.errors import LocalProtocolError, RemoteProtocolError

from ..reader import Reader


def check(data: bytes) -> None:
    """Bytes with or, in half of the cases, without the length, which is then put in front of them."""
    reader = Reader(data)
    framed = reader.number(2)
    raw = reader.rest()
    if framed:
        raw = len(raw).to_bytes(4, "big") + raw
    try:
        message = wire.decode_message(raw)
    except RemoteProtocolError:
        return
    for other in (raw[:-1], raw[: len(raw) // 2], raw + b"\0"):
        try:
            wire.decode_message(other)
        except RemoteProtocolError:
            continue
        raise AssertionError("a piece of a message was taken for one")
    assert (message.plugin is None) == bool(message.flags & wire.FLAG_NO_AUTH)
    if message.plugin is not None and message.credential is not None and not message.flags:
        _check_again(raw, message, message.plugin, message.credential)
    _check_bodies(message)


def _check_again(raw: bytes, message: wire.Message, plugin: int, credential: str) -> None:
    try:
        again = wire.encode_message(message.version, message.msg_type, message.body, plugin, credential)
    except LocalProtocolError:
        return
    if len(again) == len(raw):  # no address, no message index
        read = wire.decode_message(again)
        assert read == message
    assert len(again) <= len(raw)


def _check_bodies(message: wire.Message) -> None:
    try:
        reply = wire.decode_caller_reply(message)
        assert reply.job_id is None or 0 < reply.job_id < wire.NO_VAL
        assert reply.sluid != wire.NO_VAL64
        assert "\0" not in reply.node_name
    except RemoteProtocolError:
        pass
    try:
        code = wire.decode_return_code(message)
        assert message.body == code.to_bytes(4, "big")
    except RemoteProtocolError:
        pass
    try:
        end_s = job_end_question.decode_reply(message, 4711)
        assert message.body[-8:] == end_s.to_bytes(8, "big")
    except RemoteProtocolError:
        pass
