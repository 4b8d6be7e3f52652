# SPDX-License-Identifier: Apache-2.0
"""Whether a session that is in its job now will be there once the service's session stack has run.

On cgroup v1 pam_systemd moves the session in systemd's own hierarchy only, and without logind it does nothing (seen
with systemd 257 on Debian 13). pam_cgfs (Debian's `lxc` brings it along) and pam_cgroup ask no logind, and move the
session in the hierarchies of v1 that Slurm uses, the freezer above all (seen with lxc 5.0.2 and libcgroup 2.0.2).

Rules of this file:
1. A module that may move a session has moved it, whatever it returns; one whose file is not there has not.
2. A session line of ours holds a session that it does not refuse. Whether its options do so is the caller's to judge.
"""

from __future__ import annotations

import os

from .pam_stack import MODULE, read_stack
from .pam_walk import CODES, IGNORE, MODULE_UNKNOWN, SESSION_ERR, STAYS, SUCCESS, judge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .pam_stack import PamLine, Stack
    from .pam_walk import Answers, Outlook

    Guards = Callable[[PamLine], bool]
    Known = Callable[[PamLine], "Answers | None"]
    Read = Callable[[str, str, str], Stack]

#: They move a session into a scope of its own.
SCOPE_MODULES = ("pam_systemd.so", "pam_elogind.so")
#: They move a session into a cgroup of the user's; the second one if its rules fit.
CGROUP_MODULES = ("pam_cgfs.so", "pam_cgroup.so")
CGROUP_RULES = ("/etc/cgrules.conf", "/etc/cgrules.d")
#: Where modules are that a stack names without a path; and, one level down, Debian's way with a folder per machine.
MODULE_DIRECTORIES = ("/lib/security", "/lib64/security", "/usr/lib/security", "/usr/lib64/security")
LIBRARIES = ("/lib", "/usr/lib")
#: A directory with one of these is one of libpam's.
COMMON_MODULES = ("pam_permit.so", "pam_unix.so", MODULE)
#: logind's own sign that it has run (sd_booted(3) tells of systemd only).
SEATS = "/run/systemd/seats"
LOGIND_UNITS = ("/etc/systemd/system/systemd-logind.service", "/run/systemd/system/systemd-logind.service")
LOGIND_CGROUP = "/sys/fs/cgroup/system.slice/systemd-logind.service/cgroup.procs"


def session_outlook(
    service: str,
    guards: Guards = lambda _: True,
    known: Known = lambda _: None,
    root: str = "",
    read: Read = read_stack,
) -> Outlook:
    """Whether sessions of this service stay in their job. `known`: what other modules will answer, as far as that is
    known for this user. `read`: `read_stack`, or that of somebody who remembers."""
    scopes = os.path.exists(f"{root}/sys/fs/cgroup/cgroup.controllers") and may_move(root)
    if not scopes and not any(is_there(name, root) for name in CGROUP_MODULES):
        return STAYS
    return judge(read(service, "session", root), _answers(guards, known, root, scopes))


def is_guarded(service: str, guards: Guards, root: str = "", read: Read = read_stack) -> bool:
    """Whether every session of this service comes by a line of ours after all that may have moved it."""
    stack = read(service, "session", root)
    return bool(stack.lines) and judge(stack, _answers(guards, lambda _: None, root), outside=True) == STAYS


def may_move(root: str = "") -> bool:
    """Whether logind is there: it runs, or is started for whoever asks it. It leaves its sign behind when it ends."""
    if not os.path.isdir(root + SEATS):
        return False
    masked = any(os.path.islink(root + unit) and os.readlink(root + unit) == "/dev/null" for unit in LOGIND_UNITS)
    return not masked or _has_processes(root + LOGIND_CGROUP)


def _has_processes(cgroup: str) -> bool:
    try:
        with open(cgroup, "rb") as file:
            return bool(file.read(1))
    except OSError:
        return False


def _answers(guards: Guards, known: Known, root: str, scopes: bool = True) -> Known:
    """`scopes`: what makes scopes for sessions moves them."""
    by_rules = any(map(os.path.exists, (root + path for path in CGROUP_RULES)))

    def answers(line: PamLine) -> Answers | None:
        given: list[tuple[int, bool | None]] | None = None
        if (scopes and line.name in SCOPE_MODULES) or line.name == "pam_cgfs.so":
            given = [(code, True) for code in range(len(CODES))]
        elif line.name == "pam_cgroup.so" and by_rules:
            given = [(code, moved) for code in range(len(CODES)) for moved in (True, None)]
        elif line.name == MODULE and guards(line):
            given = [(SUCCESS, False), (IGNORE, False), (SESSION_ERR, None)]
        if given is None:
            return known(line)
        return given if is_there(line.module, root) else [(MODULE_UNKNOWN, None)]

    return answers


def is_there(module: str, root: str = "") -> bool:
    """Whether libpam finds the module's file. True as well if it cannot be told where libpam looks."""
    name = module.rpartition("/")[2]
    if module.startswith("/") and "$ISA" not in module:
        return os.path.exists(root + module)
    known = [directory for directory in _module_directories(root) if _holds(directory, COMMON_MODULES)]
    return not known or any(_holds(directory, (name,)) for directory in known)


def _holds(directory: str, names: tuple[str, ...]) -> bool:
    return any(os.path.exists(f"{directory}/{name}") for name in names)


def _module_directories(root: str) -> list[str]:
    found = [root + directory for directory in MODULE_DIRECTORIES]
    for library in LIBRARIES:
        try:
            names = os.listdir(root + library)
        except OSError:
            continue
        found += [f"{root}{library}/{name}/security" for name in names if "-linux-" in name]
    return found
