# SPDX-License-Identifier: Apache-2.0
"""Whole PAM stacks through real sshd: who gets in, and into which job.

alice has no job, bob has one, adam has none and is in the group `admins` and in the list of allowed users.
"""

from __future__ import annotations

import concurrent.futures
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.node import Node

from .outcome import senses_of
from .situations import MODULES, Rig

USERS = ("alice", "bob", "adam", "root")
KEYBOARD_PORT = 2222


@dataclass(frozen=True)
class Login:
    """What became of an ssh login: the job that the shell is in, and the one that it is told ("" none)."""

    admitted: bool
    job: str = ""
    told: str = ""
    says: str = ""

    def __str__(self) -> str:
        if not self.admitted:
            return "refused" + (f" “{self.says}”" if self.says else "")
        return (
            f"in job *{self.job}*" if self.job else f"in, outside of all jobs, told {self.told}" if self.told else "in"
        )


IN, IN_JOB = Login(True), Login(True, "only", "only")
REFUSED = Login(False)
NO_JOBS = Login(False, says="no jobs")


@dataclass(frozen=True)
class Stack:
    """PAM lines with {module} in them; `files` are further ones below /etc/pam.d. `differs`: what ours does instead,
    and why."""

    name: str
    expected: Mapping[str, Login]
    account: tuple[str, ...] = ()
    session: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    auth: str = "publickey"
    port: int = 22
    differs: Mapping[str, Login] = field(default_factory=dict)
    why: str = ""

    def expected_of(self, which: str) -> dict[str, Login]:
        return {**self.expected, **(self.differs if which == "ours" else {})}


JUST_JOBS = {"alice": NO_JOBS, "bob": IN_JOB, "adam": NO_JOBS, "root": IN}
ADMINS_TOO = {**JUST_JOBS, "adam": IN}
EVERYBODY = dict.fromkeys(USERS, IN)
#: `required`, but for a file that is not there
IF_THERE = "[success=ok new_authtok_reqd=ok ignore=ignore module_unknown=ignore default=bad]"
#: Where libpam itself refuses everybody, root too.
LOCKED_OUT = ("leading -, required, file missing", "required, file missing")
LISTFILE = "sufficient pam_listfile.so item=user sense=allow onerr=fail file=/etc/ssh/allowed_users"

STACKS = (
    Stack("required", JUST_JOBS, ("required {module}",)),
    Stack("required, password", JUST_JOBS, ("required {module}",), auth="password"),
    Stack("requisite", JUST_JOBS, ("requisite {module}",)),
    # nothing after it refuses: that is what `sufficient` means, in both
    Stack("sufficient, nothing after it", {**EVERYBODY, "bob": IN_JOB, "alice": Login(True), "adam": Login(True)}, ("sufficient {module}",)),
    Stack("in common-account", JUST_JOBS, files={"common-account": "account required {module}"}),
    Stack("include system-auth", JUST_JOBS, ("include system-auth",), files={"system-auth": "account required {module}"}),
    Stack("substack system-auth", JUST_JOBS, ("substack system-auth",), files={"system-auth": "account required {module}"}),
    # Linux-PAM 1.5.2: the "-" only mutes the log. What keeps a node reachable is to ignore module_unknown.
    Stack(LOCKED_OUT[0], dict.fromkeys(USERS, REFUSED), files={"sshd": "-account required /gone/pam_slurm_adopt.so"}),
    Stack(LOCKED_OUT[1], dict.fromkeys(USERS, REFUSED), ("required /gone/pam_slurm_adopt.so",)),
    Stack("module_unknown=ignore, file missing", EVERYBODY, files={"sshd": f"-account {IF_THERE} /gone/pam_slurm_adopt.so"}),
    Stack("module_unknown=ignore, file there", JUST_JOBS, files={"sshd": f"-account {IF_THERE} {{module}}"}),
    Stack("leading -, file there", JUST_JOBS, files={"sshd": "-account required {module}"}),
    Stack("short-circuited by pam_localuser", EVERYBODY, ("sufficient pam_localuser.so", "required {module}")),
    Stack("after pam_unix and pam_nologin", JUST_JOBS, ("required pam_unix.so", "required pam_nologin.so", "required {module}")),
    Stack("pam_access after it", ADMINS_TOO, ("sufficient {module}", "required pam_access.so")),
    Stack("pam_listfile before it", ADMINS_TOO, (LISTFILE, "required {module}")),
    Stack("profile=strict", JUST_JOBS, ("required {module} profile=strict",)),
    Stack(
        "keyboard-interactive", {**JUST_JOBS, "bob": Login(True, "", "only")}, ("required {module}",),
        auth="keyboard-interactive", port=KEYBOARD_PORT,
        differs={"bob": IN_JOB}, why="the original moves sshd's short-lived PAM child",
    ),
    Stack(
        "recommended lines", {**dict.fromkeys(USERS, REFUSED), "alice": NO_JOBS, "adam": NO_JOBS},
        ("required {module} profile=strict",), ("required {module} profile=strict",),
        differs=JUST_JOBS, why="the original has no session phase",
    ),
)  # fmt: skip


