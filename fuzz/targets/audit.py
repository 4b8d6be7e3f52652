# SPDX-License-Identifier: Apache-2.0
"""A login is one line of ASCII in the audit stream, and reads back as what it was, whatever user and host are called.

The ways of authentication are words without control characters.
"""

from __future__ import annotations

import json

from slurm_adopt.cli import history
from slurm_adopt.observe import audit
from slurm_adopt.observe.notes import Decided
from slurm_adopt.wire.logline import format_line

from ..reader import Reader


def check(data: bytes) -> None:
    """A decided login made of the bytes."""
    reader = Reader(data)
    user, source, service, auth = reader.text(60), reader.text(60), reader.text(20), reader.text(300)
    decided = Decided(
        when=float(reader.number(1 << 33)), seconds=0.5, nodename="n", phase="account", user=user,
        uid=reader.number(1 << 32), source=source, service=service, caller="not-asked", security="", action="deny",
        reason="no-jobs", job=reader.number(1 << 32), chosen="", pid=reader.number(1 << 22), started=1, failed=(),
        auth=auth, facts={"fault": source}, args=(f"nodename={service}",), strict=False, enforce="yes",
    )  # fmt: skip
    event = audit.login_event(decided, "service")
    line = json.dumps(event, ensure_ascii=True, separators=(",", ":"))
    assert line.isascii()
    assert line.isprintable()
    assert list(history.decode_lines([line])) == [event]
    for method in event.get("auth", []):
        assert len(method.split(" ")) <= 2
    for row in history.table([event]):
        assert row.isprintable()
    logged = format_line([("user", user), ("from", source), ("auth", auth), ("uid", 7)])
    assert logged.isprintable()
    assert logged.endswith("uid=7")
