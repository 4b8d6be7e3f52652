# SPDX-License-Identifier: Apache-2.0
"""/proc/PID/cgroup, and what Slurm's paths in it say.

Rules of this file:
1. A line is `HIERARCHY:CONTROLLERS:PATH` (cgroups(7)). The path may hold colons and any byte but newline and NUL;
   the kernel adds ` (deleted)` to the path of a removed cgroup, which then proves nothing.
2. cgroup v1: `…/slurm[_NODE]/uid_U/job_J[/step_X[/…]]`; v2: `…/[NODE_]slurmstepd.scope/JOB/step_X/…` with JOB
   `job_J`, or the job's SLUID (26.05). Slurm 20.11 to 26.05.
3. The outermost match counts. Users may own folders below a step (v1) or a delegated subtree elsewhere, where they can
   make folders of any name: a path proves a job only relative to slurmstepd's own path (`same_step`), or where its
   `prefix` is known.
"""

from __future__ import annotations

from ..record import record
from .errors import RemoteProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# the kernel has 16 v1 controllers, and systemd and sites add named hierarchies
MAX_LINES = 64
# a cgroup path has at most PATH_MAX bytes
MAX_LINE_LENGTH = 4096 + 256
DELETED = " (deleted)"
V2_SCOPE = "slurmstepd.scope"
#: in the path of every job
V1_SIGN, V2_SIGN = b"/uid_", V2_SCOPE.encode("ascii")
_U32 = 1 << 32


@record
class CgroupLine:
    """One line. `hierarchy` is 0 for cgroup v2; `path` is decoded as file names are (surrogateescape)."""

    hierarchy: int
    controllers: tuple[str, ...]
    path: str
    deleted: bool


@record
class StepPath:
    """The job and step that a cgroup path names.

    `step` is `extern`, `batch`, `interactive`, `0`, `3+1`, or None for the job itself. `prefix` is the path before
    Slurm's folder (`/` closes it), `top` the path up to the step's (or job's) folder, and `rest` what follows.
    """

    version: int
    job_id: int | None
    sluid: int | None
    uid: int | None
    step: str | None
    prefix: str
    top: str
    rest: str


@record
class Membership:
    """Whether a process is in the step of a slurmstepd, why, and the path that says so.

    `step_known` is False only if slurmstepd itself is in no cgroup of any job: the site tracks processes by other means
    (proctrack/linuxproc), and there is no cgroup to look at.
    """

    inside: bool
    reason: str
    path: str = ""
    step_known: bool = True


def decode_cgroups(text: bytes) -> tuple[CgroupLine, ...]:
    """All lines of a /proc/PID/cgroup; an empty text (a process that is gone) has none."""
    lines = text.split(b"\n")
    if lines.pop():
        raise RemoteProtocolError("the last line has no end")
    if len(lines) > MAX_LINES:
        raise RemoteProtocolError(f"{len(lines)} lines, at most {MAX_LINES}")
    return tuple([_decode_line(line) for line in lines])


def _decode_line(line: bytes) -> CgroupLine:
    if len(line) > MAX_LINE_LENGTH or b"\0" in line:
        raise RemoteProtocolError(f"not a line of a cgroup file: {line[:40]!r}")
    text = line.decode("utf-8", "surrogateescape")
    number, first, rest = text.partition(":")
    controllers, second, path = rest.partition(":")
    if not (first and second and path.startswith("/") and number.isascii() and number.isdigit() and len(number) < 10):
        raise RemoteProtocolError(f"not a line of a cgroup file: {line[:80]!r}")
    return CgroupLine(int(number), tuple(filter(None, controllers.split(","))), path, path.endswith(DELETED))


def lines_of_jobs(text: bytes) -> bytes:
    """Only the lines of a /proc/PID/cgroup that may name a job: cgroup v1 has a dozen, and decoding takes time."""
    return b"".join([line + b"\n" for line in text.split(b"\n") if V1_SIGN in line or V2_SIGN in line])


def _number(text: str, before: str) -> int | None:
    """The number of `job_17` after `job_`, None if it is not written as Slurm writes it."""
    digits = text[len(before) :]
    if not text.startswith(before) or not (digits.isascii() and digits.isdigit()) or len(digits) > 10:
        return None
    number = int(digits)
    return number if number < _U32 and str(number) == digits else None


