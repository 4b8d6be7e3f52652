# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt status`: every ssh login on this node, the job it is in by the kernel's word, and what is in none."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import sys
import time
from collections.abc import Iterable

from ..model import SUSPENDED
from ..system.kernel.hasten import PLACES
from ..system.slurm.conf import ConfFault
from ..system.slurm.spool import SpoolFault
from ..system.tasks.task import run as run_task
from ..users.requests import site_options
from ..words import columns, duration, printable
from .main import die
from .status_view import IN_JOB, NodeView, Stray, view_node

SWITCH = PLACES.switch
MEANINGS = {"in-job": "in the job", "outside": "OUTSIDE", "root": "root, in no job"}
KINDS = {
    "login": "ssh login outside of the user's jobs",
    "user-manager": "below the user's systemd manager",
    "scope": "in a session or scope of systemd's",
    "process": "outside of every job",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 if a process of a user with jobs is in no job"
    )
    parser.add_argument(
        "--watch", metavar="SECONDS", nargs="?", type=_seconds, const=2.0, help="show it again every 2 (or SECONDS) s"
    )
    parser.add_argument("--nodename", default="", help="this node's NodeName, if it is not `hostname -s`")


def run(args: argparse.Namespace) -> int:
    """Print the node's logins and what is outside; it only reports, nothing is moved or ended."""
    if args.watch is None:
        return _show(args)
    if not sys.stdout.isatty():
        die("--watch needs a terminal", "without it: slurm-adopt status --json, as often as you like")
    while True:
        print("\x1b[H\x1b[2J", end="")
        print(time.strftime("%H:%M:%S"), "every", f"{args.watch:g} s, end with Ctrl-C\n")
        _show(args)
        sys.stdout.flush()
        time.sleep(args.watch)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0.1 and 3600 seconds")
    return seconds


def _show(args: argparse.Namespace) -> int:
    options = site_options()
    try:
        view = run_task(view_node(args.nodename or options.nodename, options.slurm_conf))
    except (ConfFault, SpoolFault) as fault:
        die(f"{fault.reason}: {fault}")
    if args.json:
        print(json.dumps(as_json(view), ensure_ascii=True, indent=1))
    else:
        for line in as_text(view):
            print(line)
    outside = view.strays or view.strangers or any(login.membership == "outside" for login in view.logins)
    return 1 if args.check and outside else 0


def as_json(view: NodeView) -> dict[str, object]:
    """Stable names; ages in seconds, `job` null for none."""
    return {
        "jobs": [{"job": job.job_id, "user": user_name(job.uid), "state": job.state} for job in view.jobs],
        "logins": [
            {
                "user": user_name(login.uid),
                "from": login.source or None,
                "job": login.job_id or None,
                "membership": login.membership,
                "age_s": login.age_s,
                "pid": login.pid,
                "sshd_pid": login.monitor,
            }
            for login in view.logins
        ],
        "outside": [
            {
                "user": user_name(stray.uid),
                "pid": stray.pid,
                "kind": stray.kind,
                "command": stray.command,
                "cgroup": stray.cgroup,
                "user_has_job": stray.has_job,
                "age_s": stray.age_s,
            }
            for stray in view.strays
        ],
        "strangers": [
            {"user": user_name(one.uid), "pid": one.pid, "command": one.command, "job": one.job_id}
            for one in view.strangers
        ],
        "pam_services_without_a_line": list(view.unguarded),
        "unanswered": list(view.unanswered),
        "grace_periods": {"expedited": view.expedited, "not_hastened": view.obstacle or None},
        "complete": view.complete,
    }


def as_text(view: NodeView) -> Iterable[str]:
    """For people."""
    if view.logins:
        rows = [("USER", "FROM", "JOB", "STATE", "AGE", "PID")]
        for login in view.logins:
            job = str(login.job_id) if login.membership == IN_JOB else "-"
            state = MEANINGS[login.membership]
            rows.append(
                (user_name(login.uid), login.source or "?", job, state, duration(login.age_s), str(login.pid)),
            )
        yield from columns(rows)
    else:
        yield "No ssh login."
    if view.strays:
        yield ""
        yield "Outside of their owners' jobs:"
        yield from columns([("USER", "PID", "AGE", "COMMAND", "WHAT"), *map(_stray_row, view.strays)])
    for step in view.jobs:
        if step.state == SUSPENDED:
            yield f"job {step.job_id} of {user_name(step.uid)} is suspended: it takes no logins"
    for stranger in view.strangers:
        what = f"process {stranger.pid} ({printable(stranger.command)}) of {user_name(stranger.uid)}"
        yield f"{what} is in job {stranger.job_id}, which is somebody else's"
    for service in view.unguarded:
        yield (
            f"PAM service {service}: pam_systemd takes its sessions out of the job; as the last session line of "
            f"/etc/pam.d/{service}: session required pam_slurm_adopt.so profile=strict service=*"
        )
    for silent in view.unanswered:
        yield f"job {silent.partition(':')[0]}'s slurmstepd could not be asked: {silent.partition(':')[2]}"
    if view.expedited == "left":
        yield (
            f"{SWITCH} is still as a login has set it that was killed: the next login that is hastened puts it right, "
            f"and so does a start of the service, or: echo 0 > {SWITCH}"
        )
    if os.geteuid() != 0:
        print("not root: sources are not shown, and other users' logins only as far as /proc does", file=sys.stderr)


def _stray_row(stray: Stray) -> tuple[str, ...]:
    what = KINDS[stray.kind] + ("" if stray.has_job else ", and the user has no job here")
    return user_name(stray.uid), str(stray.pid), duration(stray.age_s), printable(stray.command), what


def user_name(uid: int) -> str:
    """The account's name, or its number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
