# SPDX-License-Identifier: Apache-2.0
"""Notes of the one-shot helper for the resident service's metrics and audit stream: one line per login in a file.

The file is made by the service, so where it never runs nothing is written.

Rules of this file:
1. The helper never waits for the file and never makes it: no login depends on it.
2. Writers and reader take the file's lock, without waiting: no line is lost between reading and emptying it.
3. A line is a tuple of plain values, as `repr` writes it (the helper cannot afford json, 3 ms).
"""

from __future__ import annotations

import os
import stat

from ..record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


NOTES = "/run/slurm-adopt/oneshot"
#: The service for users may write in this folder, and not the file above.
MOVES = "/run/slurm-adopt/moves/log"
#: 5,000 logins; a service that has not read for that long has lost the rest.
SIZE_CAP = 2 << 20


@record
class Decided:
    """A decided login, for the books: `when` in seconds since 1970; `pid` and `started` of the process that lives on.

    `caller` is what came of network caller ID, `security` what looks like an attack; `failed` are the adoptions that
    failed, `JOB:REASON`.
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


def write_note(decided: Decided, path: str = NOTES) -> None:
    """Leave a login that a helper has decided. Nothing happens if that is not possible."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return
    try:
        os.lockf(fd, os.F_TLOCK, 0)
        if os.fstat(fd).st_size < SIZE_CAP:
            os.write(fd, ascii(tuple(decided.__dict__.values())).encode() + b"\n")
    except OSError:
        return
    finally:
        os.close(fd)


def take_notes(path: str = NOTES) -> list[Decided]:
    """The notes since the last time; makes the file if it is not there. `OSError` if it cannot be opened."""
    notes = []
    for values in _take_lines(path):
        try:
            notes.append(Decided(*values))
        except TypeError:
            continue  # of another release
    return notes


def _take_lines(path: str) -> list[tuple[Any, ...]]:
    import ast

    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != 0 or not found.st_size:
            return []
        os.lockf(fd, os.F_TLOCK, 0)
        text = b""
        while piece := os.read(fd, 1 << 20):
            text += piece
        os.ftruncate(fd, 0)
    except OSError:
        return []
    finally:
        os.close(fd)
    lines = []
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
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError:
        return
    try:
        os.lockf(fd, os.F_TLOCK, 0)
        if os.fstat(fd).st_size < SIZE_CAP:
            os.write(fd, ascii(tuple(note.__dict__.values())).encode() + b"\n")
    except OSError:
        return
    finally:
        os.close(fd)


def take_moves(path: str = MOVES) -> list[MoveNote]:
    """The moves since the last time; none if the file is not there, or not root's alone."""
    if not os.path.exists(path):
        return []
    return [MoveNote(*values) for values in _take_lines(path) if len(values) == len(MoveNote.__annotations__)]
