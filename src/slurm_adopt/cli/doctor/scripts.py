# SPDX-License-Identifier: Apache-2.0
"""Prolog and Epilog of slurm.conf: programs that slurmd runs as root at each job.

Rules of this file:
1. Several names in one line (`Epilog=/a,/b`) are one name to slurmd, of 20.11 as of 26.05.
2. What drains the node was tried with Slurm 22.05: a program that is missing, is no file, may not be run, or that the
   kernel does not know how to run (no first line `#!`, an interpreter that is not there); a pattern that fits nothing.
3. SlurmUser may write them as well: it may run anything as anybody through slurmctld. A group is a warning, as it is
   for slurm.conf: sites have admin groups.
"""

from __future__ import annotations

import os
import re
import stat

from ...places import HOOKS
from ...system.slurm.accounts import uid_of_user
from ...system.tasks.child import ChildFault, run_program
from ...system.tasks.files import other_writers
from ...system.tasks.program import UntrustedProgram, resolve_program
from ...system.tasks.task import run
from .finding import ERROR, WARNING, Finding
from .node import is_noexec, mend_noexec, shown_mode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...system.slurm.conf import SlurmConf
    from ...system.tasks.files import Owners
    from .node import Node

KEYS = ("Prolog", "Epilog", "TaskProlog", "HealthCheckProgram")
#: slurmd of 24.11 and 26.05 runs what all of their lines name, one of 20.11 and 22.05 the last one's.
SEVERAL, TAKES_THE_LAST = ("Prolog", "Epilog"), (23, 2)
DRAINS = {
    "TaskProlog": "slurmstepd cannot run it: each task of each job fails here",
    "HealthCheckProgram": "slurmd cannot run it: nothing is checked, and its log has an error each time",
    "Prolog": "slurmd cannot run it: the node is drained, and jobs are requeued, as soon as one starts here",
    "Epilog": "slurmd cannot run it: the node is drained as soon as a job ends here",
}
#: What an epilog must not do: end all of a user's processes, of the other jobs and logins too.
KILLERS = re.compile(
    r"\b(pkill|killall|skill)\b.*\s(-[uU]|--(euid|uid|user)\b)|\bslay\s|\bloginctl\s+(terminate|kill)-user\b"
    r"|\bkill\b.*\b(pgrep|ps)\b.*\s-[uU]|\b(pgrep|ps)\b.*\s-[uU].*\bkill\b"
    # by the user: all that the user may kill
    r"|\b(su|runuser|sudo|setpriv)\b.*\bkill\b.*\s-1\b"
)
#: The same in two lines: the processes, and later their end.
ALL_OF_USER = re.compile(r"(?:\b(\w+)=|\bfor\s+(\w+)\s+in\s).*\b(?:pgrep|ps)\b.*\s-[uU]")
#: A script that asks for the user's other jobs first.
ASKS_FIRST = re.compile(r"\bsqueue\b")
#: LBNL Node Health Check. This check ends what was not started by slurmd (its RM_DAEMON_MATCH), as ssh logins were not.
NHC, NHC_CONF = "nhc", "/etc/nhc/nhc.conf"
NHC_KILLS = re.compile(r"\bcheck_ps_userproc_lineage\b.*\bkill\b")
#: `slurm-wlm 22.05.8`
RELEASE = re.compile(r"\b(\d+)\.(\d+)\.")
ELF, SCRIPT = b"\x7fELF", b"#!"


def check_scripts(node: Node, conf: SlurmConf) -> Iterator[Finding]:
    """Whether slurmd can run them, who may write them, and epilogs that end all of a user's processes."""
    said: set[str] = set()
    for key in KEYS:
        words = node.settings(key.lower())
        if len(words) > 1 and (key not in SEVERAL or _takes_the_last(node, conf)):
            yield Finding(
                "slurm-conf-problem",
                WARNING,
                f"{conf.path}: {key}= stands there {len(words)} times",
                f"this slurmd takes the last one only: {', '.join(words[:-1])} is never run",
                f"call all of them from one script, or name them by one pattern, and write one line {key}=",
            )
            words = words[-1:]
        for word in words:
            paths = node.glob(os.path.join(node.conf_folder(), word))  # a relative one is beside slurm.conf
            if not paths:
                yield _missing(conf, key, word)
            for path in paths:
                yield from _check_use(node, conf, key, path)
                if path not in said:
                    said.add(path)
                    yield from _check_writers(node, conf, key, path)
                if key == "Epilog":
                    yield from check_kills(node, path)
                elif key == "HealthCheckProgram":
                    yield from check_health_check(node, path)


def _takes_the_last(node: Node, conf: SlurmConf) -> bool:
    """Whether the slurmd that runs is so old; False if it does not say."""
    if node.root or not conf.slurmds:
        return False
    folder = os.path.dirname(conf.slurmds[0].program)
    try:
        # slurmd itself says nothing without capabilities (22.05)
        program = resolve_program((f"{os.path.dirname(folder)}/bin/scontrol", f"{folder}/scontrol"))
        said = run(run_program((program, "-V"), {}, node.deadline_ns)).decode("ascii", "replace")
    except (UntrustedProgram, ChildFault, OSError):
        return False
    found = RELEASE.search(said)
    return found is not None and (int(found[1]), int(found[2])) < TAKES_THE_LAST


