# SPDX-License-Identifier: Apache-2.0
"""Which extern steps one spool directory holds, and whose they are.

A step is asked once who owns it; from then on a login asks its own user's steps only. What is remembered here grants
nothing by itself: a login connects to every step that it uses, the kernel names the process that listens there, and
only if that is the one which has answered on this socket file before, its owner is known (`stepd.connect_step`).

Rules of this file:
1. `refresh()` comes before each look: the kernel's events of all changes so far are taken in first, so a step that
   began a moment ago is there. The directory's own times tell if an event was missed.
2. Whatever cannot be accounted for (overflow, another directory under the name, a change without an event) makes
   the whole index forgotten and built anew. Without a watch (no inotify left) every look reads the directory.
3. A name is a step only together with its socket file's inode and change time: a job id that comes back is new.
4. A step that does not answer stays unsettled: there is one question on its way to it at any time, for all logins,
   and a growing pause between two.
"""

from __future__ import annotations

import os
import time

from ..model import STEP_GONE
from ..system.kernel.inotify import IN_CREATE, IN_MOVED_TO, LOST, Inotify, decode_events
from ..system.slurm.spool import EXTERN_SUFFIX, SpoolDirectory, StepPath
from ..system.slurm.stepd import Identity, StepFault, connect_step
from ..system.tasks.files import other_writers
from ..system.tasks.task import MS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..model import ReasonCode
    from ..system.tasks.loop import Flag, Loop, Running
    from ..system.tasks.task import Task

STEP_FOREIGN: ReasonCode = "step-foreign"
#: A question may be on its way this long: it is answered as soon as a hung slurmstepd goes on.
PROBE_NS = 10_000 * MS
#: With many at once (the first look at a big node) each gets less, so that a few hung ones do not hold up the rest.
PROBE_CROWDED_NS = 1_000 * MS
PROBE_CAP = 128
CROWD = 32
PAUSE_NS = 1_000 * MS
PAUSE_CAP_NS = 60_000 * MS
#: Between bind() and listen() a new slurmstepd refuses connections; a socket this old that refuses is a dead one's.
YOUNG_NS = 1_000 * MS
YOUNG_PAUSE_NS = 20 * MS


class Entry:
    """One step's socket. `uid` and `identity` are None until the step has said whose it is; `fault` is why its last
    answer is missing.

    `since_ns` is when it became unsettled, `due_ns` when it may be asked again.
    """

    __slots__ = ("due_ns", "fault", "held", "identity", "path", "pause_ns", "probe", "since_ns", "uid")

    def __init__(self, path: StepPath, held: HeldDirectory, now_ns: int) -> None:
        self.path = path
        self.held = held  # as long as an entry is in use, its descriptor stays what it is
        self.uid: int | None = None
        self.identity: Identity | None = None
        self.fault: ReasonCode = ""
        self.since_ns = now_ns
        self.due_ns = 0
        self.pause_ns = PAUSE_NS
        self.probe: Running | None = None


class HeldDirectory:
    """An open spool directory, closed when nobody holds it any more."""

    def __init__(self, directory: SpoolDirectory) -> None:
        self.directory = directory
        found = os.fstat(directory.fd)
        self.identity = (found.st_dev, found.st_ino)

    def __del__(self) -> None:
        os.close(self.directory.fd)


