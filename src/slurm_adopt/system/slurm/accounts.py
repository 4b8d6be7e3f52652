# SPDX-License-Identifier: Apache-2.0
"""The uids of Slurm's own users.

Rules of this file:
1. SlurmUser and SlurmdUser are names or numbers of slurm.conf; `root` is never looked up.
2. /etc/passwd comes before NSS: a directory service that hangs must not delay a login for a system account,
   and the account of a cluster's own daemon is a local one nearly everywhere.
3. NSS is asked in a child that has a second. Without an answer the user is not known, and only what needs the uid
   fails.
4. The resident service asks where slurm.conf is read, and never in its own thread (`uid_of_slurm_user`).
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .conf import SlurmConf

#: `SlurmConf.slurm_uid`: nobody has asked yet, and there is no such user or no answer.
NOT_ASKED, UNKNOWN = -1, -2
NSS_NS = 1_000_000_000
MAX_PASSWD_BYTES = 16 << 20
MAX_UID = (1 << 32) - 2


def _local_uid(name: str) -> int | None:
    try:
        fd = os.open("/etc/passwd", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    with open(fd, "rb") as file:
        text = file.read(MAX_PASSWD_BYTES)
    start = os.fsencode(name) + b":"
    for line in text.split(b"\n"):
        if line.startswith(start):
            fields = line.split(b":")
            if len(fields) == 7 and fields[2].isdigit():
                return int(fields[2])
    return None


def uid_of_user(user: str) -> int | None:
    """The uid of a name or a number of slurm.conf; None if there is no such user."""
    if user == "root":
        return 0
    if user.isascii() and user.isdigit() and len(user) < 11:
        return int(user) if int(user) <= MAX_UID else None
    if not user or not user.isprintable() or ":" in user:
        return None
    uid = _local_uid(user)
    return _uid_of_nss(user) if uid is None else uid


def _uid_of_nss(user: str) -> int | None:
    # most nodes never get here
    from ..tasks.child import ChildFault, call_in_child
    from ..tasks.task import DeadlineExceeded, run

    def work() -> bytes:
        import pwd

        return b"%d" % pwd.getpwnam(user).pw_uid

    try:
        return int(run(call_in_child(work, time.monotonic_ns() + NSS_NS)))
    except (ChildFault, DeadlineExceeded, OSError):
        return None


def uid_of_slurm_user(conf: SlurmConf) -> int | None:
    """SlurmUser's uid as it was found when slurm.conf was read, else now; None if it is not known."""
    if conf.slurm_uid == NOT_ASKED:
        return uid_of_user(conf.slurm_user)
    return None if conf.slurm_uid == UNKNOWN else conf.slurm_uid
