# SPDX-License-Identifier: Apache-2.0
"""The user's systemd manager, user@UID.service, which pam_systemd has started: ended, or held to what the jobs have.

What it starts (`systemctl --user`, `systemd-run --user --scope`, tmux) is outside of any job, and so is each process
that the user has systemd put below it (AttachProcessesToUnit). Without the unit there is no such place.

Rules of this file:
1. systemd acts, through systemctl: root may ask it without any capability, and it undoes what belongs to it itself. The
   child that asks ends with its time, and what it says is for the log only.
2. The kernel has the last word: the unit's cgroup is empty or gone; the slice's limits are at most those of the jobs.
3. The limits are those of the jobs' own folders, found from a proven slurmstepd's, as the kernel shows them.
"""

from __future__ import annotations

import os
import time

from ...model import Fault
from ...record import record
from ...wire.cgroup_path import job_folder
from ..kernel.procfs import has_ended, read_cgroups, read_file
from ..tasks.child import ChildFault, run_program
from ..tasks.files import make_folder, remove, replace_file
from ..tasks.program import UntrustedProgram, resolve_program
from ..tasks.task import MS, DeadlineExceeded, halfway, sleep_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..kernel.procfs import AnyProcess
    from ..tasks.task import Task

SYSTEMCTL = ("/usr/bin/systemctl", "/bin/systemctl")
LOGINCTL = ("/usr/bin/loginctl", "/bin/loginctl")
#: A file for each user whose manager is refused; the drop-in for user@.service looks at it.
REFUSED = "/run/slurm-adopt/refused"
DROP_INS = tuple(
    f"{folder}/systemd/system/user@.service.d/slurm-adopt.conf"
    for folder in ("/usr/lib", "/lib", "/usr/local/lib", "/etc")
)
LINGER = "/var/lib/systemd/linger"
#: systemctl believes itself in a chroot where it may not look at process 1, and then does nothing.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "SYSTEMD_IGNORE_CHROOT": "1", "SYSTEMD_COLORS": "0"}
#: cgroup v2; systemd's own hierarchy on v1 hosts.
CGROUPS = "/sys/fs/cgroup"
MOUNTS = (CGROUPS, f"{CGROUPS}/systemd", f"{CGROUPS}/unified")
#: Of systemd.resource-control(5), in the order of `Bounds`, and where systemd keeps what it has been told.
PROPERTIES = ("AllowedCPUs", "MemoryMax", "MemorySwapMax")
SET_PROPERTIES = "/run/systemd/system.control"
DIGITS = tuple(b"%d" % digit for digit in range(10))
PAUSE_NS = 10 * MS
SAID_CAP = 160
NO_LIMIT = "max"


class ManagerFault(Fault):
    """The manager could not be ended, or not be confined."""

    def __init__(self, detail: str) -> None:
        super().__init__("user-manager-failed", detail)


@record
class Bounds:
    """Limits of a cgroup: `cpus` None and `max` mean that there is none; else bytes, as the kernel writes them."""

    cpus: frozenset[int] | None
    memory: str
    swap: str


UNBOUND = Bounds(None, NO_LIMIT, NO_LIMIT)


def refuse_manager(uid: int, deadline_ns: int) -> Task[str]:
    """End the user's manager, with all it has started, and keep it from starting again; `ManagerFault` if it is still
    there. The result is a remark for the log, empty if all is well.

    A mark below /run keeps it from starting: the drop-in for user@.service has a condition on it, which holds for
    lingering, su, cron and whatever else asks systemd. The epilog hook takes it away. Lingering is undone as well. A
    unit of the user's may take its time to stop; then all of them are killed.
    """
    _mark_refused(uid)
    remark = "" if any(map(os.path.exists, DROP_INS)) else f"{DROP_INS[0]} is missing: the manager may be started again"
    if _somebody_lingers():
        yield from _systemctl(("disable-linger", str(uid)), deadline_ns, LOGINCTL)
    if not _manager_runs(uid):
        return remark
    unit = f"user@{uid}.service"
    try:
        said = yield from _systemctl(("stop", unit), halfway(deadline_ns))
    except DeadlineExceeded:
        said = yield from _systemctl(("kill", "--signal=KILL", unit), deadline_ns)
        said += yield from _systemctl(("stop", unit), deadline_ns)
        said += yield from _systemctl(("reset-failed", unit), deadline_ns)
    if _manager_runs(uid):
        raise ManagerFault(f"{unit} still runs: {said}")
    return remark


def _mark_refused(uid: int) -> None:
    try:
        make_folder(REFUSED, 0o755)
        replace_file(f"{REFUSED}/{uid}", b"", 0o644)
    except OSError as error:
        raise ManagerFault(f"{REFUSED}/{uid}: {error.strerror}") from None


def _somebody_lingers() -> bool:
    try:
        return bool(os.listdir(LINGER))
    except OSError:
        return False


def confine_manager(uid: int, stepds: Iterable[AnyProcess], deadline_ns: int) -> Task[None]:
    """Confine all of the user's units to what the user's jobs have together; `ManagerFault` if the kernel shows more.

    `stepds` are the proven slurmstepds of the jobs' extern steps.
    """
    if not os.path.isdir(_slice_folder(uid)) and not any(os.path.isdir(folder) for folder in _manager_folders(uid)):
        return
    remove(f"{REFUSED}/{uid}")  # of a time when the site refused it
    wanted = sum_of([_bounds_of_job(stepd) for stepd in stepds])
    # a job that has all of the node is told to systemd, too: the epilog goes by that when a job ends
    if is_confined(uid) and read_bounds(_slice_folder(uid)) == wanted:
        return
    yield from _set_bounds(uid, wanted, deadline_ns)