class StepIndex:
    """The extern steps of one spool directory."""

    def __init__(
        self,
        loop: Loop,
        name: str,
        owners: tuple[int, ...],
        node: str | None,
        folder_owners: tuple[int, ...] | None = None,
    ) -> None:
        self.name = name
        self.owners = owners
        self.folder_owners = owners if folder_owners is None else folder_owners
        self.node = node
        self.entries: dict[str, Entry] = {}
        self.settled: dict[int, dict[str, Entry]] = {}
        self.unsettled: dict[str, Entry] = {}
        self.rebuilds: dict[str, int] = {}
        self.probes = 0
        self._loop = loop
        self._held: HeldDirectory | None = None
        self._watch: Inotify | None = None
        self._changed: tuple[int, int] = (0, 0)
        self._asking = 0
        #: set, and replaced, whenever a step has been settled or given up for now
        self.news: Flag = loop.flag()

    # Keeping current -------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Make the index what the directory is now. `SpoolFault` if it cannot be used; nothing is remembered then."""
        found = self._stat_held()
        if found is None:
            self._open()
            return
        changed = (found.st_mtime_ns, found.st_ctime_ns)
        if self._watch is None:
            self._reread()
            return
        events = self._watch.read()
        if not events and changed != self._changed:
            self._rebuild("missed-event")
        elif events:
            self._take_in(events)
        self._changed = changed

    def check_not_own(self, uid: int) -> None:
        """`SpoolFault` if the directory belongs to the user who logs in, who is not to be judged by it."""
        if self._held is not None:
            self._held.directory.check_not_own(uid)

    def close(self) -> None:
        """Forget everything."""
        self._forget()
        if self._watch is not None:
            self._watch.close()
        self._watch = None
        self._held = None

    def own(self, uid: int) -> list[Entry]:
        """The steps that are this user's and answer."""
        return list(self.settled.get(uid, {}).values())

    def open_questions(self, uid: int) -> list[Entry]:
        """The steps that may be this user's for all we know."""
        return [entry for entry in self.unsettled.values() if entry.uid is None or entry.uid == uid]

    def _stat_held(self) -> os.stat_result | None:
        """The directory as it is now; None if it is not (any more) the one that is held, or not safe."""
        try:
            found = os.stat(self.name)
        except OSError:
            return None
        if self._held is None or (found.st_dev, found.st_ino) != self._held.identity:
            return None
        # another owner: who may not be judged by it is another one, too
        others = other_writers(self.name, found, (self._held.directory.owner,))
        return None if others else found

    def _open(self) -> None:
        if self._held is not None:
            self._count("directory-replaced")
        self.close()
        self._held = HeldDirectory(SpoolDirectory(self.name, self.owners, self.node, self.folder_owners))
        try:
            # by descriptor: it is this very directory that is watched, whatever its name leads to by now
            self._watch = Inotify(f"/proc/self/fd/{self._held.directory.fd}")
        except OSError:
            self._count("no-watch")
        found = os.fstat(self._held.directory.fd)
        self._changed = (found.st_mtime_ns, found.st_ctime_ns)
        self._reread()

    def _take_in(self, events: bytes) -> None:
        assert self._held is not None
        names: dict[str, bool] = {}
        for mask, name in decode_events(events):
            if mask & LOST:
                self._rebuild("events-lost")
                return
            if name.endswith(EXTERN_SUFFIX):
                names[name] = names.get(name, False) or bool(mask & (IN_CREATE | IN_MOVED_TO))
        found = {path.path.rpartition("/")[2]: path for path in self._held.directory.stat_steps(list(names))}
        for name, is_new in names.items():
            path = found.get(name)
            entry = self.entries.get(name)
            if path is None:
                self._remove(name)
            elif is_new or entry is None or not _same(entry.path, path):
                self._add(name, path)

    def _rebuild(self, why: str) -> None:
        """Nothing that was seen before counts any more."""
        self._count(why)
        self._forget()
        self._reread()

    def _reread(self) -> None:
        """Compare with the whole directory."""
        assert self._held is not None
        found = {path.path.rpartition("/")[2]: path for path in self._held.directory.extern_steps()}
        for name in [name for name in self.entries if name not in found]:
            self._remove(name)
        for name, path in found.items():
            entry = self.entries.get(name)
            if entry is None or not _same(entry.path, path):
                self._add(name, path)

    def _add(self, name: str, path: StepPath) -> None:
        assert self._held is not None
        self._remove(name)
        self.entries[name] = self.unsettled[name] = Entry(path, self._held, time.monotonic_ns())
        self.ask_due()

    def _remove(self, name: str) -> None:
        entry = self.entries.pop(name, None)
        if entry is None:
            return
        self._unlist(name, entry)
        if entry.probe is not None:
            self._loop.cancel(entry.probe)
            self._asking -= 1
            entry.probe = None

    def _unlist(self, name: str, entry: Entry) -> None:
        self.unsettled.pop(name, None)
        if entry.uid is not None and entry.uid in self.settled:
            self.settled[entry.uid].pop(name, None)
            if not self.settled[entry.uid]:
                del self.settled[entry.uid]

    def _forget(self) -> None:
        for name in list(self.entries):
            self._remove(name)

    def _count(self, why: str) -> None:
        self.rebuilds[why] = self.rebuilds.get(why, 0) + 1

    # Asking whose they are -------------------------------------------------------------------------

    def ask_due(self, at_once: bool = False) -> None:
        """Ask the unsettled steps, those in a pause only if `at_once`."""
        now_ns = time.monotonic_ns()
        for entry in self.unsettled.values():
            if self._asking >= PROBE_CAP:
                return
            if entry.probe is None and (at_once or entry.due_ns <= now_ns):
                self._asking += 1
                self.probes += 1
                entry.probe = self._loop.spawn(self._ask(entry), self._hearer(entry))

    def _hearer(self, entry: Entry) -> Callable[[Running, Identity | Exception], None]:
        return lambda _, outcome: self._hear(entry, outcome)

    def doubt(self, entry: Entry, reason: ReasonCode) -> None:
        """A login found that what is remembered of this step does not hold (any more)."""
        name = entry.path.path.rpartition("/")[2]
        if self.entries.get(name) is not entry or name in self.unsettled:
            return
        self._unlist(name, entry)
        self.unsettled[name] = entry
        entry.fault = reason
        entry.since_ns = 0  # nobody waits for it who has something else
        if reason == STEP_FOREIGN:
            entry.uid = entry.identity = None
        self.ask_due()

    def _ask(self, entry: Entry) -> Task[Identity]:
        limit_ns = PROBE_NS if self._asking <= CROWD else PROBE_CROWDED_NS
        connection = yield from connect_step(entry.path.path, self.owners, time.monotonic_ns() + limit_ns)
        connection.close()
        assert connection.identity is not None
        return connection.identity

    def _hear(self, entry: Entry, outcome: Identity | Exception) -> None:
        """A question has been answered, or not."""
        entry.probe = None
        self._asking -= 1
        name = entry.path.path.rpartition("/")[2]
        if isinstance(outcome, Identity):
            self._unlist(name, entry)
            entry.uid, entry.identity, entry.fault, entry.pause_ns = outcome.uid, outcome, "", PAUSE_NS
            self.settled.setdefault(outcome.uid, {})[name] = entry
        else:
            self._hear_fault(name, entry, outcome.reason if isinstance(outcome, StepFault) else "internal-error")
        news, self.news = self.news, self._loop.flag()
        news.set()
        self.ask_due()

    def _hear_fault(self, name: str, entry: Entry, reason: ReasonCode) -> None:
        entry.fault = reason
        pause_ns = entry.pause_ns
        if reason == STEP_GONE:
            if time.time_ns() - entry.path.changed_ns > YOUNG_NS:
                self._unlist(name, entry)  # a dead slurmstepd's socket: nobody can ever listen on this file again
                return
            pause_ns = YOUNG_PAUSE_NS
        else:
            entry.pause_ns = min(entry.pause_ns * 2, PAUSE_CAP_NS)
        entry.due_ns = time.monotonic_ns() + pause_ns
        self._loop.call_at(entry.due_ns, self.ask_due)


def _same(one: StepPath, other: StepPath) -> bool:
    return (one.inode, one.changed_ns) == (other.inode, other.changed_ns)
