# SPDX-License-Identifier: Apache-2.0
"""A job's environment gives a session printable variables of the names that were asked for, and no more than fit.

Whatever a user has put into the environment of a process of theirs; the limits of a process are read likewise.
"""

from __future__ import annotations

from slurm_adopt.login.session import environment, rlimits
from slurm_adopt.wire.login_exchange import LoginReply, encode_reply


def check(data: bytes) -> None:
    """The bytes of /proc/PID/environ, and of /proc/PID/limits."""
    found = dict(environment._decode(data))
    for name, value in found.items():
        assert name.isidentifier()
        assert name.isascii()
        assert value.isprintable()
        assert value.isascii()
        assert len(value) <= environment.VALUE_CAP
        assert f"{name}={value}".encode() in data.split(b"\0")
    kept = environment._fitting(found)
    assert len(kept) <= environment.COUNT_CAP
    assert set(kept) <= set(found.items())
    # with all that a reply may have besides
    reply = LoginReply(
        "success", "adopted", log="l" * 1024, info="i" * 512, env=(("SLURM_JOB_ID", "4294967295"), *kept)
    )
    packet = encode_reply(reply)
    assert len(packet) <= 4096
    for limit in rlimits._decode(data):
        assert limit is not None
