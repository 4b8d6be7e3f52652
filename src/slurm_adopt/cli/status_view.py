# SPDX-License-Identifier: Apache-2.0
"""Finds the ssh logins on this node and the job of each: the content of `slurm-adopt status`.

Rules of this file:
1. Looks and never touches. What a user controls (command names, folders in cgroups) is shown, but does not decide.
2. A process is in a job if the kernel shows it below the same folders as the extern step's slurmstepd, which was asked
   just now. Nobody's word is remembered.
3. What cannot be read (without root) is left out and said so (`complete`).
"""

from __future__ import annotations

import os
import pwd
import time

from ..login.steps import list_steps, open_directories
from ..model import ENDING, RUNNING, STEP_GONE, STEP_SILENT, SUSPENDED
from ..record import record
from ..system.host.pam_outlook import session_outlook
from ..system.host.pam_stack import list_services
from ..system.kernel.freezer import is_frozen
from ..system.kernel.hasten import find_obstacle, look
from ..system.kernel.login_tree import SSHD_NAMES
from ..system.kernel.procfs import (
    OwnedProcess,
    list_numbers,
    read_cgroups,
    read_command_name,
    read_connections,
    read_owned_process,
    read_program,
    read_socket_inodes,
    read_title,
)
from ..system.slurm.node_conf import read_node_conf
from ..system.slurm.stepd import StepFault, connect_step
from ..system.tasks.task import MS, all_of
from ..wire.cgroup_path import decode_cgroups, same_job, same_step
from ..wire.errors import RemoteProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal

    from ..system.kernel.hasten import Obstacle, SwitchState
    from ..system.slurm.stepd import StepConnection
    from ..system.tasks.task import Task

#: People, not system accounts: UID_MIN of /etc/login.defs; distributions keep 60000 to 65535 for themselves (Debian's
#: slurm is 64030, nobody 65534), and directories count on from there.
UID_MIN, RESERVED = 1000, range(60001, 65536)
WAIT_NS = 2000 * MS
IN_JOB, OUTSIDE, ROOT = "in-job", "outside", "root"


@record
class Job:
    """An extern step: `state` as in `StepFact`; `cgroups` is where its slurmstepd is, as read."""

    job_id: int
    uid: int
    state: str
    cgroups: bytes


@record
class LoginView:
    """One ssh login: `pid` is the process of the user's session, `monitor` the privileged sshd above it.

    `membership` is `in-job` if the kernel shows both in the extern step of `job_id`, `outside` or `root`. `source` is
    the address it comes from, empty if it cannot be read. `age_s` in seconds.
    """

    uid: int
    pid: int
    monitor: int
    source: str
    job_id: int
    membership: str
    age_s: int


@record
class Stray:
    """A process of a user outside of all of the user's jobs. `kind`: `login`, `user-manager`, `scope` or `process`."""

    uid: int
    pid: int
    kind: str
    command: str
    cgroup: str
    has_job: bool
    age_s: int


@record
class Stranger:
    """A process in a step of somebody else's job: `job_id` of that one's owner, and neither that owner's nor root's."""

    uid: int
    pid: int
    command: str
    job_id: int


@record
class NodeView:
    """`unanswered` are steps that did not answer; `complete` is False if something could not be read.

    `unguarded` are PAM services whose sessions pam_systemd moves out of the job, with no binding line of ours after it.
    `expedited` is what the kernel's setting for grace periods says, `obstacle` why `hasten=auto` leaves it alone
    (who is not root cannot tell).
    """

    jobs: tuple[Job, ...]
    logins: tuple[LoginView, ...]
    strays: tuple[Stray, ...]
    unanswered: tuple[str, ...]
    complete: bool
    strangers: tuple[Stranger, ...] = ()
    unguarded: tuple[str, ...] = ()
    expedited: SwitchState = "unknown"
    obstacle: Obstacle | Literal["unknown"] = ""


