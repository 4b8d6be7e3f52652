# SPDX-License-Identifier: Apache-2.0
"""Exemptions by the PAM line, and what is kept of an account phase for the session phase in another process."""

from __future__ import annotations

import functools
import grp
import os
import pwd
import subprocess
import time
from pathlib import Path

import pytest

from slurm_adopt.login import decide, exempt
from slurm_adopt.login.recent import Recent
from slurm_adopt.login.state import Login
from slurm_adopt.login.steps import FreshLookup
from slurm_adopt.model import Verdict
from slurm_adopt.system.host import account_marks, membership
from slurm_adopt.system.host.account_marks import Mark, read_mark, write_mark
from slurm_adopt.system.host.pam_stack import PamLine, Stack
from slurm_adopt.system.kernel import login_tree
from slurm_adopt.system.kernel.procfs import Process, read_process
from slurm_adopt.system.tasks.task import run
from slurm_adopt.wire.login_exchange import LoginRequest

ME = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(pwd.getpwnam(ME).pw_gid)


def login(*args: str, user: str = ME, seconds: float = 10, phase: str = "account") -> Login:
    deadline_ns = time.monotonic_ns() + int(seconds * 1e9)
    request = LoginRequest(phase, deadline_ns, "sshd", user, os.getuid(), args=args)  # type: ignore[arg-type]
    return Login(request, Process(os.getpid(), 1), FreshLookup())


@pytest.mark.parametrize(
    ("arg", "word"),
    [
        (f"allow_users=x,{ME}", ME),
        (f"allow_users={ME}x", ""),
        (f"allow_groups=no-such-group,{GROUP.gr_name}", GROUP.gr_name),
        (f"allow_groups={GROUP.gr_gid}", str(GROUP.gr_gid)),
        ("allow_groups=no-such-group", ""),
        ("allow_groups=4294967294", ""),
        ("allow_users=@no-such-netgroup", ""),
    ],
)
def test_exempt__by_the_line(arg: str, word: str) -> None:
    assert run(exempt.find_exemption(login(arg))) == word


