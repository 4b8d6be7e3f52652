# SPDX-License-Identifier: Apache-2.0
"""What an account phase makes of the session stack that will follow."""

from __future__ import annotations

import functools
import grp
import os
import pwd
import time
from pathlib import Path

import pytest

from slurm_adopt.login import adopt
from slurm_adopt.login.recent import Recent
from slurm_adopt.login.state import Login
from slurm_adopt.login.steps import FreshLookup
from slurm_adopt.system.host import pam_known, pam_outlook
from slurm_adopt.system.host.pam_stack import read_stack
from slurm_adopt.system.kernel.procfs import Process
from slurm_adopt.system.slurm.stepd import StepFault
from slurm_adopt.system.tasks.task import run
from slurm_adopt.wire.login_exchange import LoginRequest

VENDORS = """\
session [default=1 success=ignore] pam_listfile.so item=user sense=allow file=/etc/admins onerr=fail
-session optional pam_systemd.so
session required pam_unix.so
"""
BY_GROUP = """\
session [success=1 default=ignore] pam_succeed_if.so quiet user ingroup {}
session optional pam_systemd.so
session required pam_unix.so
"""
NOBODY_KNOWS = VENDORS.replace("pam_listfile.so", "pam_of_the_site.so")
OURS = "session required pam_slurm_adopt.so profile=strict\n"
ME = pwd.getpwuid(os.getuid()).pw_name
MY_GROUP = grp.getgrgid(os.getgid()).gr_name


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another root for what is read of PAM, systemd and cgroups."""
    for folder in ("sys/fs/cgroup", "run/systemd/seats", "etc/pam.d"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cgroup.controllers").touch()
    (tmp_path / "etc/admins").write_text("root\nadmin\n")
    monkeypatch.setattr(adopt, "LOGIND", str(tmp_path / "run/systemd/seats"))
    root = str(tmp_path)
    for module, name in ((pam_outlook, "session_outlook"), (pam_known, "answers_for")):
        monkeypatch.setattr(module, name, functools.partial(getattr(module, name), root=root))
    monkeypatch.setattr(Recent, "read_stack", lambda _, service, kind, __="": read_stack(service, kind, root))
    # it takes these names when it is loaded
    monkeypatch.delitem(__import__("sys").modules, "slurm_adopt.login.expect", raising=False)
    return tmp_path


def expect(node: Path, stack: str, *args: str, user: str = ME) -> str:
    """The reason why the adoption fails, or what the log is told; empty if all is well."""
    (node / "etc/pam.d/sshd").write_text(stack)
    request = LoginRequest("account", time.monotonic_ns() + 10**10, "sshd", user, 1501, args=args)
    login = Login(request, Process(os.getpid(), 1), FreshLookup())
    try:
        run(adopt._expect_to_stay(login))
    except StepFault as fault:
        return fault.reason
    return login.remark


@pytest.mark.parametrize("args", [(), ("profile=strict",)])
def test_expect__the_stack_of_slurms_documentation(node: Path, args: tuple[str, ...]) -> None:
    """It keeps pam_systemd from ordinary users: theirs is the job, with no session line of ours."""
    assert expect(node, VENDORS, *args, user="alice") == ""
    assert expect(node, VENDORS, *args, user="admin") == "session-escapes"
    assert expect(node, VENDORS + OURS, *args, user="admin") == ""


@pytest.mark.parametrize(
    ("line", "rules", "expected"),
    [
        ("session optional pam_cgfs.so -c freezer,memory\n", "", "session-escapes"),
        ("session optional pam_cgroup.so\n", "", ""),
        ("session optional pam_cgroup.so\n", "@students freezer students/\n", "session-uncertain"),
    ],
    ids=["lxc", "libcgroup-without-rules", "libcgroup"],
)
def test_expect__what_moves_sessions_without_logind(
    node: Path, line: str, rules: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On cgroup v1, where pam_systemd moves nothing that Slurm uses."""
    (node / "sys/fs/cgroup/cgroup.controllers").unlink()
    if rules:
        (node / "etc/cgrules.conf").write_text(rules)
    stack = f"session required pam_unix.so\nsession optional pam_systemd.so\n{line}"
    monkeypatch.setattr(adopt, "LOGIND", str(node / "nowhere"))
    assert expect(node, stack, "profile=strict") == ""  # neither is installed
    monkeypatch.setattr(adopt, "MOVERS", (str(node / "etc/pam.d/sshd"),))
    assert expect(node, stack, "profile=strict") == expected
    assert expect(node, stack + OURS, "profile=strict") == ""


def test_expect__a_jump_by_group(node: Path) -> None:
    assert expect(node, BY_GROUP.format(MY_GROUP), "profile=strict") == ""
    assert expect(node, BY_GROUP.format("no-such-group"), "profile=strict") == "session-escapes"
    assert expect(node, BY_GROUP.format(MY_GROUP), "profile=strict", user="no-such-user") == "session-uncertain"


def test_expect__what_the_files_do_not_tell(node: Path) -> None:
    """Who refuses sessions outside of jobs refuses what may be one; else the log says it."""
    assert expect(node, NOBODY_KNOWS, "profile=strict") == "session-uncertain"
    assert expect(node, NOBODY_KNOWS, "action_adopt_failure=deny") == "session-uncertain"
    assert "session line" in expect(node, NOBODY_KNOWS)
    assert expect(node, NOBODY_KNOWS + OURS, "profile=strict") == ""


@pytest.mark.parametrize(
    "line", ["session required pam_slurm_adopt.so", OURS.replace("strict", "strict service=login")]
)
def test_expect__a_session_line_that_is_weaker_or_not_for_this_service(node: Path, line: str) -> None:
    stack = "session optional pam_systemd.so\nsession required pam_unix.so\n"
    assert expect(node, stack + line + "\n", "profile=strict") == "session-escapes"
    assert expect(node, stack + OURS, "profile=strict") == ""