def prepare(rig: Rig) -> None:
    """bob's job, adam the admin, and what pam_access and pam_listfile read."""
    node = rig.node
    node.run(
        "useradd -m -u 1506 -s /bin/bash adam; groupadd admins; gpasswd -a adam admins; echo adam:pw-adam | chpasswd"
    )
    node.run("cp -r /home/alice/.ssh /home/adam/.ssh; chown -R adam: /home/adam/.ssh")
    node.write("/etc/security/access.conf", "+:root:ALL\n+:(admins):ALL\n-:ALL:ALL\n")
    node.write("/etc/ssh/allowed_users", "adam\n", 0o600)
    node.sshd("keyboard", KEYBOARD_PORT, ["PasswordAuthentication no", "KbdInteractiveAuthentication yes"])
    node.run("echo root:pw-root | chpasswd")
    rig.submit("only", "bob")


def log_in(rig: Rig, stack: Stack, user: str) -> Login:
    """One real login."""
    shows = "cat /proc/self/cgroup; echo told=$SLURM_JOB_ID"
    done = rig.node.ssh(user, shows, auth=stack.auth, port=stack.port)
    if "told=" not in done.stdout:
        return Login(False, says=senses_of([line for line in done.stderr.splitlines() if "Access denied by" in line]))
    found = re.search(r"/job_(\d+)/step_extern", done.stdout)
    names = {str(job): name for name, job in rig.jobs.items()}
    told = done.stdout.partition("told=")[2].strip()
    return Login(True, names.get(found[1], found[1]) if found else "", names.get(told, told))


def measure_stack(rig: Rig, stack: Stack, which: str) -> dict[str, Login]:
    """All users' logins with this stack and module; /etc/pam.d is as before afterwards."""
    node = rig.node
    kept: dict[Path, str | None] = {}
    module = rig.module(which)
    try:
        node.pam(
            "sshd",
            account=[line.format(module=module) for line in stack.account],
            session=[line.format(module=module) for line in stack.session],
        )
        for name, line in stack.files.items():
            path = node.path(f"/etc/pam.d/{name}")
            kept[path] = path.read_text() if path.exists() else None
            path.write_text((kept[path] or "") + line.format(module=module) + "\n")
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            logins = pool.map(lambda user: log_in(rig, stack, user), USERS)
            return dict(zip(USERS, logins))
    finally:
        for path, text in kept.items():
            path.unlink() if text is None else path.write_text(text)


def measure_stacks() -> dict[str, dict[str, dict[str, Login]]]:
    """{stack: {module: {user: login}}}"""
    with Rig(Node()) as rig:
        prepare(rig)
        return {stack.name: {which: measure_stack(rig, stack, which) for which in MODULES} for stack in STACKS}