def test_exempt__a_directory_that_hangs_exempts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes half of the time that is left; the log says it."""

    def hang(*_: object) -> bytes:
        time.sleep(60)
        return b".1"

    monkeypatch.setattr(membership, "_look", hang)
    began = time.monotonic()
    hung = login("allow_groups=wheel", seconds=1)
    assert run(exempt.find_exemption(hung)) == ""
    assert "in time" in hung.remark
    assert time.monotonic() - began < 30
    monkeypatch.setattr(membership, "_look", lambda *_: os._exit(1))
    broken = login("allow_groups=wheel")
    assert run(exempt.find_exemption(broken)) == ""
    assert "could not be looked up" in broken.remark


def test_exempt__a_user_without_an_entry_is_in_no_group() -> None:
    unknown = login("allow_groups=wheel", user="no-such-user")
    assert run(exempt.find_exemption(unknown)) == ""
    assert "KeyError" in unknown.remark


OURS = PamLine("account", "required", "pam_slurm_adopt.so", ("profile=strict",), False, "sshd:1")


def before(control: str, module: str = "pam_unix.so") -> PamLine:
    return PamLine("account", control, module, (), False, "sshd:1")


@pytest.mark.parametrize(
    ("lines", "doubts", "expected"),
    [
        ((before("success=1 default=ignore", "pam_succeed_if.so"), OURS, before("required")), (), "skipped"),
        ((before("sufficient", "pam_localuser.so"), OURS), (), "skipped"),
        ((before("sufficient"), before("required", "pam_deny.so"), OURS), (), "skipped"),
        # nobody gets by but those who have to change their password first
        ((OURS,), (), "owed"),
        (
            (before("success=1 new_authtok_reqd=done default=ignore"), before("requisite", "pam_deny.so"), OURS),
            (),
            "owed",
        ),
        ((before("success=ok new_authtok_reqd=die default=bad"), OURS), (), "owed"),
        ((), (), "asked"),
        ((PamLine("account", "required", "pam_unix.so", (), False, "sshd:1"),), (), "asked"),
        ((PamLine("account", "required", "pam_slurm_adopt.so", ("service=login",), False, "sshd:1"),), (), "asked"),
        ((PamLine("account", "requires", "pam_slurm_adopt.so", (), False, "sshd:1", 0, "broken"),), (), "asked"),
        # what is not certain is no proof that it was jumped over
        ((OURS,), ("sshd:2: a doubt",), "asked"),
    ],
)
def test_exempt__an_account_line_that_was_not_asked(
    monkeypatch: pytest.MonkeyPatch, lines: tuple[PamLine, ...], doubts: tuple[str, ...], expected: str
) -> None:
    monkeypatch.setattr(Recent, "read_stack", lambda *_: Stack(lines, doubts))
    monkeypatch.setattr(exempt, "read_mark", lambda *_: None)
    for program in ("/usr/sbin/sshd", "/usr/lib/openssh/sshd-session"):
        monkeypatch.setattr(login_tree, "read_program", lambda _, program=program: program)
        assert exempt.find_account_phase(login(phase="open_session")) == (expected, 0)
    # there are programs that open a session and ask no account stack
    monkeypatch.setattr(login_tree, "read_program", lambda _: "/usr/sbin/runuser")
    assert exempt.find_account_phase(login(phase="open_session"))[0] == {"owed": "skipped"}.get(expected, expected)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    if os.geteuid() != 0:
        pytest.skip("marks are root's")
    return str(tmp_path / "accounts")


def test_exempt__what_an_account_phase_leaves_for_the_session_phase(folder: str) -> None:
    process = Process(4711, 42)
    assert read_mark(process, 1501, folder) is None
    for mark in (Mark("left"), Mark("asked", 4711), Mark("asked"), Mark("left")):
        write_mark(process, 1501, mark, folder)
        assert read_mark(process, 1501, folder) == mark
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert read_mark(Process(4711, 43), 1501, folder) is None, "the number of another process"
    assert read_mark(process, 1502, folder) == Mark("asked"), "another user's"


@pytest.mark.parametrize("change", ["chmod 666", "chown 1501", "truncate -s 0", "rm; ln -s /dev/null"])
def test_exempt__a_mark_that_is_not_roots_alone_exempts_nobody(folder: str, change: str) -> None:
    process = Process(4711, 42)
    write_mark(process, 1501, Mark("left", 5), folder)
    file = Path(folder, "4711.42")
    if change.startswith("rm"):
        file.unlink()
        file.symlink_to("/dev/null")
    else:
        subprocess.run([*change.split(), file], check=True)
    assert read_mark(process, 1501, folder) == Mark("asked")


def test_exempt__marks_of_processes_that_have_ended_are_removed(folder: str) -> None:
    here = read_process(os.getpid())
    assert here is not None
    write_mark(Process(here.pid, here.started), 1501, Mark("asked", 7), folder)
    for number in range(account_marks.MANY + 5):
        write_mark(Process(4_000_000 + number, 1), 1501, Mark("asked", 7), folder)
    assert len(os.listdir(folder)) < account_marks.MANY
    assert read_mark(Process(here.pid, here.started), 1501, folder) == Mark("asked", 7)


@pytest.mark.parametrize("own_session", [False, True])
def test_exempt__a_parent_that_may_go_on_with_the_session_phase(
    folder: str, monkeypatch: pytest.MonkeyPatch, own_session: bool
) -> None:
    """A program that asks the account stack in a child which nobody can tell for one of the login: its parent is told.

    sshd's listener gives each connection a session of its own, and gets no mark for any of them.
    """
    me = read_process(os.getpid())
    assert me is not None
    with subprocess.Popen(["sleep", "60"], start_new_session=own_session) as child:
        try:
            caller = read_process(child.pid)
            assert caller is not None
            request = LoginRequest("account", time.monotonic_ns() + 10**10, "x", ME, 1501)
            asked = Login(request, caller, FreshLookup())
            monkeypatch.setattr(account_marks, "write_mark", functools.partial(write_mark, directory=folder))
            decide._keep_account(asked, Verdict("allow", "adopted", 5))
            assert read_mark(me, 1501, folder) == (None if own_session else Mark("asked", 5))
            decide._keep_account(asked, Verdict("deny", "no-job"))
            assert read_mark(me, 1501, folder) == (None if own_session else Mark("left"))
        finally:
            child.kill()
