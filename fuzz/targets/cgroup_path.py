# SPDX-License-Identifier: Apache-2.0
"""Who is in a step by /proc/PID/cgroup is in it by a second look, which compares whole folder names and nothing else.

Whoever is in the step is in its job, and is in neither any more if one of the lines that count is of a removed cgroup or
is not there. Lines that are accepted are the same when written again.
"""

from __future__ import annotations

from slurm_adopt.wire import cgroup_path as wire
from slurm_adopt.wire.errors import RemoteProtocolError

from ..reader import Reader


def check(data: bytes) -> None:
    """slurmstepd's text and the process's, parted by a NUL byte."""
    stepd, _, target = Reader(data).rest().partition(b"\0")
    try:
        lines, targets = wire.decode_cgroups(stepd), wire.decode_cgroups(target)
    except RemoteProtocolError:
        assert not wire.same_step(stepd, target).inside
        assert not wire.same_job(stepd, target)
        return
    for line, raw in zip(lines, stepd.split(b"\n")):
        controllers = raw.split(b":", 2)[1].decode("utf-8", "surrogateescape")
        assert raw.decode("utf-8", "surrogateescape") == f"{raw.split(b':')[0].decode()}:{controllers}:{line.path}"
        assert int(raw.split(b":")[0]) == line.hierarchy
    inside = wire.same_step(stepd, target)
    if not inside.inside:
        return
    assert inside.step_known
    assert wire.same_job(stepd, target)
    counted = 0
    for line in lines:
        parts = line.path.split("/")
        job = _job_folder(line)
        if job == 0:
            continue
        counted += 1
        there = [
            other for other in targets if (other.hierarchy, other.controllers) == (line.hierarchy, line.controllers)
        ]
        assert there
        theirs = there[-1].path.split("/")
        assert theirs[: job + 1] == parts[: job + 1], "another job's folder"
        assert theirs[job + 1] == "step_extern", "another step"
        assert not there[-1].deleted
    assert counted
    _check_removed(stepd, target, lines)


def _job_folder(line: wire.CgroupLine) -> int:
    """The place of the job's folder in a path of slurmstepd's, 0 if there is none."""
    parts = line.path.split("/")
    for place in range(2, len(parts)):
        above = parts[place - 1]
        if line.hierarchy == 0:
            if above == "slurmstepd.scope" or above.endswith("_slurmstepd.scope"):
                return place if wire.decode_v2(line.path) is not None else 0
        elif place > 2 and (parts[place - 2] == "slurm" or parts[place - 2].startswith("slurm_")):
            uid, job = above.partition("_"), parts[place].partition("_")
            if uid[0] == "uid" and job[0] == "job" and _plain(uid[2]) and _plain(job[2]):
                return place
    return 0


def _plain(digits: str) -> bool:
    return digits.isascii() and digits.isdigit() and str(int(digits)) == digits and int(digits) < 1 << 32


def _check_removed(stepd: bytes, target: bytes, lines: tuple[wire.CgroupLine, ...]) -> None:
    kept = target.split(b"\n")[:-1]
    wanted = {(line.hierarchy, line.controllers) for line in lines if wire.decode_step_path(line) is not None}
    for place, raw in enumerate(kept):
        number, controllers = raw.split(b":")[:2]
        names = tuple(filter(None, controllers.decode("utf-8", "surrogateescape").split(",")))
        if (int(number), names) not in wanted or len(raw) > wire.MAX_LINE_LENGTH - len(wire.DELETED):
            continue
        others = [line for index, line in enumerate(kept) if index != place]
        if any(line.startswith(number + b":" + controllers + b":") for line in others):
            continue
        gone = [*others, raw + wire.DELETED.encode()]
        assert not wire.same_step(stepd, b"\n".join(gone) + b"\n").inside, "a removed cgroup"
        assert not wire.same_step(stepd, b"\n".join([*others, b""])).inside, "a hierarchy that is not there"
        return
