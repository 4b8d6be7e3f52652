# SPDX-License-Identifier: Apache-2.0
"""The change of a PAM file: what is kept of the file before, what waits for a confirmation, and how it is taken back.

Rules of this file:
1. In this order, each step on disk before the next one begins: the old file gets a second name; PENDING says what is
   about to happen; whoever takes it back is there; the file is replaced. Wherever this ends, whoever comes by later
   finds out by the file's content what has happened, and does what is left to do. Doing it twice is doing it once.
2. To take it back is one rename of what is there already: a full disk does not hinder it. Should the kept file be
   gone, PENDING holds its text.
3. A file that somebody has changed meanwhile is not overwritten: both stay, and it is said where.
4. Time is counted from boot, and a boot takes everything back that was not confirmed before: no clock decides.
5. One at a time (LOCK); nobody who waits for a person holds it.
6. A confirmation comes from a login that began after the file was in place.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
import syslog
import time

from ...record import record, replace
from ...system.host.pam_stack import DIRECTORIES
from ...system.tasks.files import (
    keep_copy,
    make_folder,
    open_lock,
    put_back,
    read_judged,
    read_trusted,
    remove_for_good,
    replace_for_good,
)
from ..main import PENDING as PLACE
from ..main import die
from .login import now_s, this_boot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from .plan import Plan

    #: restored: the old file is there again; unchanged: it was never replaced; edited: somebody else's is there;
    #: failed: it could not be put back
    End = Literal["restored", "unchanged", "edited", "failed"]

PENDING = PLACE
FOLDER = os.path.dirname(PENDING)
#: How the last change ended, for whoever asks afterwards.
LAST = f"{FOLDER}/last"
LOCK = f"{FOLDER}/lock"
FILE_CAP = 1 << 20
#: Who has the lock writes two small files.
LOCK_S = 10.0
MODE = 0o644


@record
class Pending:
    """A change that nobody has confirmed. `before` and `after` are digests, empty for no file.

    `text` is what the old file held. `due_s` and `since_s` in seconds after the boot `boot`: when it is taken back, and
    when it was in place (0: it may not be).
    """

    service: str
    path: str
    copy: str
    before: str
    after: str
    text: str
    boot: str
    due_s: float
    since_s: float = 0.0

    def __post_init__(self) -> None:
        words = (self.service, self.path, self.copy, self.before, self.after, self.text, self.boot)
        if not all(isinstance(word, str) for word in words) or not all(
            isinstance(number, (int, float)) for number in (self.due_s, self.since_s)
        ):
            raise ValueError("not what slurm-adopt has written")
        if self.path != f"{DIRECTORIES[0]}/{self.service}" or "/" in self.service or self.copy != copy_of(self.path):
            raise ValueError("not a file of PAM's")

    @property
    def left_s(self) -> float:
        """How long it may still be confirmed; not at all after another boot."""
        return self.due_s - now_s() if self.boot == this_boot() else 0.0


def copy_of(path: str) -> str:
    """The old file's second name: hidden, so that it is no service."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}.before-slurm-adopt"


def digest(data: bytes | None) -> str:
    """What a file's content is known by; empty for no file."""
    return hashlib.sha256(data).hexdigest() if data is not None else ""