def view_node(nodename: str = "", place: str = "") -> Task[NodeView]:
    """The node as it is now; `ConfFault` or `SpoolFault` if Slurm's files cannot be used."""
    jobs, unanswered = yield from _ask_jobs(nodename, place)
    processes = _read_processes()
    names = {process.pid: read_command_name(process) for process in processes.values()}
    logins = tuple(_logins(processes, names, jobs))
    strays = tuple(_strays(processes, names, jobs, logins))
    unread = any(job.cgroups == b"" for job in jobs) or any(login.source == "" for login in logins)
    strangers = tuple(_strangers(processes, names, jobs))
    unguarded = tuple(name for name in list_services() if session_outlook(name) != "stays")
    complete = not unanswered and not unread
    haste = look(), find_obstacle("auto") if os.geteuid() == 0 else "unknown"
    return NodeView(jobs, logins, strays, unanswered, complete, strangers, unguarded, *haste)


def _ask_jobs(nodename: str, place: str) -> Task[tuple[tuple[Job, ...], tuple[str, ...]]]:
    conf = read_node_conf(place, thorough=True)
    directories = open_directories(conf, nodename)
    try:
        paths = list_steps(directories)
        until_ns = time.monotonic_ns() + WAIT_NS
        outcomes = yield from all_of([connect_step(path.path, conf.step_owners, until_ns) for path in paths], until_ns)
    finally:
        for directory in directories:
            os.close(directory.fd)
    jobs, unanswered = [], []
    for path, outcome in zip(paths, outcomes):
        if isinstance(outcome, Exception):
            reason = outcome.reason if isinstance(outcome, StepFault) else STEP_SILENT
            if reason != STEP_GONE:  # the socket of a slurmstepd that is no more, which slurmd has yet to remove
                unanswered.append(f"{path.job_id}:{reason}")
            continue
        jobs.append(_job(path.job_id, outcome))
    return tuple(sorted(jobs, key=lambda job: job.job_id)), tuple(unanswered)


def _job(job_id: int, connection: StepConnection) -> Job:
    identity = connection.identity
    assert identity is not None
    connection.close()
    state = SUSPENDED if identity.state == RUNNING and is_frozen(identity) else identity.state
    return Job(job_id, identity.uid, state, read_cgroups(identity) or b"")


def _read_processes() -> dict[int, OwnedProcess]:
    found = {}
    for number in list_numbers():
        process = read_owned_process(number)
        if process is not None:
            found[process.pid] = process
    return found


def _logins(processes: dict[int, OwnedProcess], names: dict[int, str], jobs: tuple[Job, ...]) -> list[LoginView]:
    """A login is an sshd that root's sshd has started for a user; for root there is none of its own, only the title."""
    found = []
    for pid, process in processes.items():
        parent = processes.get(process.parent)
        if names[pid] not in SSHD_NAMES or parent is None or names[parent.pid] not in SSHD_NAMES or parent.uid != 0:
            continue
        # names and set-uid programs are the user's to choose, and so is to lock a title for those who read it
        if not _may_be_sshd(process) or not _may_be_sshd(parent):
            continue
        root = process.uid == 0
        if not _is_authenticated(read_title(process), root):
            continue
        monitor = process if root else parent
        job_id = _job_of_login(jobs, process, monitor)
        membership = IN_JOB if job_id else ROOT if root else OUTSIDE
        source = _source_of(monitor)
        found.append(LoginView(process.uid, pid, monitor.pid, source, job_id, membership, _age_s(process)))
    return sorted(found, key=lambda login: -login.age_s)


def _is_authenticated(title: bytes, root: bool) -> bool:
    """`sshd: alice@pts/0` is; so is `sshd: alice`, a login that has asked for no session (`ssh -N`).

    Before that the process is `sshd: alice [net]`. Root's has no other user than the one that watches over it.
    """
    words = title.partition(b": ")[2].strip()
    return b"@" in words or (not root and words != b"" and not words.endswith(b"]"))