def _step(name: str) -> str | None:
    step = name[5:]
    if not name.startswith("step_"):
        return None
    if step in ("extern", "batch", "interactive"):
        return step
    number, plus, component = step.partition("+")
    if _number(number, "") is None or (plus and _number(component, "") is None):
        return None
    return step


def _found(version: int, parts: list[str], first: int, ids: tuple[int | None, int | None, int | None]) -> StepPath:
    """`parts[first]` is the job's folder."""
    step = _step(parts[first + 1]) if first + 1 < len(parts) else None
    end = first + 1 if step is None else first + 2
    scope = first - 2 if version == 1 else first - 1
    return StepPath(
        version, *ids, step, "/".join(parts[:scope]) + "/", "/".join(parts[:end]), "/".join(["", *parts[end:]])
    )


def decode_v1(path: str) -> StepPath | None:
    """Return the job and step that a cgroup v1 path names; None if it names no job."""
    if "/uid_" not in path:
        return None
    parts = path.split("/")
    for index in range(1, len(parts) - 2):
        if parts[index] != "slurm" and not parts[index].startswith("slurm_"):
            continue
        uid = _number(parts[index + 1], "uid_")
        job_id = _number(parts[index + 2], "job_")
        if uid is not None and job_id is not None:
            return _found(1, parts, index + 2, (job_id, None, uid))
    return None


def decode_v2(path: str) -> StepPath | None:
    """Return the job and step that a cgroup v2 path names; None if it names no job."""
    if V2_SCOPE not in path:
        return None
    parts = path.split("/")
    for index in range(1, len(parts) - 1):
        if parts[index] != V2_SCOPE and not parts[index].endswith("_" + V2_SCOPE):
            continue
        job = parts[index + 1]
        job_id = _number(job, "job_")
        if job_id is not None:
            return _found(2, parts, index + 1, (job_id, None, None))
        from .sluid import decode_sluid  # here, because only 26.05 on cgroup v2 has them, and every login would pay

        try:
            return _found(2, parts, index + 1, (None, decode_sluid(job), None))
        except RemoteProtocolError:
            return None
    return None


def decode_step_path(line: CgroupLine) -> StepPath | None:
    """The job a line is about; None if none, or if the cgroup has been removed."""
    if line.deleted:
        return None
    return decode_v2(line.path) if line.hierarchy == 0 else decode_v1(line.path)


def extern_step(lines: tuple[CgroupLine, ...]) -> StepPath | None:
    """The extern step a process seems to be in. A statement by path alone (rule 3): to report, not to grant."""
    for line in lines:
        found = decode_step_path(line)
        if found is not None and found.step == "extern" and (found.version == 1 or _below(found.rest, "/user")):
            return found
    return None


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def same_step(stepd: bytes, target: bytes) -> Membership:
    """Is `target` in the extern step that the slurmstepd with the cgroups `stepd` keeps? Both are /proc/PID/cgroup.

    Both must have been read by one reader (paths are relative to the reader's cgroup namespace), and the
    slurmstepd's identity must be proven. v2: below `step_extern/user` beside slurmstepd's own `step_extern/slurm`.
    v1: in `step_extern` in every hierarchy in which slurmstepd is in the job.
    """
    try:
        return _same_step(decode_cgroups(stepd), decode_cgroups(target))
    except RemoteProtocolError as error:
        return Membership(False, str(error))


def _same_step(stepd: tuple[CgroupLine, ...], target: tuple[CgroupLine, ...]) -> Membership:
    targets = {(line.hierarchy, line.controllers): line for line in target}
    jobs: set[tuple[int | None, int | None, int | None]] = set()
    shown = ""
    for line in stepd:
        where = decode_v2(line.path) if line.hierarchy == 0 else decode_v1(line.path)
        if where is None:
            continue
        wanted = _wanted_folder(where)
        if line.deleted or not wanted:
            return Membership(False, "slurmstepd is not where the extern step's slurmstepd is", line.path)
        jobs.add((where.job_id, where.sluid, where.uid))
        name = ",".join(line.controllers) or "cgroup2"
        here = targets.get((line.hierarchy, line.controllers))
        if here is None:
            return Membership(False, f"the process has no {name} cgroup")
        if here.deleted or not _below(here.path, wanted):
            return Membership(False, f"the process is not below {wanted} in {name}", here.path)
        shown = shown or here.path
    if not jobs:
        return Membership(False, "slurmstepd is in no cgroup of a job", step_known=False)
    if len(jobs) > 1:
        return Membership(False, "slurmstepd's cgroups name more than one job", shown)
    return Membership(True, "in the extern step", shown)