class Locked:
    """with Locked(): nobody else changes anything. Waits for whoever is at it, which never takes long; ends the command
    if it does."""

    def __enter__(self) -> None:
        # whatever the caller's is: nobody else may write what is made here
        os.umask(0o022)
        try:
            make_folder(FOLDER, 0o700, (os.geteuid(),))
            self._fd = open_lock(LOCK, (os.geteuid(),))
        except OSError as error:
            die(f"{FOLDER} cannot be used: {error.strerror or error}", "it keeps what is needed to take a change back")
        until = time.monotonic() + LOCK_S
        while not self._is_taken():
            if time.monotonic() > until:
                os.close(self._fd)
                die("another slurm-adopt is changing PAM's files, and does not end", f"fuser -v {LOCK} names it")
            time.sleep(0.02)

    def _is_taken(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


# What is written down -------------------------------------------------------------------------------


def is_pending() -> bool:
    """Whether a change waits; cheap, for each command."""
    return os.path.exists(PENDING)


def read_pending() -> Pending | None:
    """The change that waits, if there is one; ends the command if what is written there cannot be believed."""
    try:
        fields = json.loads(read_trusted(PENDING, (os.geteuid(),), FILE_CAP))
        return Pending(**fields)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        die(f"{PENDING} cannot be used: {error}", f"look at /etc/pam.d yourself, then: rm {PENDING}")


def _write_pending(pending: Pending) -> None:
    data = json.dumps(pending.__dict__, ensure_ascii=True, indent=1).encode("ascii")
    replace_for_good(PENDING, data, 0o600)


def _current(path: str) -> bytes | None:
    """What is there now, whoever has written it: it is compared, and never believed."""
    try:
        return read_judged(path, _judge_kind, FILE_CAP, follow=True)
    except FileNotFoundError:
        return None


def _judge_kind(_: int, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")


# Doing it -------------------------------------------------------------------------------------------


def apply(plan: Plan, seconds: float, arm: Callable[[Pending], None]) -> Pending | None:
    """Replace the file; it is taken back after `seconds` (0: never, and None is returned). `arm` sees to that.

    Ends the command, with nothing changed, if the file is not what was planned for, or something cannot be written.
    """
    path, copy = plan.path, copy_of(plan.path)
    with Locked():
        waiting = read_pending()
        if waiting is not None:
            die(f"a change of {waiting.path} waits for its confirmation", "slurm-adopt confirm, or slurm-adopt disable")
        if not _is_as_planned(plan):
            die(f"{path} has changed meanwhile", "look at it, and begin again")
        pending = None
        try:
            if plan.before is not None:
                keep_copy(path, copy)
            if seconds:
                text = (plan.before or b"").decode("utf-8", "surrogateescape")
                ends = digest(plan.before), digest(plan.after)
                pending = Pending(plan.service, path, copy, *ends, text, this_boot(), now_s() + seconds)
                _write_pending(pending)
                arm(pending)
            _put(path, plan)
            if pending is not None:
                pending = replace(pending, since_s=now_s())
                _write_pending(pending)
        except OSError as error:
            if pending is not None:
                _put_back(pending)
                remove_for_good(PENDING)
            die(f"{path} cannot be changed: {error.strerror or error}", "it is as it was")
        _log(f"{path} changed" + (f"; it is taken back in {seconds:.0f} s unless confirmed" if seconds else ""))
        return pending


def _is_as_planned(plan: Plan) -> bool:
    try:
        return _current(plan.path) == plan.before and not (plan.before is None and os.path.lexists(plan.path))
    except OSError:
        return False


def _put(path: str, plan: Plan) -> None:
    if plan.after is None:
        remove_for_good(path)
    elif plan.before is not None:
        replace_for_good(path, plan.after, like=path)
    else:
        replace_for_good(path, plan.after, MODE)


def confirm(pending: Pending) -> bool:
    """Let it stay; whether it is what `enable` has written, and not what somebody has made of it since."""
    remove_for_good(PENDING)
    _end("confirmed", pending)
    return digest(_current(pending.path)) == pending.after


def take_back(only_if_due: bool = True) -> tuple[End, Pending] | None:
    """Put the old file back if a change waits that is due, or whatever is left to do; None if there is nothing to do.

    A failure to write leaves everything for the next time.
    """
    if not is_pending():
        return None
    with Locked():
        pending = read_pending()
        if pending is None or (only_if_due and pending.left_s > 0):
            return None
        try:
            end = _put_back(pending)
        except OSError as error:
            _log(f"{pending.path} cannot be put back: {error}")
            return "failed", pending
        remove_for_good(PENDING)
        _end(end, pending)
        return end, pending


def _put_back(pending: Pending) -> End:
    found = digest(_current(pending.path))
    if found == pending.before:
        return "unchanged"
    if found != pending.after:
        return "edited"
    if not pending.before:
        remove_for_good(pending.path)
        return "restored"
    text = pending.text.encode("utf-8", "surrogateescape")
    try:
        kept = read_trusted(pending.copy, (os.geteuid(),), FILE_CAP)
    except OSError:
        kept = None
    if digest(kept) == pending.before:
        put_back(pending.copy, pending.path)
    elif found:
        replace_for_good(pending.path, text, like=pending.path)
    else:
        replace_for_good(pending.path, text, MODE)
    return "restored"


def describe(end: str, pending: Pending) -> str:
    """How a change ended, in a sentence."""
    return {
        "confirmed": f"the change of {pending.path} was confirmed",
        "restored": f"the change of {pending.path}, which was not confirmed, is taken back: the old file is there",
        "unchanged": f"{pending.path} is as it was: the change was never made, or somebody has taken it back",
        "edited": (
            f"the change of {pending.path} was not confirmed, but somebody has changed the file since: it stays"
            + (f", and the one of before is {pending.copy}" if pending.before else "")
        ),
        "failed": f"{pending.path} could not be put back; the next command tries again",
    }[end]


def _end(end: str, pending: Pending) -> None:
    text = describe(end, pending)
    _log(text)
    try:
        replace_for_good(LAST, f"{time.strftime('%Y-%m-%d %H:%M:%S')}: {text}\n".encode(), 0o600)
    except OSError:
        return  # a full disk; the log has it


def last_end() -> str:
    """How the last change ended, and when; empty if there was none."""
    try:
        return read_trusted(LAST, (os.geteuid(),), FILE_CAP).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _log(text: str) -> None:
    syslog.openlog("slurm-adopt", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    syslog.syslog(syslog.LOG_WARNING, text)
