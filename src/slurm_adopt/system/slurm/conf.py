# SPDX-License-Identifier: Apache-2.0
"""The node's slurm.conf: where it is, whether it may be believed, what it says.

Rules of this file:
1. The environment is never asked (SLURM_CONF belongs to whoever calls): the places are fixed, in Slurm's order.
2. Who may write the file decides logins. Its owner must be root or the SlurmUser it names (who may run anything as
   anybody through slurmctld, and owns /etc/slurm at many sites), and it must not be writable by others. The
   owner is in the result: a login of that very user must not be decided by the user's own file. A file that some
   other group may write is only noted in `problems`: sites have admin groups. The same holds for includes.
3. Reading regular files cannot be given a deadline (a hung NFS server hangs every reader, Slurm's too); nothing else
   here waits: no DNS, no NSS beyond /etc/passwd unless a non-root owner makes it necessary.
4. `ConfFault` is the only error.
"""

from __future__ import annotations

import errno
import os
import stat

from ...model import Fault
from ...places import SLURM_CONF
from ...record import record
from ...wire.errors import RemoteProtocolError
from ...wire.slurm_conf import INCLUDE, NODE, ConfError, last_values, parse
from ...wire.slurm_nodes import DEFAULT_PORT
from ..tasks.files import other_writers, read_judged
from .accounts import uid_of_user

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...model import ReasonCode
    from ...wire.slurm_conf import Statement

SEARCH_PATHS = (
    SLURM_CONF,  # what the build names
    "/etc/slurm/slurm.conf",  # SchedMD's packages, Debian, Fedora
    "/etc/slurm-llnl/slurm.conf",  # Debian up to 10
    "/usr/local/etc/slurm.conf",  # built from source
    "/run/slurm/conf/slurm.conf",  # configless: slurmd's cache, sackd
)
# 65,533 nodes with a line of 200 bytes each are 13 MB
MAX_BYTES = 16 << 20
# all files together; a cluster may have a file per rack
MAX_FILES = 512
# Slurm has no limit; nobody nests more than two or three deep, and a file may include itself
MAX_DEPTH = 8
DEFAULT_PID_FILE = "/var/run/slurmd.pid"
DEFAULT_SPOOL_DIR = "/var/spool/slurmd"


class ConfFault(Fault):
    """No usable slurm.conf: slurm-conf-missing, -unreadable, -untrusted, -malformed."""


@record
class FileState:
    """One file that was read, to notice when it changes (the ctime: a new owner or mode counts too)."""

    path: str
    device: int
    inode: int
    ctime_ns: int
    size: int
    owner: int


@record
class SlurmConf:
    """The settings of slurm.conf, defaults filled in (documentation of Slurm 26.05). Names keep their case; the two
    user names may be numbers; `step_owners` are the uids that slurmd and slurmstepd may have; times are seconds; lists
    are lower case. `problems` are sentences for a person."""

    path: str
    cluster_name: str
    spool_dir: str
    pid_file: str
    slurmd_port: int
    slurm_user: str
    slurmd_user: str
    step_owners: tuple[int, ...]
    auth_type: str
    auth_info: str
    hash_plugin: str
    prolog_flags: tuple[str, ...]
    prolog: str
    proctrack_type: str
    task_plugin: tuple[str, ...]
    launch_parameters: tuple[str, ...]
    communication_parameters: tuple[str, ...]
    tls_type: str
    tls_parameters: str
    container_type: str
    message_timeout_s: int
    tcp_timeout_s: int
    files: tuple[FileState, ...]
    problems: tuple[str, ...]
    statements: tuple[Statement, ...]

    def has_nodes(self) -> bool:
        """Whether any NodeName line is there (a login node's sackd has none, a dynamic cluster few)."""
        return any(key == NODE for key, _, _, _ in self.statements)


class _Reader:
    """Reads one configuration with its includes."""

    def __init__(self, path: str) -> None:
        self.folder = os.path.dirname(path)
        self.files: list[FileState] = []
        self.problems: list[str] = []
        self.statements: list[Statement] = []
        self.shared: list[str] = []
        self.cluster = ""
        self.left = MAX_BYTES

    def read(self, path: str, depth: int) -> None:
        if depth > MAX_DEPTH or len(self.files) >= MAX_FILES:
            raise ConfFault("slurm-conf-malformed", f"{path}: includes too deep or too many")
        try:
            conf = parse(self.load(path), path)
            self.problems.extend(conf.problems)
            for statement in conf.statements:
                key, value, file, line = statement
                if key == "clustername":
                    self.cluster = value.lower()
                if key == INCLUDE:
                    self.read(self.included(value, file, line), depth + 1)
                else:
                    self.statements.append(statement)
        except RemoteProtocolError as error:
            raise ConfFault("slurm-conf-malformed", str(error)) from None

    def included(self, name: str, file: str, line: int) -> str:
        if "%c" in name:
            if not self.cluster:
                raise ConfError(file, line, "%c in an Include before ClusterName")
            name = name.replace("%c", self.cluster)
        return os.path.join(self.folder, name)

    def load(self, path: str) -> bytes:
        try:
            # links are followed: /run/slurm/conf is one
            text = read_judged(path, lambda fd, info: self.remember(path, fd, info), self.left, follow=True)
        except OSError as error:
            missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
            reason: ReasonCode = "slurm-conf-missing" if missing else "slurm-conf-unreadable"
            raise ConfFault(reason, f"{path}: {error.strerror}") from None
        self.left -= len(text)
        if self.left < 0:
            raise ConfFault("slurm-conf-malformed", f"{path}: more than {MAX_BYTES} bytes")
        return text

    def remember(self, path: str, fd: int, info: os.stat_result) -> None:
        if not stat.S_ISREG(info.st_mode):
            raise ConfFault("slurm-conf-unreadable", f"{path}: not a regular file")
        # whose the files are is judged when SlurmUser is known
        others = other_writers(path, info, None, fd, any_group=True)
        if others:
            raise ConfFault("slurm-conf-untrusted", f"{path}: {others}")
        shared = other_writers(path, info, None, fd)
        if shared:
            self.shared.append(f"{path}: {shared}")
        self.files.append(FileState(path, info.st_dev, info.st_ino, info.st_ctime_ns, info.st_size, info.st_uid))


