# SPDX-License-Identifier: Apache-2.0
"""Every reply that Python can encode is accepted by the module's own parser (C), and says the same there."""

from __future__ import annotations

from slurm_adopt.wire import login_exchange as wire
from slurm_adopt.wire.errors import LocalProtocolError

from ..native import module_reads_reply
from ..reader import Reader

REASONS = ("adopted", "no-jobs", "x", "a" * 64)


def check(data: bytes) -> None:
    """A reply made of the bytes."""
    reader = Reader(data)
    joins = tuple(reader.one_of(wire.NAMESPACES) for _ in range(reader.number(8)))
    try:
        reply = wire.LoginReply(
            result=reader.one_of(wire.RESULTS),
            reason=reader.one_of(REASONS),
            level=reader.one_of(wire.LEVELS),
            log=reader.text(300),
            error=reader.text(200),
            info=reader.text(200),
            joins=joins,
            join_failed=reader.one_of(wire.RESULTS[:-1]) if joins else "",
            join_error=reader.text(100) if joins else "",
            hold=bool(reader.number(2)),
            unset=tuple(f"N{reader.number(100)}" for _ in range(reader.number(6))),
            env=tuple((f"V{reader.number(100)}", reader.text(60)) for _ in range(reader.number(12))),
        )
        packet = wire.encode_reply(reply)
    except LocalProtocolError:
        return
    told = module_reads_reply(packet, len(joins))
    assert told is not None, "the module refuses it"
    expected = [
        f"result={reply.result}",
        f"level={reply.level}",
        f"reason={reply.reason}",
        f"hold={int(reply.hold)}",
        *(f"env={name}={value}" for name, value in reply.env),
        *(f"unset={name}" for name in reply.unset),
        *(f"join={kind}" for kind in reply.joins),
    ]
    if joins:
        expected.append(f"join_failed={reply.join_failed}")
    read = wire.decode_reply(packet)
    assert read.env == reply.env
    for name in ("log", "error", "info", "join_error"):
        if getattr(read, name):
            expected.append(f"{name}={getattr(read, name)}")
    assert told == expected
