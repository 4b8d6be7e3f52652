# SPDX-License-Identifier: Apache-2.0
"""What libpam itself says of a stack: the account stack of a service, run for a user as sshd runs it.

Rules of this file:
1. libpam and its modules run in a child with a session of its own, no descriptor and a time limit: a module that hangs,
   crashes or changes its process does so there. Where a user with a job is tried, that child is adopted, and ends.
2. Only the account stack: it decides who gets in. To open a session would write into the logs of logins.
3. `confdir` is a folder that takes the place of /etc/pam.d (pam_start_confdir(3), Linux-PAM 1.4).
"""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import time

from ...model import RUNNING
from ...record import record
from ...system.slurm.conf import ConfFault
from ...system.slurm.spool import SpoolFault
from ...system.tasks.child import ChildFault, call_in_child
from ...system.tasks.task import DeadlineExceeded
from ...system.tasks.task import run as run_task
from ..main import die
from ..status_view import view_node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Who = Literal["root", "with-job", "without-job"]

LIBRARY = "libpam.so.0"
#: The module's own time limit may be set up to a minute.
TRIAL_NS = 90 * 10**9
PAM_SUCCESS, PAM_CONV_ERR = 0, 19
PAM_SILENT = 0x8000
PAM_TTY, PAM_RHOST = 3, 4
#: Not what a login has: the log shows that nobody came from anywhere.
TERMINAL = b"slurm-adopt"
NOBODY = "nobody"


@record
class Outcome:
    """`code` is libpam's answer, `said` the same in words; -1: there was none, and `said` tells why."""

    who: Who
    user: str
    code: int
    said: str

    @property
    def is_let_in(self) -> bool:
        return self.code == PAM_SUCCESS


def try_account(service: str, who: Who, user: str, confdir: str = "") -> Outcome:
    """Run the service's account stack for a user."""
    deadline_ns = time.monotonic_ns() + TRIAL_NS
    try:
        answer = run_task(call_in_child(lambda: _ask(service, user, confdir), deadline_ns))
        code, said = json.loads(answer)
    except DeadlineExceeded:
        return Outcome(who, user, -1, "PAM does not answer")
    except (ChildFault, OSError, ValueError):
        return Outcome(who, user, -1, "a PAM module has ended the process")
    return Outcome(who, user, code, said)


def can_try_elsewhere() -> bool:
    """Whether this libpam can read a stack that is not in /etc/pam.d."""
    try:
        return hasattr(ctypes.CDLL(LIBRARY), "pam_start_confdir")
    except OSError:
        return False


class _Conversation(ctypes.Structure):
    """struct pam_conv"""

    _fields_ = (("converse", ctypes.c_void_p), ("data", ctypes.c_void_p))


def _ask(service: str, user: str, confdir: str) -> bytes:
    """In the child."""
    # sshd gives each connection a session; without one, our parent would seem to carry the login
    os.setsid()
    libpam = ctypes.CDLL(LIBRARY)
    libpam.pam_strerror.restype = ctypes.c_char_p
    # who is asked something cannot answer, as in a batch login
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    converse = kind(lambda *_: PAM_CONV_ERR)
    conversation = _Conversation(ctypes.cast(converse, ctypes.c_void_p), None)
    handle = ctypes.c_void_p()
    names = (service.encode(), user.encode(), ctypes.byref(conversation))
    if confdir:
        code = libpam.pam_start_confdir(*names, confdir.encode(), ctypes.byref(handle))
    else:
        code = libpam.pam_start(*names, ctypes.byref(handle))
    if code != PAM_SUCCESS:
        return _told(code, "libpam does not load the stack")
    libpam.pam_set_item(handle, PAM_TTY, TERMINAL)
    libpam.pam_set_item(handle, PAM_RHOST, b"")
    code = libpam.pam_acct_mgmt(handle, PAM_SILENT)
    said = (libpam.pam_strerror(handle, code) or b"").decode("ascii", "replace")
    libpam.pam_end(handle, code)
    return _told(code, said)


def _told(code: int, said: str) -> bytes:
    return json.dumps((code, said)).encode()


# Whom to try ----------------------------------------------------------------------------------------


def user_with_job(named: str) -> str:
    """The user who was named, or one who has a job here, if there is one; one job rather than several."""
    if named:
        return _known(named)
    owners = [job_uid for job_uid in _owners() if job_uid]
    for uid in sorted(set(owners), key=owners.count):
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            continue
    return ""


def user_without_job(named: str) -> str:
    """The user who was named, or nobody(5), who is on every system and never has a job; empty if there is none."""
    if named:
        return _known(named)
    try:
        return pwd.getpwnam(NOBODY).pw_name
    except KeyError:
        return ""


def _known(name: str) -> str:
    try:
        return pwd.getpwnam(name).pw_name
    except KeyError:
        die(f"there is no user {name!r} on this node", "name one that `id` knows here")


def _owners() -> list[int]:
    try:
        return [job.uid for job in run_task(view_node()).jobs if job.state == RUNNING]
    except (ConfFault, SpoolFault):
        return []
