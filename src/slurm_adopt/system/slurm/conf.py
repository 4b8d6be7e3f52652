# SPDX-License-Identifier: Apache-2.0
"""The node's slurm.conf: where it is, whether it may be believed, what it says.

Rules of this file:
1. Our own environment is never asked (SLURM_CONF belongs to whoever calls): the places are fixed, in Slurm's order.
   What the running slurmd says comes first (node_conf.py).
2. Who may write the file decides logins. Its owner must be root or the SlurmUser it names (who may run anything as
   anybody through slurmctld, and owns /etc/slurm at many sites), and it must not be writable by others. The
   owner is in the result: a login of that very user must not be decided by the user's own file. A file that some
   other group may write is only noted in `problems`: sites have admin groups. The same holds for includes, and for
   every folder on the way: who may write to one can put another file there. In a folder with the sticky bit (/tmp)
   nobody can, if what lies there is root's or SlurmUser's.
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
from ..kernel.procfs import is_root_link
from ..tasks.files import is_sticky, is_store, other_writers, read_judged
from .accounts import NOT_ASKED, UNKNOWN, uid_of_user

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...model import ReasonCode
    from ...wire.slurm_conf import Statement
    from .slurmd import Slurmd

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
# as many as the kernel follows
MAX_LINKS = 40
DEFAULT_PID_FILE = "/var/run/slurmd.pid"
DEFAULT_SPOOL_DIR = "/var/spool/slurmd"


class ConfFault(Fault):
    """No usable slurm.conf: slurm-conf-missing, -lost, -unreadable, -untrusted, -malformed. `is_own`: it is not to be
    used for the login of this one user, to whom it belongs."""

    def __init__(self, reason: ReasonCode, detail: str, is_own: bool = False) -> None:
        super().__init__(reason, detail)
        self.is_own = is_own


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
    user names may be numbers; `slurm_uid` is read by `accounts.uid_of_slurm_user`; `step_owners` are the uids that
    slurmd and slurmstepd may have, `spool_owners` those that SlurmdSpoolDir may have; times are seconds; lists are
    lower case. `folders` are the folders on the way to the files
    that are not root's, with their owners. `problems` are sentences for a person. `slurmds` are those that run here (of
    several, perhaps not all), `remark` is a sentence for the log if they do not use the file that was expected."""

    path: str
    cluster_name: str
    spool_dir: str
    pid_file: str
    slurmd_port: int
    slurm_uid: int
    slurm_user: str
    slurmd_user: str
    step_owners: tuple[int, ...]
    spool_owners: tuple[int, ...]
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
    folders: tuple[tuple[str, int], ...]
    problems: tuple[str, ...]
    statements: tuple[Statement, ...]
    slurmds: tuple[Slurmd, ...] = ()
    remark: str = ""

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
        self.folders: dict[str, os.stat_result] = {}
        self.sticky: dict[str, int] = {}
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
            self.walk(path)
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

    def walk(self, path: str) -> None:
        """Remember every folder that decides what this path leads to, links followed; `OSError`."""
        todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        here, links = "/", 0
        while todo:
            part = todo.pop()
            if part == "..":
                here = os.path.dirname(here)
                continue
            if here not in self.folders:
                info = self.folders[here] = os.stat(here)
                shared = other_writers(here, info, None) if check_folder(here, info) and not is_store(info) else ""
                if shared:
                    self.shared.append(f"{here}: {shared}")
            there = os.path.join(here, part)
            if is_sticky(self.folders[here]):  # the owner of what lies there may replace it
                self.sticky[there] = os.lstat(there).st_uid
            try:
                target = "" if is_root_link(there) else os.readlink(there)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                target = ""
            if not target:
                here = there
                continue
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if target.startswith("/"):
                here = "/"
            todo.extend(word for word in reversed(target.split("/")) if word not in ("", "."))

    def ways(self) -> list[tuple[str, int]]:
        """What led to the files and is not root's, with its owner."""
        folders = [(path, info.st_uid) for path, info in self.folders.items()]
        return [(path, owner) for path, owner in (*folders, *self.sticky.items()) if owner != 0]


def check_folder(path: str, info: os.stat_result) -> bool:
    """`ConfFault` if everybody may put another file in the place of one in this folder; False if everybody may only add
    files to it (/tmp)."""
    others = other_writers(path, info, None, any_group=True)
    if others and not is_sticky(info):
        raise ConfFault("slurm-conf-untrusted", f"{path}: {others}")
    return not others


def find_slurm_conf(paths: tuple[str, ...] = SEARCH_PATHS) -> str:
    """The first of the paths that exists; `ConfFault` if none does."""
    for path in paths:
        if _exists(path):
            return path
    for path in paths:
        _check_way(path)
    raise ConfFault("slurm-conf-missing", f"none of {', '.join(paths)}")


def _check_way(path: str) -> None:
    """`ConfFault` if a file that is missing may have been taken away by anybody."""
    for folder in _above(path):
        try:
            check_folder(folder, os.stat(folder))
        except OSError:
            continue


def _above(path: str) -> list[str]:
    parts = path.split("/")[1:-1]
    return ["/" + "/".join(parts[:count]) for count in range(len(parts) + 1)]


def _exists(path: str) -> bool:
    try:
        os.stat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise ConfFault("slurm-conf-unreadable", f"{path}: {error.strerror}") from None
    return True