def _missing(conf: SlurmConf, key: str, path: str) -> Finding:
    return Finding(
        "slurm-script-missing",
        ERROR,
        f"{conf.path}: {key}={path}, and nothing is there",
        DRAINS[key],
        f"put {path} back, or take {key}= out of slurm.conf, then `scontrol reconfigure`",
    )


def _check_use(node: Node, conf: SlurmConf, key: str, path: str) -> Iterator[Finding]:
    found = node.stat(path)
    if found is None:
        yield _missing(conf, key, path)
        return
    mend = ""
    if not stat.S_ISREG(found.st_mode):
        seen, mend = f"{path} is no file", f"name a program in {key}=, or let the pattern fit nothing else"
    elif not found.st_mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH):
        seen, mend = f"{path}: {shown_mode(found)}: it may not be run", f"chmod 755 {path}"
    elif is_noexec(node, path):
        seen = f"{path} is on a file system that is mounted noexec"
        mend = mend_noexec(path)
    else:
        seen, mend = _check_start(node, path)
    if mend:
        yield Finding("slurm-script-broken", ERROR, f"{key}: {seen}", DRAINS[key], mend)


def _check_start(node: Node, path: str) -> tuple[str, str]:
    """What is wrong with its first line, and the mend; empty if nothing is."""
    first = (node.read(path) or b"").partition(b"\n")[0]
    if first.startswith(ELF):
        return "", ""
    if not first.startswith(SCRIPT):
        return f"{path} has no first line `#!`", f"sed -i '1i #!/bin/sh' {path}    # or another interpreter"
    program = os.fsdecode(first[len(SCRIPT) :].strip(b" \t").replace(b"\t", b" ").partition(b" ")[0])
    if program.endswith("\r"):
        return f"{path} has the line ends of another system: no interpreter is called so", f"sed -i 's/\\r$//' {path}"
    if not node.exists(program):
        return (
            f"{path} begins with #!{program}, which is not there",
            f"install {program}, or name another one in {path}",
        )
    return "", ""


def _check_writers(node: Node, conf: SlurmConf, key: str, path: str) -> Iterator[Finding]:
    """Whoever may write it, or put another one in its place, runs code as root."""
    uid = uid_of_user(conf.slurm_user) if conf.slurm_user not in ("", "root") else None
    owners: Owners = (0,) if uid is None else (0, uid)
    found = node.stat(path)
    if found is None:
        return
    others, place = other_writers(path, found, owners), path
    if not others:
        place, others = node.loose_folder(path, owners)
    if not others or any(problem.startswith(f"{place}: ") for problem in conf.problems):
        return  # what is said of slurm.conf's folder is not said again
    what, _, mend = others.partition(": ")
    yield Finding(
        "slurm-script-writable",
        WARNING if what.startswith("group ") else ERROR,
        f"{place}: {what}" + ("" if place == path else f"; {path} is in it"),
        f"slurmd runs it as root ({key}=): whoever may write there is root"
        if key != "TaskProlog"
        else "slurmstepd runs it as the job's user: whoever may write there may do what any user may",
        mend,
    )


def check_kills(node: Node, path: str) -> Iterator[Finding]:
    """An epilog that ends what is not the job's."""
    lines = [line.strip() for line in (node.text(path) or "").splitlines() if not line.strip().startswith("#")]
    bad = next((line for line in lines if KILLERS.search(line)), "") or _kills_by_variable(lines)
    if bad and not any(map(ASKS_FIRST.search, lines)) and not path.startswith(HOOKS):
        yield Finding(
            "slurm-epilog-kills",
            WARNING,
            f"{path}: {bad[:120]}",
            "when one job of a user ends, the logins in the user's other jobs on the node are killed",
            f"take it out of {path}: Slurm ends what is in the job, and the shipped epilog what hides from it",
        )


def check_health_check(node: Node, path: str) -> Iterator[Finding]:
    """A health check that ends what it does not know as Slurm's."""
    rows = (node.text(NHC_CONF) or "").splitlines() if os.path.basename(path) == NHC else []
    bad = next((row.strip() for row in rows if NHC_KILLS.search(row.partition("#")[0])), "")
    if bad:
        yield Finding(
            "slurm-health-check-kills",
            WARNING,
            f"{NHC_CONF}: {bad[:120]}",
            "processes of ssh logins are in the job, and are sshd's children: the health check ends them",
            f"write `log` for `kill` in {NHC_CONF}; slurm-adopt status --check tells of processes outside of jobs",
        )


def _kills_by_variable(lines: list[str]) -> str:
    """The line of a script that ends what another one has found of a user's processes; empty if there is none."""
    names = [found[1] or found[2] for found in map(ALL_OF_USER.search, lines) if found]
    kills = re.compile(rf"\bkill\b.*\$\{{?({'|'.join(names)})\b") if names else None
    return next((line for line in lines if kills and kills.search(line)), "")
