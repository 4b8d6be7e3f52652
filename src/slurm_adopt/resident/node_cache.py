# SPDX-License-Identifier: Apache-2.0
"""Remembers the node's steps in the resident service: the `StepSource` whose cost does not grow with others' jobs.

Rules of this file:
1. A login asks the steps that are its user's, and those that nobody knows yet; never another user's.
2. A new step is waited for at most a grace; one that hangs delays only the logins that find nothing else.
3. Whatever an answer shows to be wrong in the index is doubted there at once.
"""

from __future__ import annotations

import os
import time

from ..login.recent import Recent
from ..login.steps import OwnStep, OwnSteps, ask_steps, grace_of
from ..model import STEP_ENDING, STEP_GONE, STEP_SILENT
from ..system.rpc.memory import CallerMemory
from ..system.rpc.munge import MungeWorkers
from ..system.slurm.spool import SpoolFault
from ..system.slurm.spool_dir import has_pattern, spool_dirs
from ..system.slurm.stepd import StepFault
from ..system.tasks.loop import wait_flag
from ..system.tasks.task import DeadlineExceeded, halfway
from .conf_cache import ConfCache
from .step_index import STEP_FOREIGN, Entry, StepIndex
from .turnstile import Turn, Turnstile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..observe.metrics import Metrics
    from ..system.kernel.procfs import Process
    from ..system.slurm.conf import SlurmConf
    from ..system.slurm.spool_dir import SpoolDir
    from ..system.slurm.stepd import StepConnection
    from ..system.tasks.loop import Loop
    from ..system.tasks.task import Task
    from .late_answers import LateAnswers

#: `nodename=` differs between PAM files at most; more directories than this are not one node's.
INDEX_CAP = 16


