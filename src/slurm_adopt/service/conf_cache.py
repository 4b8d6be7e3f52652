# SPDX-License-Identifier: Apache-2.0
"""slurm.conf, read once and kept as long as its files stay as they are.

Rules of this file:
1. Each login looks whether the files are still the same (a stat() each); nothing is older than that.
2. Reading is done in a child: the slurm.conf of ten thousand nodes takes a second and a hundred MB to parse, and
   finding SlurmUser's uid may ask a directory service that hangs. Neither may cost the other logins anything.
3. What the child hands back is its own memory file's content, which nobody else can write.
"""

from __future__ import annotations

import os
import signal
import time

from ..system.loop import wait_flag
from ..system.slurm_conf import ConfFault, is_current, read_slurm_conf
from ..system.task import MS, POLLIN, DeadlineExceeded, HelperNeeded, Wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    from ..system.loop import Flag, Loop
    from ..system.slurm_conf import SlurmConf
    from ..system.task import Task

    Result = Union[SlurmConf, ConfFault]

#: A child that has read for this long is given up: the next login starts another.
READ_CAP_NS = 10_000 * MS
#: The end of the pipe is seen a moment before the child can be reaped.
REAP_AFTER_NS = 100 * MS


class ConfCache:
    """The node's slurm.conf for all logins."""

    def __init__(self, loop: Loop) -> None:
        self.reads = 0
        self._loop = loop
        self._conf: SlurmConf | None = None
        self._reading: Flag | None = None
        self._fault: ConfFault | HelperNeeded | None = None
        self._dying: list[int] = []

    def read(self, deadline_ns: int) -> Task[SlurmConf]:
        """The configuration as it is now; `ConfFault`, `DeadlineExceeded`, `HelperNeeded`."""
        while True:
            if self._conf is not None and is_current(self._conf):
                return self._conf
            self._conf = None
            if self._reading is None:
                self._reading = self._loop.flag()
                self.reads += 1
                self._loop.spawn(self._read_in_child(), self._done)
            if not (yield from wait_flag(self._reading, deadline_ns)):
                raise DeadlineExceeded
            if self._fault is not None:
                raise self._fault

    def _done(self, _: object, outcome: Result | Exception) -> None:
        assert self._reading is not None
        self._fault = self._conf = None
        if isinstance(outcome, ConfFault):
            self._fault = outcome
        elif isinstance(outcome, OSError):
            # no child, or nothing to talk to it with: that says nothing about slurm.conf
            self._fault = HelperNeeded(f"slurm.conf cannot be read in a child: {outcome}")
        elif isinstance(outcome, Exception):
            self._fault = ConfFault("slurm-conf-unreadable", f"{type(outcome).__name__}: {outcome}")
        else:
            self._conf = outcome
        reading, self._reading = self._reading, None
        reading.set()

    def _read_in_child(self) -> Task[Result]:
        self._reap()
        memory = done_read = done_write = -1
        try:
            memory = os.memfd_create("slurm.conf", os.MFD_CLOEXEC)
            done_read, done_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            pid = os.fork()
            if pid == 0:
                _be_child(memory, done_write)
            self._dying.append(pid)
            os.close(done_write)
            done_write = -1
            # the child's end closes its end of the pipe, however it ends
            ready = yield Wait(((done_read, POLLIN),), time.monotonic_ns() + READ_CAP_NS)
            if not ready:
                os.kill(pid, signal.SIGKILL)
                return ConfFault("slurm-conf-unreadable", "reading slurm.conf takes too long")
            with open(memory, "rb", closefd=False) as file:
                file.seek(0)
                return _load(file.read())
        finally:
            self._reap_all()
            for fd in (memory, done_read, done_write):
                if fd >= 0:
                    os.close(fd)

    def _reap_all(self) -> None:
        """Until no zombie is left."""
        self._reap()
        if self._dying:
            self._loop.call_at(time.monotonic_ns() + REAP_AFTER_NS, self._reap_all)

    def _reap(self) -> None:
        """Never waits: a child that hangs in the kernel dies when the kernel lets it."""
        self._dying = [pid for pid in self._dying if os.waitpid(pid, os.WNOHANG)[0] == 0]


def _load(data: bytes) -> Result:
    import pickle

    if not data:
        return ConfFault("slurm-conf-unreadable", "the reader of slurm.conf died")
    reason, what = pickle.loads(data)  # noqa: S301  # rule 3
    return ConfFault(reason, what) if reason else what


def _be_child(memory: int, done_write: int) -> None:
    """Never returns."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _keep_only(memory, done_write)
        import pickle

        try:
            result: tuple[str, object] = ("", read_slurm_conf())
        except ConfFault as fault:
            result = (fault.reason, str(fault))
        with open(memory, "wb", closefd=False) as file:
            file.write(pickle.dumps(result, pickle.HIGHEST_PROTOCOL))
    finally:
        os._exit(0)


def _keep_only(*fds: int) -> None:
    """Close all other descriptors: a child that hangs must not hold on to anybody's connection, nor to the listener."""
    last = 2
    for fd in sorted(fds):
        os.closerange(last + 1, fd)
        last = fd
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))