def _may_be_sshd(process: OwnedProcess) -> bool:
    """Whether the process runs sshd's program, as far as that can be seen: without root it cannot."""
    program = read_program(process)
    return not program or os.path.basename(program) in SSHD_NAMES


def _job_of_login(jobs: tuple[Job, ...], session: OwnedProcess, monitor: OwnedProcess) -> int:
    texts = [read_cgroups(process) or b"" for process in (session, monitor)]
    for job in jobs:
        if job.uid == session.uid and all(_in_extern_step(job, text) for text in texts):
            return job.job_id
    return 0


def _in_extern_step(job: Job, text: bytes) -> bool:
    return same_step(job.cgroups, text).inside


def _strays(
    processes: dict[int, OwnedProcess], names: dict[int, str], jobs: tuple[Job, ...], logins: tuple[LoginView, ...]
) -> list[Stray]:
    found = []
    sessions = {login.pid for login in logins}
    for pid, process in sorted(processes.items()):
        own = [job for job in jobs if job.uid == process.uid]
        if not own and (process.uid < UID_MIN or process.uid in RESERVED):
            continue
        if process.uid == 0:  # root may have a job too; what else runs as root is none of it
            continue
        text = read_cgroups(process)
        if text is None or any(same_job(job.cgroups, text) for job in own):
            continue
        cgroup = _telling_path(text)
        kind = "login" if pid in sessions else _kind_of(cgroup)
        alive = any(job.state != ENDING for job in own)
        found.append(Stray(process.uid, pid, kind, names[pid], cgroup, alive, _age_s(process)))
    return found


def _strangers(processes: dict[int, OwnedProcess], names: dict[int, str], jobs: tuple[Job, ...]) -> Iterator[Stranger]:
    """Processes of people in the jobs of others. Subordinate uids (containers) have no account, and belong there."""
    for pid, process in sorted(processes.items()):
        if process.uid == 0 or not any(process.uid != job.uid for job in jobs) or not _is_account(process.uid):
            continue
        text = read_cgroups(process)
        for job in jobs if text is not None else ():
            if job.uid != process.uid and same_job(job.cgroups, text or b""):
                yield Stranger(process.uid, pid, names[pid], job.job_id)


def _is_account(uid: int) -> bool:
    try:
        return bool(pwd.getpwuid(uid))
    except KeyError:
        return False


def _telling_path(text: bytes) -> str:
    """The path that says most: systemd's (v2, or name=systemd), else the first that is not the root."""
    try:
        lines = decode_cgroups(text)
    except RemoteProtocolError:
        return ""
    ordered = sorted(lines, key=lambda line: line.controllers not in ((), ("name=systemd",)))
    return next((line.path for line in ordered if line.path != "/"), "/")


def _kind_of(cgroup: str) -> str:
    parts = cgroup.split("/")
    if any(part.startswith("user@") and part.endswith(".service") for part in parts):
        return "user-manager"
    return "scope" if parts[-1].endswith(".scope") else "process"


def _age_s(process: OwnedProcess) -> int:
    now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    return max(0, int(now_s - process.started / os.sysconf("SC_CLK_TCK")))


def _source_of(process: OwnedProcess) -> str:
    """The far end of the process's TCP connection, from /proc/PID/net; empty if that cannot be read."""
    inodes = {link[8:-1] for link in read_socket_inodes(process)}
    for table in ("tcp", "tcp6"):
        rows = [line.split() for line in read_connections(process, table).splitlines()]
        for row in rows[1:]:
            if row[9] in inodes and row[3] == "01":
                return _address(row[2].partition(":")[0])
    return ""


def _address(text: str) -> str:
    """An address of /proc/net/tcp: 32-bit words in the host's byte order."""
    import ipaddress
    import sys

    words = [bytes.fromhex(text[start : start + 8]) for start in range(0, len(text), 8)]
    raw = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    address = ipaddress.ip_address(raw)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
