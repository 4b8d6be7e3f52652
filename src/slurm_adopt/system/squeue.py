# SPDX-License-Identifier: Apache-2.0
"""When slurmctld says that a job will end, asked through the site's own squeue.

Never in a login: a controller that is busy or gone costs whoever asks its whole time.

Rules of this file:
1. squeue is a child that is killed at the deadline. It gets an environment of ours, no descriptor but its output.
2. The program is the one beside the running slurmstepd, which is of the site's release; else one in a system folder.
3. One job per call: for one job slurmctld looks it up, for several squeue has it send all jobs of the cluster.
"""

from __future__ import annotations

import os
import time

from .procfs import read_program
from .task import MS, POLLIN, DeadlineExceeded, sleep_until, wait_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .procfs import AnyProcess
    from .task import Task

FOLDERS = ("/usr/bin", "/usr/local/bin", "/opt/slurm/bin")
SIGKILL = 9
ANSWER_CAP = 4096
#: slurmctld's way of saying that there is no end.
NEVER = ("N/A", "NONE", "Unknown")


def query_end(job_id: int, stepd: AnyProcess, conf_path: str, deadline_ns: int) -> Task[int | None]:
    """Seconds since 1970; 0 if the job has no end or slurmctld does not know it; None if there was no answer.

    `DeadlineExceeded` when the time is up, `OSError` if squeue cannot be started.
    """
    program = find_squeue(stepd)
    if program is None:
        return None
    environment = {"PATH": "/usr/bin:/bin", "TZ": "UTC0", "LC_ALL": "C", "SLURM_CONF": conf_path}
    argv = [program, "--noheader", "--states=all", f"--jobs={job_id}", "--format=%A %e"]
    ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.set_blocking(theirs, True)
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, theirs, 1),
            (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
        ]
        pid = os.posix_spawn(program, argv, environment, file_actions=actions, setsigdef=(13, 15, 2, 1, 17))
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    code = None
    try:
        answer = yield from _read_all(ours, deadline_ns)
        while code is None:  # it has said all, and is about to end
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
            elif time.monotonic_ns() >= deadline_ns:
                raise DeadlineExceeded
            else:
                yield from sleep_until(time.monotonic_ns() + MS)
    finally:
        os.close(ours)
        if code is None:
            os.kill(pid, SIGKILL)
            os.waitpid(pid, 0)
    return decode_end(answer.decode("ascii", "replace"), job_id) if code == 0 else None


def _read_all(fd: int, deadline_ns: int) -> Task[bytes]:
    answer = b""
    while len(answer) < ANSWER_CAP:
        yield from wait_for(fd, POLLIN, deadline_ns)
        piece = os.read(fd, ANSWER_CAP)
        if not piece:
            break
        answer += piece
    return answer


def decode_end(text: str, job_id: int) -> int:
    """`JOB YYYY-MM-DDTHH:MM:SS` in UTC as seconds since 1970, 0 if there is no time for this job."""
    for line in text.splitlines():
        words = line.split()
        if len(words) != 2 or words[0] != str(job_id) or words[1] in NEVER:
            continue
        date, mark, clock = words[1].partition("T")
        parts = [*date.split("-"), *clock.split(":")]
        if mark and len(parts) == 6 and all(part.isascii() and part.isdigit() for part in parts):
            year, month, day, hour, minute, second = map(int, parts)
            return _utc_seconds(year, month, day) + hour * 3600 + minute * 60 + second
    return 0


def _utc_seconds(year: int, month: int, day: int) -> int:
    """Days since 1970 by the Gregorian rule, in seconds; calendar.timegm would import datetime and locale."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    days = era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
    return days * 86400


def find_squeue(stepd: AnyProcess) -> str | None:
    """The squeue of the site's Slurm."""
    exe = read_program(stepd)
    beside = [os.path.join(os.path.dirname(os.path.dirname(exe)), "bin")] if exe else []
    for folder in (*beside, *FOLDERS):
        path = f"{folder}/squeue"
        if os.access(path, os.X_OK):
            return path
    return None