def read_slurm_conf(paths: tuple[str, ...] = SEARCH_PATHS, look_up: bool = False) -> SlurmConf:
    """Find, read and judge the configuration in the first of these places; `ConfFault`.

    `look_up`: SlurmUser's uid is looked up even if nothing here is his (for those who keep the result).
    """
    path = find_slurm_conf(paths)
    reader = _Reader(path)
    reader.read(path, 0)
    values = last_values(tuple(reader.statements))
    slurm_user = values.get("slurmuser", "root")
    strangers = [(file.path, file.owner) for file in reader.files if file.owner != 0]
    _check_owners([*strangers, *reader.ways()], slurm_user)
    reader.problems.extend(reader.shared)
    return _conf(path, values, reader, look_up)


def _check_owners(strangers: list[tuple[str, int]], slurm_user: str) -> None:
    if strangers:
        allowed = uid_of_user(slurm_user)
        for path, owner in strangers:
            if owner != allowed:
                raise ConfFault("slurm-conf-untrusted", f"{path}: owned by uid {owner}, not root or {slurm_user}")


def _asked(uid: int | None) -> int:
    return UNKNOWN if uid is None else uid


def _spool_owners(owners: tuple[int, ...], slurm_user: str, slurm_uid: int, spool_dir: str) -> tuple[int, ...]:
    """Who may own SlurmdSpoolDir: SlurmUser as well, who may run anything as anybody. It is looked up where it matters:
    most nodes' folder is root's, and the directory service that knows the user may hang."""
    if slurm_user == "root":
        return owners
    if slurm_uid == NOT_ASKED and "%" not in spool_dir:
        try:
            if os.stat(spool_dir).st_uid in owners:
                return owners
        except OSError:
            return owners
    uid = _asked(uid_of_user(slurm_user)) if slurm_uid == NOT_ASKED else slurm_uid
    return owners if uid == UNKNOWN or uid in owners else (*owners, uid)


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


def _plugin(kind: str, name: str) -> str:
    """A plugin's full name in lower case. Slurm takes some without their kind (22.05 to 26.05, auth since 23.11)."""
    name = name.lower()
    return name if "/" in name or not name else f"{kind}/{name}"


def _container(values: dict[str, str]) -> str:
    kind = "namespace" if "namespacetype" in values else "job_container"
    return _plugin(kind, values.get("namespacetype", values.get("jobcontainertype", "")))


def _conf(path: str, values: dict[str, str], reader: _Reader, look_up: bool) -> SlurmConf:
    problems = reader.problems
    port = _number(values, "slurmdport", DEFAULT_PORT, problems)
    if not 0 < port < 65536:
        raise ConfFault("slurm-conf-malformed", f"{path}: SlurmdPort {port}")
    spool_dir = values.get("slurmdspooldir", DEFAULT_SPOOL_DIR)
    if not spool_dir.startswith("/"):
        raise ConfFault("slurm-conf-malformed", f"{path}: SlurmdSpoolDir {spool_dir!r} is not absolute")
    slurm_user = values.get("slurmuser", "root")
    slurm_uid = _asked(uid_of_user(slurm_user)) if look_up else NOT_ASKED
    step_owners = _step_owners(values.get("slurmduser", "root"), problems)
    return SlurmConf(
        path=path,
        cluster_name=values.get("clustername", "").lower(),
        slurm_uid=slurm_uid,
        spool_dir=spool_dir,
        pid_file=values.get("slurmdpidfile", DEFAULT_PID_FILE),
        slurmd_port=port,
        slurm_user=slurm_user,
        slurmd_user=values.get("slurmduser", "root"),
        step_owners=step_owners,
        spool_owners=_spool_owners(step_owners, slurm_user, slurm_uid, spool_dir),
        auth_type=_plugin("auth", values.get("authtype", "munge")),
        auth_info=values.get("authinfo", ""),
        hash_plugin=values.get("hashplugin", "hash/k12").lower(),
        prolog_flags=_list(values.get("prologflags", "")),
        prolog=values.get("prolog", ""),
        proctrack_type=values.get("proctracktype", "proctrack/cgroup").lower(),
        task_plugin=tuple([_plugin("task", name) for name in _list(values.get("taskplugin", ""))]),
        launch_parameters=_list(values.get("launchparameters", "")),
        communication_parameters=_list(values.get("communicationparameters", "")),
        tls_type=_plugin("tls", values.get("tlstype", "none")),
        tls_parameters=values.get("tlsparameters", ""),
        container_type=_container(values),
        message_timeout_s=_number(values, "messagetimeout", 10, problems),
        tcp_timeout_s=_number(values, "tcptimeout", 2, problems),
        files=tuple(reader.files),
        folders=tuple(reader.ways()),
        problems=tuple(problems),
        statements=tuple(reader.statements),
    )


def check_not_own(conf: SlurmConf, uid: int) -> None:
    """Refuse to judge users by a file that they may write themselves (SlurmUser, rule 2); root may write everything."""
    if uid == 0:
        return
    for path, owner in (*[(file.path, file.owner) for file in conf.files], *conf.folders):
        if owner == uid:
            raise ConfFault("slurm-conf-untrusted", f"{path}: belongs to uid {uid}, who logs in", is_own=True)


def is_current(conf: SlurmConf, paths: tuple[str, ...] = SEARCH_PATHS) -> bool:
    """Whether reading it again would give the same: a few stat() calls for the resident service's cache."""
    try:
        # a file that slurmd has named comes before all places
        for earlier in paths[: paths.index(conf.path)] if conf.path in paths else ():
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
