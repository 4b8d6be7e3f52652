# SPDX-License-Identifier: Apache-2.0
"""Before a job ends: a line on the terminals of the logins in it, and a last one when its time is up.

A job that is cancelled gives nobody time to say anything: slurmstepd sends SIGTERM to the whole extern step, sshd
included, within milliseconds (22.05), and the terminal is gone. One that reaches its limit is ended by slurmctld's next
look at the limits, up to half a minute later; that is when the last line comes.

Rules of this file:
1. It watches only jobs of users who have a login here, and runs beside the logins, never in one.
2. When a job ends is taken from the node if the node knows it. slurmctld is asked over the wire when the node does not
   know, when a line is due (the limit may have been changed), and else rarely. No program is started for it.
3. A line is never late news: what was due before a login was seen is not said any more.
4. What a user's process says of itself is read in a child with a time limit: its user can make that wait for ever.
"""

from __future__ import annotations

import contextlib
import time

from ..system.kernel.procfs import Process, has_ended
from ..system.kernel.terminals import write_to_terminals
from ..system.rpc.controller import query_end
from ..system.slurm.conf import ConfFault
from ..system.slurm.job_end import TABLE, plausible, query_job_end, write_table
from ..system.slurm.spool import SpoolFault
from ..system.tasks.child import ChildFault, call_in_child
from ..system.tasks.task import MS, DeadlineExceeded, HelperNeeded, all_of, sleep_until
from ..words import called, duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..login.steps import OwnSteps, StepSource
    from ..system.kernel.procfs import AnyProcess
    from ..system.slurm.conf import SlurmConf
    from ..system.slurm.job_table import Key
    from ..system.tasks.task import Task
    from .sessions import Session

TICK_NS = 1_000 * MS
#: A user's jobs are looked at again this often; at once when the user logs in.
LOOK_NS = 60_000 * MS
LOOK_BUDGET_NS = 2_000 * MS
#: slurmctld is asked again this often without need, and not sooner than this with need.
ASK_AGAIN_NS = 600_000 * MS
ASK_PAUSE_NS = 5_000 * MS
ASK_FAILED_NS = 60_000 * MS
ASK_BUDGET_NS = 5_000 * MS
WRITE_BUDGET_NS = 2_000 * MS
#: Jobs are attended to side by side: one whose controller or terminals hang holds up nobody else's line.
ATTEND_NS = 10_000 * MS
WIDTH = 8
#: A longer end than before is a new limit, not the clock's rounding.
EXTENDED_S = 5
LATE_S = 3
#: When the last line is said: slurmctld may end the job in the very second of its end (seen on 22.05), or half a minute
#: later, and leaves a login 10 ms then.
LAST_S = 2
MARK_CAP = 8


class Job:
    """A job that is watched: its extern step, its end (0: none is known), and the marks whose line is still to come."""

    def __init__(self, job_id: int, uid: int, stepd: AnyProcess, version: int = 0) -> None:
        self.job_id, self.uid, self.version = job_id, uid, version
        self.stepd = Process(stepd.pid, stepd.started)
        self.end_s = 0
        self.asked_ns = 0
        self.seen_ns = time.monotonic_ns()
        self.waiting: list[int] = []

    def set_end(self, end_s: int, marks: tuple[int, ...], now_s: float) -> None:
        """The end is known, or has been changed. Marks that have passed before are not made up for."""
        if not self.end_s or end_s > self.end_s + EXTENDED_S:
            self.waiting = [mark for mark in marks if end_s - now_s > mark]
        self.end_s = end_s

    def due(self, now_s: float) -> bool:
        """Whether a line has to be said now."""
        return bool(self.end_s and self.waiting) and self.end_s - now_s <= self.waiting[0]

    @property
    def key(self) -> Key:
        return self.job_id, self.stepd.pid, self.stepd.started

    def take_line(self, now_s: float, name: str = "") -> str:
        """The line; of several marks that have passed at once only the last one counts. `name` is what squeue calls the
        job, if that is known."""
        title = called(self.job_id, {self.job_id: name} if name else {})
        left_s = self.end_s - now_s
        passed = min(mark for mark in self.waiting if left_s <= mark)
        self.waiting = [mark for mark in self.waiting if left_s > mark]
        if left_s <= LAST_S:
            return f"slurm-adopt: the time of job {title} is up; this login ends with it."
        # a moment after the mark it is still what was promised: 5 min, not 299 s
        left_s = passed if passed - left_s < LATE_S else left_s
        return f"slurm-adopt: job {title} ends in {duration(left_s)}, and this login with it."


