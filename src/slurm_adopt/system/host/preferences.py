# SPDX-License-Identifier: Apache-2.0
"""Which job a user has chosen for the next logins: one small file per user below /run.

Rules of this file:
1. Root writes, nobody else: directory and files are root's, 0700 and 0600. A file that is not so does not exist.
2. A preference names a job by its id and by its extern step's slurmstepd (pid and start time), so that it is void
   as soon as that job has ended, whatever gets the same number later.
3. A file is replaced by rename: a login that reads meanwhile sees the old one or the new one.
"""

from __future__ import annotations

import os
import stat
import time

from ...record import record
from ..tasks.task import raise_own_lack

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
    try:
        fd = os.open(f"{directory}/{uid}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise_own_lack(error)
        return None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
            return None
        words = os.read(fd, FILE_CAP).split()
    except OSError:
        return None
    finally:
        os.close(fd)
    if len(words) != 3 or not all(word.isdigit() for word in words):
        return None
    return Preference(*[int(word) for word in words])


def write_preference(uid: int, preference: Preference, directory: str = DIRECTORY) -> None:
    """Set a user's preference; `OSError` if that is not possible."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    temporary = f"{directory}/.{uid}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, f"{preference.job_id} {preference.pid} {preference.started}\n".encode("ascii"))
        os.rename(temporary, f"{directory}/{uid}")
    except OSError:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)


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
        preference = read_preference(int(name), directory) if name.isdigit() else None
        if preference is None or is_void(preference):
            try:
                os.unlink(f"{directory}/{name}")
                removed += 1
            except OSError:
                continue
    return removed


def _is_fresh(draft: str) -> bool:
    try:
        return time.time() - os.lstat(draft).st_mtime < DRAFT_S
    except OSError:
        return False
