# SPDX-License-Identifier: Apache-2.0
"""Which job a user has chosen for the next logins: one small file per user below /run.

Rules of this file:
1. Root writes, nobody else (`files.read_if_trusted`): directory and files are root's, 0700 and 0600.
2. A preference names a job by its id and by its extern step's slurmstepd (pid and start time), so that it is void
   as soon as that job has ended, whatever gets the same number later.
3. A file is replaced as a whole: a login that reads meanwhile sees the old one or the new one.
4. Whoever replaces or removes a file holds the directory's lock, so that nobody removes what was renewed while the old
   one was judged. A fresh draft stays: another user's request is just writing it.
"""

from __future__ import annotations

import os
import time

from ...record import record
from ..tasks.files import make_folder, read_if_trusted, replace_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DIRECTORY = "/run/slurm-adopt/preferences"
#: Three numbers.
FILE_CAP = 128
#: Users of one node; what is above it is not looked at when old files are removed.
USER_CAP = 65536
#: A draft that is older than this is of a process that was killed.
DRAFT_S = 60


@record
class Preference:
    """A job, and the slurmstepd of its extern step: pid, and start in clock ticks since boot."""

    job_id: int
    pid: int
    started: int


def read_preference(uid: int, directory: str = DIRECTORY) -> Preference | None:
    """The preference of a user; None if there is none, or none that may be believed."""
    words = (read_if_trusted(f"{directory}/{uid}", FILE_CAP) or b"").split()
    if len(words) != 3 or not all(word.isdigit() for word in words):
        return None
    return Preference(*[int(word) for word in words])


def write_preference(uid: int, preference: Preference, directory: str = DIRECTORY) -> None:
    """Set a user's preference; `OSError` if that is not possible."""
    make_folder(directory, 0o700)
    text = f"{preference.job_id} {preference.pid} {preference.started}\n"
    lock = _lock(directory, wait=True)
    try:
        replace_file(f"{directory}/{uid}", text.encode("ascii"), 0o600)
    finally:
        os.close(lock)


def clear_preference(uid: int, directory: str = DIRECTORY) -> bool:
    """Forget a user's preference; whether there was one."""
    try:
        os.unlink(f"{directory}/{uid}")
    except FileNotFoundError:
        return False
    return True


def clear_void_preferences(is_void: Callable[[Preference], bool], directory: str = DIRECTORY) -> int:
    """Remove the files of preferences that are void, and what is no preference; their number."""
    try:
        names = os.listdir(directory)[:USER_CAP]
    except OSError:
        return 0
    removed = 0
    for name in names:
        if name.startswith(".") and _is_fresh(f"{directory}/{name}"):
            continue  # somebody else is just writing it
        preference = _preference(name, directory)
        if preference is None or is_void(preference):
            try:
                removed += _remove_if_still(preference, name, directory)
            except OSError:
                continue
    return removed


def _preference(name: str, directory: str) -> Preference | None:
    return read_preference(int(name), directory) if name.isdigit() else None


def _remove_if_still(preference: Preference | None, name: str, directory: str) -> bool:
    """Remove a file if it says what was judged; `BlockingIOError` if somebody is just replacing one: the next time."""
    lock = _lock(directory, wait=False)
    try:
        is_still = _preference(name, directory) == preference
        if is_still:
            os.unlink(f"{directory}/{name}")
        return is_still
    finally:
        os.close(lock)


def _lock(directory: str, wait: bool) -> int:
    """The directory's lock, held until the descriptor is closed. It is held for two system calls."""
    import fcntl  # here: no login writes

    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _is_fresh(draft: str) -> bool:
    try:
        return time.time() - os.lstat(draft).st_mtime < DRAFT_S
    except OSError:
        return False
