# SPDX-License-Identifier: Apache-2.0
"""Notes of the one-shot helper for the resident service's metrics and audit stream: one line per login in a file.

The file is made by the service, so where it never runs nothing is written.

Rules of this file:
1. The helper never waits for the file and never makes it: no login depends on it.
2. Writers and reader take the file's lock, without waiting: no line is lost between reading and emptying it
   (`files.append`, `files.take_lines`).
3. A line is a tuple of plain values, as `repr` writes it (the helper cannot afford json, 3 ms).
"""

from __future__ import annotations

import os

from ..record import record
from ..system.tasks.files import append, make_folder, take_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


NOTES = "/run/slurm-adopt/oneshot"
#: The service for users may write in this folder, and not the file above.
MOVES = "/run/slurm-adopt/moves/log"
#: 4,000 logins; a service that has not read for that long has lost the rest.
SIZE_CAP = 2 << 20
#: A line more than that.
READ_CAP = SIZE_CAP + (1 << 16)


@record
class Decided:
    """A decided login, for the books: `when` in seconds since 1970; `pid` and `started` of the process that lives on.

    `caller` is what came of network caller ID, `security` what looks like an attack; `failed` are the adoptions that
    failed, `JOB:REASON`. `facts`, `args` (of the PAM line) and `strict` are what the decision can be made from once
    more; with an `enforce` other than `yes` the verdict is what it would have been.
    """

    when: float
    seconds: float
    nodename: str
    phase: str
    user: str
    uid: int
    source: str
    service: str
    caller: str
    security: str
    action: str
    reason: str
    job: int
    chosen: str
    pid: int
    started: int
    failed: tuple[str, ...]
    auth: str
    facts: dict[str, Any]
    args: tuple[str, ...]
    strict: bool
    enforce: str


def write_note(decided: Decided, path: str = NOTES) -> None:
    """Leave a login that a helper has decided. Nothing happens if that is not possible."""
    try:
        append(path, _line(decided), create=False, cap=SIZE_CAP)
    except OSError:
        return


def take_notes(path: str = NOTES) -> list[Decided]:
    """The notes since the last time; makes the file if it is not there. `OSError`."""
    notes = []
    for values in _take_lines(path):
        try:
            notes.append(Decided(*values))
        except TypeError:
            continue  # of another release
    return notes


def _line(note: Decided | MoveNote) -> bytes:
    return ascii(tuple(note.__dict__.values())).encode() + b"\n"


def _take_lines(path: str) -> list[tuple[Any, ...]]:
    import ast

    lines = []
    try:
        text = take_lines(path, READ_CAP)
    except BlockingIOError:
        return []  # somebody is just writing: the next time
    for line in text.decode("ascii", "replace").splitlines():
        try:
            values = ast.literal_eval(line)
        except (ValueError, SyntaxError):
            continue  # cut short: the helper was killed
        if isinstance(values, tuple):
            lines.append(values)
    return lines


@record
class MoveNote:
    """A login that its user has moved, or wanted to: `pid` and `started` of its privileged sshd (0 if it is none)."""

    when: float
    uid: int
    pid: int
    started: int
    job: int
    result: str
    reason: str


def write_move(note: MoveNote, path: str = MOVES) -> None:
    """Leave a move for the login service's books. Nothing happens if that is not possible."""
    try:
        make_folder(os.path.dirname(path), 0o700)
        append(path, _line(note), cap=SIZE_CAP)
    except OSError:
        return


def take_moves(path: str = MOVES) -> list[MoveNote]:
    """The moves since the last time; none if the file is not there. `OSError`."""
    if not os.path.exists(path):
        return []
    return [MoveNote(*values) for values in _take_lines(path) if len(values) == len(MoveNote.__annotations__)]
