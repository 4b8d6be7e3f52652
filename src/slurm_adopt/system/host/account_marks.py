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

from ...record import record
from ..kernel.procfs import Process, has_ended
from ..tasks.files import ROOT, make_folder, read_trusted, remove, replace_file
from ..tasks.task import raise_own_lack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Word = Literal["asked", "left"]

DIRECTORY = "/run/slurm-adopt/accounts"
FILE_CAP = 64
#: As many files are not worth looking through.
MANY = 64


@record
class Mark:
    """What our account line has answered, and the job that it has put the login into (0: none)."""

    word: Word
    job_id: int = 0


def write_mark(process: Process, uid: int, mark: Mark, directory: str = "") -> None:
    """Keep the answer for the session phase of `process`; `OSError` if that is not possible."""
    directory = directory or DIRECTORY
    make_folder(directory, 0o700)
    replace_file(
        f"{directory}/{process.pid}.{process.started}", f"{uid} {mark.word} {mark.job_id}\n".encode("ascii"), 0o600
    )
    _remove_old(directory)


def read_mark(process: Process, uid: int, directory: str = "") -> Mark | None:
    """What was kept for this process and user; None if nothing was."""
    try:
        words = read_trusted(f"{directory or DIRECTORY}/{process.pid}.{process.started}", ROOT, FILE_CAP).split()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise_own_lack(error)
        return Mark("asked")
    if len(words) != 3 or words[0] != b"%d" % uid or not words[2].isdigit():
        return Mark("asked")
    return Mark("left" if words[1] == b"left" else "asked", int(words[2]))


def _remove_old(directory: str) -> None:
    names = os.listdir(directory)
    if len(names) < MANY:
        return
    for name in names:
        pid, _, started = name.partition(".")
        # a draft that somebody is just writing begins with a point
        if pid.isdigit() and started.isdigit() and has_ended(Process(int(pid), int(started))):
            remove(f"{directory}/{name}")
