# SPDX-License-Identifier: Apache-2.0
"""The sockets of extern steps in slurmd's spool directory.

Rules of this file:
1. Nobody but root, SlurmdUser and SlurmUser (who runs anything as anybody through slurmctld, and owns the directory
   at many sites) may write to it (`files.other_writers`): whoever can create a file there could pretend to be a
   slurmstepd, or hide one. A login of the very user who owns it is not decided by it.
2. Only sockets owned by root or SlurmdUser count; the rest of the directory is none of our business. Whoever listens
   must be root's or SlurmdUser's slurmstepd all the same (stepd.py).
3. Sockets are reached through the directory's descriptor, so that a replaced directory or a long path cannot matter.
"""

from __future__ import annotations

import os
import stat

from ...model import Fault
from ...record import record
from ...wire.stepd import EXTERN_STEP, parse_socket_name
from ..tasks.files import other_writers
from ..tasks.task import raise_own_lack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...model import ReasonCode

#: More extern steps than any node runs (a step per job); a directory with more is not slurmd's.
STEP_CAP = 16384
EXTERN_SUFFIX = f".{EXTERN_STEP}"


class SpoolFault(Fault):
    """The directory cannot be used. `is_own`: for the login of its owner only."""

    def __init__(self, reason: ReasonCode, detail: str, is_own: bool = False) -> None:
        super().__init__(reason, detail)
        self.is_own = is_own


@record
class StepPath:
    """Where one extern step listens: `path` for connect(2), and what identifies this very socket file."""

    job_id: int
    node: str
    path: str
    inode: int
    changed_ns: int


class SpoolDirectory:
    """An open spool directory; a context manager. `owners` may own its sockets, `folder_owners` itself (default: the
    same); `owner` does."""

    def __init__(
        self,
        directory: str,
        owners: tuple[int, ...],
        node: str | None = None,
        folder_owners: tuple[int, ...] | None = None,
    ) -> None:
        self.directory = directory
        self.owners = owners
        self.folder_owners = owners if folder_owners is None else folder_owners
        self.node = node
        try:
            self.fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise SpoolFault("spool-dir-missing", f"{directory} does not exist") from None
        except NotADirectoryError:
            raise SpoolFault("spool-dir-untrusted", f"{directory} is not a directory") from None
        except OSError as error:
            raise_own_lack(error)
            raise SpoolFault("spool-dir-unreadable", f"{directory}: {error.strerror}") from None
        found = os.fstat(self.fd)
        self.owner = found.st_uid
        others = other_writers(directory, found, self.folder_owners, self.fd)
        if others:
            os.close(self.fd)
            raise SpoolFault("spool-dir-untrusted", f"{directory}: {others}")

    def __enter__(self) -> SpoolDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def check_not_own(self, uid: int) -> None:
        """Refuse to judge a user by a directory that is the user's own; root's is everybody's. `SpoolFault`."""
        check_not_own_spool(self.directory, self.owner, uid)

    def extern_steps(self) -> list[StepPath]:
        """The extern steps that have a socket here."""
        try:
            names = os.listdir(self.fd)
        except OSError as error:
            raise_own_lack(error)
            raise SpoolFault("spool-dir-unreadable", f"{self.directory}: {error.strerror}") from None
        return list(self.stat_steps(names))[:STEP_CAP]

    def stat_steps(self, names: list[str]) -> Iterable[StepPath]:
        """Those of `names` that are extern steps' sockets now."""
        for name in names:
            if not name.endswith(EXTERN_SUFFIX):
                continue
            socket = parse_socket_name(name)
            if socket is None or (self.node is not None and socket.node != self.node):
                continue
            try:
                found = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
            except OSError:
                continue  # it ended while we looked
            if stat.S_ISSOCK(found.st_mode) and found.st_uid in self.owners:
                path = f"/proc/self/fd/{self.fd}/{name}"
                yield StepPath(socket.job_id, socket.node, path, found.st_ino, found.st_ctime_ns)


def check_not_own_spool(directory: str, owner: int, uid: int) -> None:
    """`SpoolFault` if the directory's owner is the user who logs in."""
    if owner == uid != 0:
        raise SpoolFault("spool-dir-untrusted", f"{directory} belongs to uid {uid}, who logs in", is_own=True)
