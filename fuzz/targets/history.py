# SPDX-License-Identifier: Apache-2.0
"""Whatever stands in the journal or the audit file, `history` shows rows of printable text, or passes it over.

Each event that is well-formed is shown; nothing but the events' own words is.
"""

from __future__ import annotations

from slurm_adopt.cli import history


def check(data: bytes) -> None:
    """Lines of an audit stream."""
    lines = data.decode("ascii", "replace").splitlines()
    events = [event for event in history.decode_lines(lines) if history.fits(event, None, None, 0.0)]
    rows = list(history.table(events))
    logins = sum(event["event"] == "login" for event in events)
    assert len(rows) == logins + 1
    assert all(row.isprintable() for row in rows)
    for event in events:
        history.fits(event, "alice", 4711, 1.0)