class NodeCache:
    """The `StepSource` of the resident service."""

    def __init__(self, loop: Loop, on_remark: Callable[[str], None] | None = None) -> None:
        self.conf_caches: dict[str, ConfCache] = {}
        self._on_remark = on_remark
        self._place = ""
        self.callers: CallerMemory | None = CallerMemory()
        self.callers.workers = MungeWorkers(loop.call_at)
        self.callers.turns = Turnstile(loop)
        self.recent = Recent()
        self.late: LateAnswers | None = None
        self.indexes: dict[SpoolDir, StepIndex] = {}
        self._loop = loop
        self._conf: SlurmConf | None = None
        self._turnstile = Turnstile(loop)
        self._directories: dict[tuple[str, str], list[SpoolDir]] = {}
        self._questions = 0
        self._rebuilds: dict[str, int] = {}

    def watch_late(self, connection: StepConnection, processes: tuple[Process, ...]) -> None:
        """Look at the processes' numbers when slurmstepd has answered at last."""
        if self.late is None:
            connection.close()
        else:
            self.late.watch(connection, processes)

    def settle_late(self, processes: tuple[Process, ...]) -> None:
        """Where these are now is where they belong."""
        if self.late is not None:
            self.late.settle(processes)

    def read_conf(self, deadline_ns: int, place: str | None = None) -> Task[SlurmConf]:
        """The remembered slurm.conf, if its files are unchanged; None: the one of the last login."""
        if place is not None:
            self._place = place
        cache = self.conf_caches.get(self._place)
        if cache is None:
            if len(self.conf_caches) >= INDEX_CAP:
                self.conf_caches.clear()
            cache = self.conf_caches[self._place] = ConfCache(self._loop, self._place, self._on_remark)
        return (yield from cache.read(deadline_ns))

    def remark_of(self, conf: SlurmConf) -> str:  # noqa: ARG002
        """The service has said it once, in a line of its own."""
        return ""

    def query_own(
        self,
        conf: SlurmConf,
        nodename: str,
        uid: int,
        deadline_ns: int,
        needed: int = 0,
    ) -> Task[OwnSteps]:
        """The user's own steps, as the index has them, each asked now."""
        indexes = self._current(conf, nodename)
        for index in indexes:
            index.check_not_own(uid)
        found = OwnSteps()
        if not any(index.unsettled or uid in index.settled for index in indexes):
            return found  # most refusals end here
        try:
            for index in indexes:
                if index.unsettled:
                    yield from _wait_for_new(index, uid, deadline_ns)
            yield from self._ask_own(indexes, uid, deadline_ns, found, needed)
            if not found.own:
                yield from self._wait_for_hung(indexes, uid, deadline_ns, found, needed)
            if needed and found.own and found.of_job(needed) is None:
                yield from _wait_for_needed(indexes, uid, deadline_ns, found, needed)
            for index in indexes:
                if index.unsettled:
                    silent = _unanswered(index, uid)
                    found.unanswered += [(entry.path.job_id, entry.fault or STEP_SILENT) for entry in silent]
                if not found.own:
                    # known by now, but too late to be asked
                    found.unanswered += [(entry.path.job_id, STEP_SILENT) for entry in index.own(uid)]
            return found
        except BaseException:
            found.close()
            raise

    def _ask_own(
        self,
        indexes: list[StepIndex],
        uid: int,
        deadline_ns: int,
        found: OwnSteps,
        needed: int = 0,
    ) -> Task[None]:
        """Ask the steps that are the user's, when it is this login's turn; the turn lasts as long as the login."""
        if not any(uid in index.settled for index in indexes):
            return
        turn = Turn(self._turnstile, uid)
        yield from turn.enter(deadline_ns)
        try:
            for index in indexes:
                yield from _ask(index, index.own(uid), uid, deadline_ns, found, needed)
        finally:
            if found.own:
                found.turn = turn
            else:
                turn.leave()

    def _wait_for_hung(
        self, indexes: list[StepIndex], uid: int, deadline_ns: int, found: OwnSteps, needed: int
    ) -> Task[None]:
        """Nothing was found: what does not answer may be the user's, so it gets half of the time that is left."""
        until_ns = halfway(deadline_ns)
        for index in indexes:
            index.ask_due(at_once=True)
        while time.monotonic_ns() < until_ns:
            try:
                yield from self._ask_own(indexes, uid, until_ns, found, needed)
            except DeadlineExceeded:
                return  # no turn in time: the steps are known, but not asked
            waiting = [index for index in indexes if any(map(_is_open, index.open_questions(uid)))]
            if found.own or not waiting:
                return
            yield from wait_flag(waiting[0].news, until_ns)

    def warm_up(self, deadline_ns: int) -> Task[None]:
        """Look at the node before the first login does."""
        conf = yield from self.read_conf(deadline_ns)
        self._current(conf, "")

    def report(self, metrics: Metrics) -> None:
        """Put what has happened since the last report, and how things are, into the numbers."""
        for cache in self.conf_caches.values():
            metrics.count("slurm_adopt_conf_reads_total", cache.reads)
            cache.reads = 0
        steps = unsettled = 0
        for index in self.indexes.values():
            steps += len(index.entries)
            unsettled += len(index.unsettled)
            self._take_counts(index)
        metrics.count("slurm_adopt_step_questions_total", self._questions)
        self._questions = 0
        for why, count in self._rebuilds.items():
            metrics.count("slurm_adopt_index_rebuilds_total", count, reason=why)
        self._rebuilds.clear()
        metrics.put("slurm_adopt_steps", steps - unsettled, owner="known")
        metrics.put("slurm_adopt_steps", unsettled, owner="unknown")

    def _take_counts(self, index: StepIndex) -> None:
        self._questions += index.probes
        index.probes = 0
        for why, count in index.rebuilds.items():
            self._rebuilds[why] = self._rebuilds.get(why, 0) + count
        index.rebuilds.clear()

    def _current(self, conf: SlurmConf, nodename: str) -> list[StepIndex]:
        """The indexes of all spool directories that exist, up to date; `SpoolFault` if none does or one is not safe."""
        if conf is not self._conf:
            self._forget()
            self._conf = conf
        current = []
        missing: SpoolFault | None = None
        for directory in self._directories_of(conf, nodename):
            index = self.indexes.get(directory)
            if index is None:
                if len(self.indexes) >= INDEX_CAP:
                    self._forget()
                index = self.indexes[directory] = StepIndex(
                    self._loop, directory[0], conf.step_owners, directory[1], conf.spool_owners
                )
            try:
                index.refresh()
            except SpoolFault as fault:
                index.close()
                if fault.reason != "spool-dir-missing":
                    raise
                missing = fault
                continue
            current.append(index)
        if not current:
            raise missing or SpoolFault("spool-dir-missing", "no spool directory is known")
        return current

    def _directories_of(self, conf: SlurmConf, nodename: str) -> list[SpoolDir]:
        key = (nodename, os.uname().nodename)
        known = self._directories.get(key)
        if known is not None:
            return known
        found = spool_dirs(conf, nodename)
        # of a dynamic node the name is not in slurm.conf: its folder has to be looked for each time
        if not (has_pattern(conf.spool_dir) and any(node is None for _, node in found)):
            if len(self._directories) >= INDEX_CAP:
                self._directories.clear()
            self._directories[key] = found
        return found

    def _forget(self) -> None:
        for index in self.indexes.values():
            self._take_counts(index)
            index.close()
        self.indexes.clear()
        self._directories.clear()