class Warner:
    """The task that watches."""

    def __init__(
        self,
        source: StepSource,
        sessions: Iterable[Session],
        marks_s: tuple[int, ...],
        names: Mapping[Key, str],
    ) -> None:
        """`names` are those that are known at a time, of jobs with the slurmstepd of their extern steps."""
        self.marks_s = tuple(sorted({LAST_S, *(mark for mark in marks_s if mark > LAST_S)}, reverse=True))
        self.jobs: dict[tuple[int, int, int], Job] = {}
        self.lines = 0
        self._source = source
        self._sessions = sessions
        self._names = names
        self._looked: dict[tuple[int, str], int] = {}
        self._seen: set[tuple[int, int]] = set()
        self._conf: SlurmConf | None = None
        self._ask_from_ns = 0
        self._written: dict[tuple[int, int, int], int] = {}

    def watch(self) -> Task[None]:
        """Watch for ever."""
        while True:
            with contextlib.suppress(OSError):  # no descriptor left: the next look may find more
                yield from self._look()
            yield from all_of(
                [self._attend(job) for job in self.jobs.values()], time.monotonic_ns() + ATTEND_NS, 0, WIDTH
            )
            self._write_table()
            yield from sleep_until(time.monotonic_ns() + TICK_NS)

    # Which jobs ------------------------------------------------------------------------------------

    def _look(self) -> Task[None]:
        """Find the jobs of those who have a login here."""
        sessions = list(self._sessions)
        now_ns = time.monotonic_ns()
        open_now = {(session.pid, session.started) for session in sessions}
        users = {(session.uid, session.nodename) for session in sessions}
        new = {(one.uid, one.nodename) for one in sessions if (one.pid, one.started) not in self._seen}
        self._looked = {user: when for user, when in self._looked.items() if user in users}
        for user in users:
            if user in new or now_ns - self._looked.get(user, -LOOK_NS) >= LOOK_NS:
                self._looked[user] = now_ns
                yield from self._look_at(*user)
        self._seen = open_now
        uids = {uid for uid, _ in users}
        for key, job in list(self.jobs.items()):
            if job.uid not in uids or has_ended(job.stepd):
                del self.jobs[key]

    def _look_at(self, uid: int, nodename: str) -> Task[None]:
        deadline_ns = time.monotonic_ns() + LOOK_BUDGET_NS
        try:
            conf = yield from self._source.read_conf(deadline_ns)
            found = yield from self._source.query_own(conf, nodename, uid, deadline_ns)
        except (ConfFault, SpoolFault, DeadlineExceeded, HelperNeeded):
            return  # the next look may find more
        try:
            self._conf = conf
            yield from self._take_in(uid, found)
        finally:
            found.close()

    def _take_in(self, uid: int, found: OwnSteps) -> Task[None]:
        for step in found.own:
            identity = step.connection.identity
            if identity is None:
                continue
            key = (step.path.job_id, identity.pid, identity.started)
            if key not in self.jobs:
                self.jobs[key] = job = Job(step.path.job_id, uid, identity, identity.version)
                deadline_ns = time.monotonic_ns() + LOOK_BUDGET_NS
                end_s = yield from query_job_end(step.path.job_id, identity, uid, deadline_ns)
                if end_s:
                    job.set_end(end_s, self.marks_s, time.time())

    # When, and the line ----------------------------------------------------------------------------

    def _attend(self, job: Job) -> Task[None]:
        if has_ended(job.stepd):
            return
        if self._wants_answer(job, time.monotonic_ns()):
            yield from self._ask(job)
        if job.due(time.time()):
            line = job.take_line(time.time(), self._names.get(job.key, ""))
            yield from self._say(job, line)

    def _wants_answer(self, job: Job, now_ns: int) -> bool:
        """Whether slurmctld has to be asked about this job now."""
        if now_ns < self._ask_from_ns:
            return False
        since_ns = now_ns - (job.asked_ns or job.seen_ns)
        if not job.asked_ns and not job.end_s:
            return True
        if job.due(time.time()):
            return not job.asked_ns or since_ns >= ASK_PAUSE_NS
        return since_ns >= ASK_AGAIN_NS

    def _ask(self, job: Job) -> Task[None]:
        """Ask slurmctld; what it does not answer leaves things as they are."""
        end_s: int | None = None
        callers = self._source.callers
        if self._conf is not None and callers is not None and callers.workers is not None:
            deadline_ns = time.monotonic_ns() + ASK_BUDGET_NS
            end_s = yield from query_end(self._conf, callers.workers, job.version, job.job_id, deadline_ns)
        job.asked_ns = time.monotonic_ns()
        if end_s is None:
            # do not wait again for each job for a controller that is gone
            self._ask_from_ns = job.asked_ns + ASK_FAILED_NS
        elif plausible(end_s):
            job.set_end(end_s, self.marks_s, time.time())

    def _say(self, job: Job, line: str) -> Task[None]:
        until_ns = time.monotonic_ns() + WRITE_BUDGET_NS
        with contextlib.suppress(DeadlineExceeded, ChildFault, OSError):
            said = yield from call_in_child(
                lambda: b"%d" % write_to_terminals(job.stepd, job.uid, line), until_ns, job.uid
            )
            self.lines += int(said)

    def _write_table(self) -> None:
        """Return the time left for the greeting of a login."""
        table = {key: job.end_s for key, job in self.jobs.items() if job.end_s}
        if table != self._written:
            self._written = table
            with contextlib.suppress(OSError):
                write_table(table, TABLE)


def parse_marks(text: str) -> tuple[int, ...]:
    """`15,5,1` in minutes, `90s` in seconds, as seconds; `ValueError` says what is wrong."""
    marks = []
    for word in text.split(","):
        number = word.strip()
        unit_s = 60
        if number.endswith("s"):
            number, unit_s = number[:-1], 1
        if not number.isascii() or not number.isdigit() or not 0 < int(number) * unit_s <= 7 * 86400:
            raise ValueError(f"{word.strip()!r} is not a number of minutes (or of seconds, as in 90s)")
        marks.append(int(number) * unit_s)
    if len(marks) > MARK_CAP:
        raise ValueError(f"more than {MARK_CAP} times")
    return tuple(marks)
