# SPDX-License-Identifier: Apache-2.0
"""slurm.conf, read once and kept as long as its files stay as they are.

Rules of this file:
1. Each login looks whether the files are still the same (a stat() each); nothing is older than that.
2. Reading is done in a child: the slurm.conf of ten thousand nodes takes a second and a hundred MB to parse, and
   finding SlurmUser's uid may ask a directory service that hangs. Neither may cost the other logins anything.
3. What the child hands back comes through its own pipe, which nobody else can write.
4. SlurmUser's uid is found in that child. If nobody answers, logins go on without it, and all is read again later.
"""

from __future__ import annotations

import time

from ..record import replace
from ..system.slurm.accounts import UNKNOWN, uid_of_user
from ..system.slurm.conf import ConfFault, is_current, read_slurm_conf
from ..system.tasks.child import ChildFault, call_in_child
from ..system.tasks.loop import wait_flag
from ..system.tasks.task import MS, DeadlineExceeded, HelperNeeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    from ..system.slurm.conf import SlurmConf
    from ..system.tasks.loop import Flag, Loop
    from ..system.tasks.task import Task

    Result = Union[SlurmConf, ConfFault]

#: A child that has read for this long is given up: the next login starts another.
READ_CAP_NS = 10_000 * MS
#: slurm.conf itself may have 16 MiB.
SIZE_CAP = 64 << 20
#: A directory service that did not know SlurmUser, or did not answer, is asked again after this.
ASK_AGAIN_NS = 60_000 * MS


class ConfCache:
    """The node's slurm.conf for all logins."""

    def __init__(self, loop: Loop) -> None:
        self.reads = 0
        self._loop = loop
        self._conf: SlurmConf | None = None
        self._reading: Flag | None = None
        self._fault: ConfFault | HelperNeeded | None = None

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
            self._check_uid(outcome)
        reading, self._reading = self._reading, None
        reading.set()

    def _check_uid(self, conf: SlurmConf) -> None:
        def forget() -> None:
            if self._conf is conf:
                self._conf = None

        if conf.slurm_uid == UNKNOWN:
            self._loop.call_at(time.monotonic_ns() + ASK_AGAIN_NS, forget)

    def _read_in_child(self) -> Task[Result]:
        try:
            return _load((yield from call_in_child(_read, time.monotonic_ns() + READ_CAP_NS, cap=SIZE_CAP)))
        except DeadlineExceeded:
            return ConfFault("slurm-conf-unreadable", "reading slurm.conf takes too long")
        except ChildFault as fault:
            return ConfFault("slurm-conf-unreadable", f"the reader of slurm.conf failed: {fault}")


def _read() -> bytes:
    """In the child."""
    import pickle

    try:
        conf = read_slurm_conf()
        uid = uid_of_user(conf.slurm_user)
        result: tuple[str, object] = ("", replace(conf, slurm_uid=UNKNOWN if uid is None else uid))
    except ConfFault as fault:
        result = (fault.reason, str(fault))
    return pickle.dumps(result, pickle.HIGHEST_PROTOCOL)


def _load(data: bytes) -> Result:
    import pickle

    reason, what = pickle.loads(data)  # noqa: S301  # rule 3
    return ConfFault(reason, what) if reason else what