def same_job(stepd: bytes, target: bytes) -> bool:
    """Is `target` in any step of the job whose extern step's slurmstepd has the cgroups `stepd`?

    For a process that a connection comes from, as same_step() is for the login's own: relative to a proven slurmstepd,
    in every hierarchy in which that one is in the job, and so for SLUID folders too.
    """
    try:
        lines, targets = decode_cgroups(stepd), decode_cgroups(target)
    except RemoteProtocolError:
        return False
    here = {(line.hierarchy, line.controllers): line for line in targets if not line.deleted}
    known = False
    for line in lines:
        where = decode_step_path(line)
        if where is None:
            continue
        job = where.top if where.step is None else where.top.rpartition("/")[0]
        there = here.get((line.hierarchy, line.controllers))
        if there is None or not _below(there.path, job):
            return False
        known = True
    return known


def job_by_name(target: bytes, jobs: Sequence[int]) -> int:
    """Which of these jobs a process with the cgroups `target` seems to be in, by the names of its folders; 0 for none.

    No proof: users may make folders of these names. A folder that bears a SLUID stands for the only job, if it is one.
    """
    try:
        lines = decode_cgroups(target)
    except RemoteProtocolError:
        return 0
    for line in lines:
        where = decode_step_path(line)
        if where is None:
            continue
        if where.job_id is None and len(jobs) == 1:
            return jobs[0]
        if where.job_id is not None and where.job_id in jobs:
            return where.job_id
    return 0


def job_folder(stepd: bytes) -> str:
    """The folder of the job on cgroup v2, from the /proc/PID/cgroup of its extern step's proven slurmstepd.

    Empty if the job has none: cgroup v1, or a site that tracks processes by other means.
    """
    try:
        lines = decode_cgroups(stepd)
    except RemoteProtocolError:
        return ""
    for line in lines:
        where = decode_v2(line.path) if line.hierarchy == 0 and not line.deleted else None
        if where is not None and where.step == "extern":
            return where.top.rpartition("/")[0]
    return ""


def extern_folders(stepd: bytes) -> tuple[tuple[tuple[str, ...], str], ...]:
    """(controllers, folder) of the extern step whose proven slurmstepd has these cgroups; no controllers: cgroup v2."""
    try:
        lines = decode_cgroups(stepd)
    except RemoteProtocolError:
        return ()
    found = []
    for line in lines:
        where = decode_step_path(line)
        folder = _wanted_folder(where) if where is not None else ""
        if folder:
            found.append((line.controllers, folder))
    return tuple(found)


def between_steps(stepds: Sequence[bytes], target: bytes) -> bool:
    """Is `target` in these extern steps, though in different ones in different hierarchies (cgroup v1)?

    slurmstepd moves a process in one hierarchy after the other, and what the process forks meanwhile stays between.
    """
    folders: dict[tuple[str, ...], list[str]] = {}
    for stepd in stepds:
        for controllers, folder in extern_folders(stepd):
            folders.setdefault(controllers, []).append(folder)
    try:
        here = {line.controllers: line for line in decode_cgroups(target) if not line.deleted}
    except RemoteProtocolError:
        return False
    return bool(folders) and all(
        controllers in here and any(_below(here[controllers].path, folder) for folder in allowed)
        for controllers, allowed in folders.items()
    )


def _wanted_folder(stepd: StepPath) -> str:
    """Where the processes of the extern step are, seen from its slurmstepd; empty if the path is not that one's."""
    if stepd.version == 1:
        if stepd.step is None:
            return stepd.top + "/step_extern"
        return stepd.top if stepd.step == "extern" else ""
    return stepd.top + "/user" if stepd.step == "extern" and stepd.rest == "/slurm" else ""