def lift_bounds(uid: int, deadline_ns: int) -> Task[None]:
    """Take the limits away again, so that they hold nobody after the user's last job."""
    yield from _set_bounds(uid, UNBOUND, deadline_ns)


def is_confined(uid: int) -> bool:
    """Whether systemd has been told limits for the user until the next boot (`set-property --runtime`)."""
    texts = [read_file(f"{SET_PROPERTIES}/user-{uid}.slice.d/50-{name}.conf") or b"" for name in PROPERTIES]
    return any(b"=" + digit in text for text in texts for digit in DIGITS)


def sum_of(jobs: list[Bounds]) -> Bounds:
    """Add up what several jobs of one user have."""
    if not jobs:
        raise ManagerFault("there is no job to take limits from")
    cpus: frozenset[int] | None = frozenset()
    for job in jobs:
        cpus = None if cpus is None or job.cpus is None else cpus | job.cpus
    return Bounds(cpus, _sum([job.memory for job in jobs]), _sum([job.swap for job in jobs]))


def is_within(one: Bounds, other: Bounds) -> bool:
    """Whether a cgroup with the limits `one` has at most what `other` allows."""
    cpus_ok = other.cpus is None or (one.cpus is not None and one.cpus <= other.cpus)
    return cpus_ok and _at_most(one.memory, other.memory) and _at_most(one.swap, other.swap)


def read_bounds(folder: str) -> Bounds:
    """A cgroup's limits; a controller that is not there limits nothing."""
    cpus = read_file(f"{folder}/cpuset.cpus.effective")
    return Bounds(
        decode_cpus(cpus) if cpus else None, _limit(f"{folder}/memory.max"), _limit(f"{folder}/memory.swap.max")
    )


def decode_cpus(text: bytes) -> frozenset[int]:
    """The kernel's list format, `0-3,8`."""
    found: set[int] = set()
    for part in text.decode("ascii").strip().split(","):
        first, _, last = part.partition("-")
        if part:
            found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _bounds_of_job(stepd: AnyProcess) -> Bounds:
    folder = job_folder(read_cgroups(stepd) or b"")
    if not folder:
        raise ManagerFault("the job has no cgroup of version 2 to take limits from")
    bounds = read_bounds(CGROUPS + folder)
    if has_ended(stepd):
        raise ManagerFault("the job ended while its limits were read")
    return bounds


def _set_bounds(uid: int, wanted: Bounds, deadline_ns: int) -> Task[None]:
    said = yield from _systemctl(
        (
            "set-property",
            "--runtime",
            f"user-{uid}.slice",
            *[f"{name}={value}" for name, value in zip(PROPERTIES, _values(wanted))],
        ),
        deadline_ns,
    )
    # systemd answers first and writes afterwards
    folder = _slice_folder(uid)
    while os.path.isdir(folder) and not is_within(read_bounds(folder), wanted):
        if time.monotonic_ns() + PAUSE_NS > deadline_ns:
            raise ManagerFault(f"user-{uid}.slice has more than the jobs: {said}")
        yield from sleep_until(time.monotonic_ns() + PAUSE_NS)


def _values(bounds: Bounds) -> tuple[str, str, str]:
    cpus = ",".join([str(cpu) for cpu in sorted(bounds.cpus or ())])
    return cpus, bounds.memory.replace(NO_LIMIT, "infinity"), bounds.swap.replace(NO_LIMIT, "infinity")


def _systemctl(words: tuple[str, ...], deadline_ns: int, paths: tuple[str, ...] = SYSTEMCTL) -> Task[str]:
    try:
        argv = (resolve_program(paths), "--no-ask-password", *words)
    except (UntrustedProgram, OSError) as error:
        raise ManagerFault(f"{paths[0]} cannot be used: {error}") from None
    try:
        said = yield from run_program(argv, ENVIRONMENT, deadline_ns)
    except (ChildFault, OSError) as fault:
        raise ManagerFault(f"systemctl: {fault}") from None
    return " ".join(said.decode("ascii", "replace").split())[:SAID_CAP]


def _slice_folder(uid: int) -> str:
    return f"{CGROUPS}/user.slice/user-{uid}.slice"


def _manager_folders(uid: int) -> list[str]:
    return [f"{mount}/user.slice/user-{uid}.slice/user@{uid}.service" for mount in MOUNTS]


def _manager_runs(uid: int) -> bool:
    """Whether the unit has a cgroup that is not known to be empty (v1 does not say)."""
    for folder in _manager_folders(uid):
        events = read_file(f"{folder}/cgroup.events")
        if events is None and os.path.isdir(folder):
            return True
        if events and b"populated 0" not in events:
            return True
    return False


def _limit(path: str) -> str:
    text = (read_file(path) or b"").decode("ascii", "replace").strip()
    return text if text.isdigit() else NO_LIMIT


def _sum(limits: list[str]) -> str:
    return NO_LIMIT if NO_LIMIT in limits else str(sum([int(limit) for limit in limits]))


def _at_most(one: str, other: str) -> bool:
    return other == NO_LIMIT or (one != NO_LIMIT and int(one) <= int(other))
