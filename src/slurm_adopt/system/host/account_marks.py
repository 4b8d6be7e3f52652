# SPDX-License-Identifier: Apache-2.0
"""What the account phase of a login has answered, where it ran in another process than the session phase will.

sshd runs keyboard-interactive authentication, account stack included, in a child that ends: what the module keeps in
its PAM handle ends with it. The PAM environment comes over, but users may write into it (pam_env).

Rules of this file:
1. One small file for each login, named after the process that lives on: its number and its start time. Root's alone.
2. A session phase that finds none was not preceded by an account phase of ours. What cannot be read is no such proof.
3. Files of processes that have ended are removed when there are many.
"""

from __future__ import annotations

import os
import stat

from ..kernel.procfs import Process, has_ended
from ..tasks.task import raise_own_lack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Mark = Literal["asked", "left"]

DIRECTORY = "/run/slurm-adopt/accounts"
FILE_CAP = 64
#: As many files are not worth looking through.
MANY = 64


def write_mark(process: Process, uid: int, mark: Mark, directory: str = DIRECTORY) -> None:
    """Keep the answer for the session phase of `process`; `OSError` if that is not possible."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    path = f"{directory}/{process.pid}.{process.started}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        os.write(fd, f"{uid} {mark}\n".ljust(FILE_CAP).encode("ascii"))  # always as long: nothing of before is left
    finally:
        os.close(fd)
    _remove_old(directory)


def read_mark(process: Process, uid: int, directory: str = DIRECTORY) -> Mark | None:
    """What was kept for this process and user; None if nothing was."""
    path = f"{directory}/{process.pid}.{process.started}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise_own_lack(error)
        return "asked"
    try:
        found = os.fstat(fd)
        words = os.read(fd, FILE_CAP).split()
    except OSError:
        return "asked"
    finally:
        os.close(fd)
    trusted = stat.S_ISREG(found.st_mode) and found.st_uid == 0 and not found.st_mode & 0o022
    return "left" if trusted and words == [b"%d" % uid, b"left"] else "asked"


def _remove_old(directory: str) -> None:
    names = os.listdir(directory)
    if len(names) < MANY:
        return
    for name in names:
        pid, _, started = name.partition(".")
        if not pid.isdigit() or not started.isdigit() or has_ended(Process(int(pid), int(started))):
            try:
                os.unlink(f"{directory}/{name}")
            except OSError:
                continue
