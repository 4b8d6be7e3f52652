# SPDX-License-Identifier: Apache-2.0
"""slurm.conf, read once and kept as long as its files stay as they are, and the slurmd that uses them.

Rules of this file:
1. Each login looks whether the files are still the same (a stat() each), and slurmd the same process; nothing is older
   than that. Another slurmd that comes up is seen within seconds (`LOOK_NS`).
2. Reading is done in a child: the slurm.conf of ten thousand nodes takes a second and a hundred MB to parse,
   finding SlurmUser's uid may ask a directory service that hangs, and finding slurmd looks at every process of root's.
   None of it may cost the other logins anything.
3. What the child hands back comes through its own pipe, which nobody else can write.
4. While no slurmd runs (it is restarted, or has crashed), the file of the last one holds: its jobs go on.
5. SlurmUser's uid is found in that child. If nobody answers, logins go on without it, and all is read again later.
"""

from __future__ import annotations

import time

from ..system.slurm.accounts import UNKNOWN
from ..system.slurm.conf import ConfFault
from ..system.slurm.node_conf import is_node_conf_current, read_node_conf
from ..system.slurm.slurmd import find_by_program
from ..system.tasks.child import ChildFault, call_in_child
from ..system.tasks.loop import wait_flag
from ..system.tasks.task import MS, DeadlineExceeded, HelperNeeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Union

    from ..system.slurm.conf import SlurmConf
    from ..system.slurm.slurmd import Slurmd
    from ..system.tasks.loop import Flag, Loop
    from ..system.tasks.task import Task

    Result = Union[SlurmConf, ConfFault]

#: A child that has read for this long is given up: the next login starts another.
READ_CAP_NS = 10_000 * MS
#: slurm.conf itself may have 16 MiB.
SIZE_CAP = 64 << 20
#: A directory service that did not know SlurmUser, or did not answer, is asked again after this.
ASK_AGAIN_NS = 60_000 * MS
#: How often the running slurmds are looked for while logins come, and while none was seen: it costs a fork.
LOOK_NS, LOOK_SOON_NS = 15_000 * MS, 2_000 * MS


class ConfCache:
    """The node's slurm.conf for all logins that name this `place` (slurm_conf=, else empty).

    `on_remark` is told once what the log should say of the file.
    """

    def __init__(self, loop: Loop, place: str = "", on_remark: Callable[[str], None] | None = None) -> None:
        self.reads = 0
        self._place = place
        self._on_remark = on_remark
        self._said = ""
        #: as it was when a slurmd was seen last
        self._last: SlurmConf | None = None
        self._looked_ns = 0
        self._is_looking = False
        self._loop = loop
        self._conf: SlurmConf | None = None
        self._reading: Flag | None = None
        self._fault: ConfFault | HelperNeeded | None = None

    def read(self, deadline_ns: int) -> Task[SlurmConf]:
        """The configuration as it is now; `ConfFault`, `DeadlineExceeded`, `HelperNeeded`."""
        while True:
            if self._conf is not None and is_node_conf_current(self._conf, self._place):
                self._look_around(self._conf)
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
            self._take(outcome)
        reading, self._reading = self._reading, None
        reading.set()

    def _take(self, conf: SlurmConf) -> None:
        if conf.slurmds:
            self._last = conf
        if conf.remark not in ("", self._said) and self._on_remark is not None:
            self._on_remark(conf.remark)
        self._said = conf.remark
        self._conf = conf
        self._looked_ns = time.monotonic_ns()
        if conf.slurm_uid == UNKNOWN:
            self._loop.call_at(time.monotonic_ns() + ASK_AGAIN_NS, lambda: self._forget(conf))

    def _forget(self, conf: SlurmConf) -> None:
        if self._conf is conf:
            self._conf = None

    def _look_around(self, conf: SlurmConf) -> None:
        """Now and then, and for the logins to come: whether a slurmd has come up that this file is not of."""
        pause_ns = LOOK_NS if conf.slurmds else LOOK_SOON_NS
        if self._is_looking or time.monotonic_ns() - self._looked_ns < pause_ns:
            return
        self._is_looking = True
        self._loop.spawn(call_in_child(_find, time.monotonic_ns() + READ_CAP_NS), self._found)

    def _found(self, _: object, outcome: bytes | Exception) -> None:
        self._is_looking = False
        self._looked_ns = time.monotonic_ns()
        if isinstance(outcome, Exception) or self._conf is None:
            return  # it is looked again
        slurmds = _load_slurmds(outcome)
        if slurmds and slurmds != self._conf.slurmds:
            self._conf = None

    def _read_in_child(self) -> Task[Result]:
        def read() -> bytes:
            return _read(self._place, self._last)

        try:
            return _load((yield from call_in_child(read, time.monotonic_ns() + READ_CAP_NS, cap=SIZE_CAP)))
        except DeadlineExceeded:
            return ConfFault("slurm-conf-unreadable", "reading slurm.conf takes too long")
        except ChildFault as fault:
            return ConfFault("slurm-conf-unreadable", f"the reader of slurm.conf failed: {fault}")


def _read(place: str, last: SlurmConf | None) -> bytes:
    """In the child."""
    import pickle

    try:
        result: tuple[str, object] = ("", read_node_conf(place, thorough=True, last=last))
    except ConfFault as fault:
        result = (fault.reason, str(fault))
    return pickle.dumps(result, pickle.HIGHEST_PROTOCOL)


def _load(data: bytes) -> Result:
    import pickle

    reason, what = pickle.loads(data)  # noqa: S301  # rule 3
    return ConfFault(reason, what) if reason else what


def _find() -> bytes:
    """In the child."""
    import pickle

    return pickle.dumps(find_by_program(), pickle.HIGHEST_PROTOCOL)


def _load_slurmds(data: bytes) -> tuple[Slurmd, ...]:
    import pickle

    found: tuple[Slurmd, ...] = pickle.loads(data)  # noqa: S301  # rule 3
    return found