def _wait_for_new(index: StepIndex, uid: int, deadline_ns: int) -> Task[None]:
    """Wait until the steps that have just come up have said whose they are, each for at most a grace."""
    grace_ns = grace_of(deadline_ns)
    until_ns = min(deadline_ns, time.monotonic_ns() + grace_ns)
    while True:
        now_ns = time.monotonic_ns()
        ends = [entry.since_ns + grace_ns for entry in index.open_questions(uid) if not entry.fault]
        ends = [end for end in ends if end > now_ns]
        if not ends or now_ns >= until_ns:
            return
        yield from wait_flag(index.news, min(until_ns, max(ends)))


def _wait_for_needed(indexes: list[StepIndex], uid: int, deadline_ns: int, found: OwnSteps, needed: int) -> Task[None]:
    """No other job will do, and its step had not answered when others of the user's had: half of what is left."""
    until_ns = halfway(deadline_ns)
    found.pause()
    for index in indexes:
        asked = False
        while time.monotonic_ns() < until_ns:
            waiting = [entry for entry in index.open_questions(uid) if entry.path.job_id == needed]
            # a question ends after some seconds, which may be sooner; one that is answered amiss is not asked again
            if any(entry.probe is None and (not asked or entry.fault == STEP_SILENT) for entry in waiting):
                index.ask_due(at_once=True)
            asked = True
            if not any(map(_is_open, waiting)):
                break
            yield from wait_flag(index.news, until_ns)
    yield from found.resume(deadline_ns)
    for index in indexes:
        entries = [entry for entry in index.own(uid) if entry.path.job_id == needed]
        yield from _ask(index, entries, uid, deadline_ns, found, needed)


def _ask(
    index: StepIndex, entries: list[Entry], uid: int, deadline_ns: int, found: OwnSteps, needed: int = 0
) -> Task[None]:
    if not entries:
        return
    paths, known = [entry.path for entry in entries], [entry.identity for entry in entries]
    outcomes = yield from ask_steps(paths, uid, index.owners, deadline_ns, known, needed)
    for entry, outcome in zip(entries, outcomes):
        if isinstance(outcome, OwnStep):
            found.own.append(outcome)
        else:
            index.doubt(entry, outcome.reason if isinstance(outcome, StepFault) else STEP_FOREIGN)


def _is_open(entry: Entry) -> bool:
    # a young socket that refuses connections is asked again in a moment: its slurmstepd may be about to listen
    return entry.probe is not None or entry.fault == STEP_GONE


def _unanswered(index: StepIndex, uid: int) -> list[Entry]:
    return [entry for entry in index.open_questions(uid) if entry.fault not in (STEP_GONE, STEP_ENDING)]