def find_slurm_conf(paths: tuple[str, ...] = SEARCH_PATHS) -> str:
    """The first of the paths that exists; `ConfFault` if none does."""
    for path in paths:
        if _exists(path):
            return path
    raise ConfFault("slurm-conf-missing", f"none of {', '.join(paths)}")


def _exists(path: str) -> bool:
    try:
        os.stat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise ConfFault("slurm-conf-unreadable", f"{path}: {error.strerror}") from None
    return True


def read_slurm_conf(paths: tuple[str, ...] = SEARCH_PATHS) -> SlurmConf:
    """Find, read and judge the node's configuration; `ConfFault`."""
    path = find_slurm_conf(paths)
    reader = _Reader(path)
    reader.read(path, 0)
    values = last_values(tuple(reader.statements))
    slurm_user = values.get("slurmuser", "root")
    _check_owners(reader.files, slurm_user)
    reader.problems.extend(reader.shared)
    return _conf(path, values, reader)


def _check_owners(files: list[FileState], slurm_user: str) -> None:
    strangers = {file.owner: file.path for file in files if file.owner != 0}
    if strangers:
        allowed = uid_of_user(slurm_user)
        for owner, path in strangers.items():
            if owner != allowed:
                raise ConfFault("slurm-conf-untrusted", f"{path}: owned by uid {owner}, not root or {slurm_user}")


def _number(values: dict[str, str], key: str, default: int, problems: list[str]) -> int:
    text = values.get(key, "")
    # SlurmdPort may be given as a range for front ends; the first is slurmd's
    digits = text.partition("-")[0]
    if not text:
        return default
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 9:
        problems.append(f"{key}: {text!r} is not a number")
        return default
    return int(digits)


def _step_owners(slurmd_user: str, problems: list[str]) -> tuple[int, ...]:
    uid = uid_of_user(slurmd_user)
    if uid is None:
        problems.append(f"SlurmdUser: there is no user {slurmd_user!r}")
    return (0,) if uid in (None, 0) else (0, uid)


def _list(text: str) -> tuple[str, ...]:
    return tuple([word for word in text.lower().replace(" ", "").split(",") if word])


def _conf(path: str, values: dict[str, str], reader: _Reader) -> SlurmConf:
    problems = reader.problems
    auth = values.get("authtype", "auth/munge").lower()
    port = _number(values, "slurmdport", DEFAULT_PORT, problems)
    if not 0 < port < 65536:
        raise ConfFault("slurm-conf-malformed", f"{path}: SlurmdPort {port}")
    spool_dir = values.get("slurmdspooldir", DEFAULT_SPOOL_DIR)
    if not spool_dir.startswith("/"):
        raise ConfFault("slurm-conf-malformed", f"{path}: SlurmdSpoolDir {spool_dir!r} is not absolute")
    return SlurmConf(
        path=path,
        cluster_name=values.get("clustername", "").lower(),
        spool_dir=spool_dir,
        pid_file=values.get("slurmdpidfile", DEFAULT_PID_FILE),
        slurmd_port=port,
        slurm_user=values.get("slurmuser", "root"),
        slurmd_user=values.get("slurmduser", "root"),
        step_owners=_step_owners(values.get("slurmduser", "root"), problems),
        # from 23.11 the part before the slash may be left out
        auth_type=auth if "/" in auth else f"auth/{auth}",
        auth_info=values.get("authinfo", ""),
        hash_plugin=values.get("hashplugin", "hash/k12").lower(),
        prolog_flags=_list(values.get("prologflags", "")),
        prolog=values.get("prolog", ""),
        proctrack_type=values.get("proctracktype", "proctrack/cgroup").lower(),
        task_plugin=_list(values.get("taskplugin", "")),
        launch_parameters=_list(values.get("launchparameters", "")),
        communication_parameters=_list(values.get("communicationparameters", "")),
        tls_type=values.get("tlstype", "tls/none").lower(),
        tls_parameters=values.get("tlsparameters", ""),
        container_type=values.get("namespacetype", values.get("jobcontainertype", "")).lower(),
        message_timeout_s=_number(values, "messagetimeout", 10, problems),
        tcp_timeout_s=_number(values, "tcptimeout", 2, problems),
        files=tuple(reader.files),
        problems=tuple(problems),
        statements=tuple(reader.statements),
    )


def check_not_own(conf: SlurmConf, uid: int) -> None:
    """Refuse to judge users by a file that they may write themselves (SlurmUser, rule 2); root may write everything."""
    for file in conf.files:
        if file.owner == uid != 0:
            raise ConfFault("slurm-conf-untrusted", f"{file.path}: belongs to uid {uid}, who logs in")


def is_current(conf: SlurmConf, paths: tuple[str, ...] = SEARCH_PATHS) -> bool:
    """Whether reading it again would give the same: a few stat() calls for the resident service's cache."""
    try:
        for earlier in paths[: paths.index(conf.path)]:
            if _exists(earlier):
                return False
        for file in conf.files:
            info = os.stat(file.path)
            seen = (info.st_dev, info.st_ino, info.st_ctime_ns, info.st_size, info.st_uid)
            if seen != (file.device, file.inode, file.ctime_ns, file.size, file.owner):
                return False
    except (OSError, ConfFault):
        return False
    return True
