# SPDX-License-Identifier: Apache-2.0
"""A change of `slurm-adopt enable` that is broken off anywhere: the old file is there again, whoever comes by later."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from slurm_adopt.cli.enabling import change
from slurm_adopt.cli.enabling.change import Locked, Pending, apply, confirm, copy_of, read_pending, take_back
from slurm_adopt.cli.enabling.plan import Plan
from slurm_adopt.cli.main import CommandError
from slurm_adopt.record import replace
from slurm_adopt.system.tasks.files import replace_for_good

OLD, NEW = b"account required pam_unix.so\n", b"account required pam_unix.so\naccount required pam_slurm_adopt.so\n"
#: What changes something on a disk, or makes it last.
CALLS = ("open", "write", "link", "rename", "unlink", "fsync", "fchmod", "fchown", "mkdir")


@pytest.fixture
def pam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """sshd's file in a folder that stands for /etc/pam.d."""
    state = tmp_path / "state"
    for name in ("pending", "last", "lock"):
        monkeypatch.setattr(change, name.upper(), str(state / name))
    monkeypatch.setattr(change, "FOLDER", str(state))
    folder = tmp_path / "pam.d"
    folder.mkdir()
    monkeypatch.setattr(change, "DIRECTORIES", (str(folder),))
    monkeypatch.setattr(change, "_log", lambda _: None)
    file = folder / "sshd"
    file.write_bytes(OLD)
    file.chmod(0o640)
    return file


def plan(file: Path, before: bytes | None = OLD, after: bytes | None = NEW) -> Plan:
    return Plan("sshd", str(file), str(file), before, before or b"", after)


def no_watch(_: Pending) -> None:
    """Nobody waits: the test comes by."""


def die_at(number: int, act: Callable[[], object]) -> bool:
    """Whether `act` has come to its end in a process that is killed at its call with this number."""
    pid = os.fork()
    if pid == 0:
        left = [number]

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def calling(*args: Any, **kwargs: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    os._exit(9)
                return call(*args, **kwargs)

            return calling

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 9), "it was killed, or did what it should"
    return status == 0


def rounds() -> Iterator[int]:
    """Until a round comes to its end."""
    yield from range(200)
    pytest.fail("the process never comes to its end")


@pytest.mark.parametrize("before", [OLD, None], ids=["own", "vendors"])
def test_change__broken_off_anywhere_is_taken_back(pam: Path, before: bytes | None) -> None:
    wanted = plan(pam, before)
    for number in rounds():
        pam.unlink(missing_ok=True)
        if before is not None:
            pam.write_bytes(before)
            pam.chmod(0o640)
        ended = die_at(number, lambda: apply(wanted, 300, no_watch))
        take_back(only_if_due=False)
        assert (pam.read_bytes() if pam.exists() else None) == before
        assert before is None or pam.stat().st_mode & 0o777 == 0o640
        assert not os.path.exists(change.PENDING)
        if ended:
            break
    assert number > 10, "there are many places to be killed at"


def test_change__to_be_killed_while_taking_back_does_no_harm(pam: Path) -> None:
    for number in rounds():
        apply(plan(pam), 300, no_watch)
        ended = die_at(number, lambda: take_back(only_if_due=False))
        assert pam.read_bytes() in (OLD, NEW), "one or the other, and never a part"
        take_back(only_if_due=False)
        assert pam.read_bytes() == OLD
        assert not os.path.exists(change.PENDING)
        if ended:
            break


@pytest.mark.parametrize("call", ["write", "link", "rename", "fsync"])
def test_change__what_cannot_be_written_is_as_it_was(pam: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    real = getattr(os, call)
    failed = 0
    for number in range(20):
        left = [number]

        def full(*args: Any, _left: list[int] = left, **kwargs: Any) -> Any:
            _left[0] -= 1
            if _left[0] == -1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **kwargs)

        with monkeypatch.context() as patched:
            patched.setattr(os, call, full)
            said = ""
            try:
                apply(plan(pam), 300, no_watch)
            except CommandError as error:
                said = str(error)
        if not said:
            break
        failed += 1
        assert "No space left on device" in said
        assert pam.read_bytes() == OLD
        assert not os.path.exists(change.PENDING)
        assert sorted(path.name for path in pam.parent.iterdir()) in (["sshd"], [Path(copy_of("/sshd")).name, "sshd"])
    assert failed
    assert left[0] >= 0, "it went on without a failure in the end"


def test_change__has_mode_owner_and_attributes_of_the_old_file(pam: Path) -> None:
    try:
        os.setxattr(pam, "user.label", b"sshd")
    except OSError:
        pytest.skip("this file system has no attributes")
    found = pam.stat()
    apply(plan(pam), 300, no_watch)
    now = pam.stat()
    assert pam.read_bytes() == NEW
    assert (now.st_mode, now.st_uid, now.st_gid) == (found.st_mode, found.st_uid, found.st_gid)
    assert now.st_ino != found.st_ino
    assert os.getxattr(pam, "user.label") == b"sshd"
    take_back(only_if_due=False)
    assert pam.stat().st_ino == found.st_ino, "it is the old file itself"


def test_change__is_due_by_time_and_after_another_boot(pam: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pending = apply(plan(pam), 300, no_watch)
    assert pending is not None
    assert take_back() is None
    assert pam.read_bytes() == NEW
    with monkeypatch.context() as later:
        later.setattr(change, "now_s", lambda: pending.due_s + 1)
        assert pending.left_s < 0
    with monkeypatch.context() as rebooted:
        rebooted.setattr(change, "this_boot", lambda: "another")
        settled = take_back()
    assert settled is not None
    assert settled[0] == "restored"
    assert pam.read_bytes() == OLD


def test_change__without_the_kept_file_its_text_is_used(pam: Path) -> None:
    apply(plan(pam), 300, no_watch)
    os.unlink(copy_of(str(pam)))
    take_back(only_if_due=False)
    assert pam.read_bytes() == OLD
    assert pam.stat().st_mode & 0o777 == 0o640


def test_change__what_somebody_else_has_written_stays(pam: Path) -> None:
    apply(plan(pam), 300, no_watch)
    pam.write_bytes(b"account required pam_permit.so\n")
    settled = take_back(only_if_due=False)
    assert settled is not None
    assert settled[0] == "edited"
    assert pam.read_bytes() == b"account required pam_permit.so\n"
    assert Path(copy_of(str(pam))).read_bytes() == OLD
    assert take_back(only_if_due=False) is None
    assert "somebody has changed the file since" in change.last_end()


def test_change__made_by_hand_again_is_nothing_to_take_back(pam: Path) -> None:
    apply(plan(pam), 300, no_watch)
    pam.write_bytes(OLD)
    settled = take_back(only_if_due=False)
    assert settled is not None
    assert settled[0] == "unchanged"


def test_change__one_at_a_time_and_of_what_was_shown(pam: Path) -> None:
    apply(plan(pam), 300, no_watch)
    with pytest.raises(CommandError, match="waits for its confirmation"):
        apply(plan(pam, NEW, OLD), 300, no_watch)
    pending = read_pending()
    assert pending is not None
    confirm(pending)
    with pytest.raises(CommandError, match="has changed meanwhile"):
        apply(plan(pam), 300, no_watch)
    with pytest.raises(CommandError, match="has changed meanwhile"):
        apply(plan(pam, None), 300, no_watch)
    assert pam.read_bytes() == NEW


def test_change__nobody_waits_for_ever(pam: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who was stopped in the middle keeps the lock."""
    monkeypatch.setattr(change, "LOCK_S", 0.1)
    with Locked(), pytest.raises(CommandError, match="does not end"):
        apply(plan(pam), 300, no_watch)
    assert pam.read_bytes() == OLD
    monkeypatch.setattr(change, "FOLDER", str(pam / "below-a-file"))
    with pytest.raises(CommandError, match="cannot be used"):
        apply(plan(pam), 300, no_watch)


def test_change__what_is_written_down_is_checked(pam: Path) -> None:
    pending = apply(plan(pam), 300, no_watch)
    assert pending is not None
    for odd in (b"{", b"[]", b'{"service": "sshd"}', json.dumps({**pending.__dict__, "path": "/etc/shadow"}).encode()):
        replace_for_good(change.PENDING, odd, 0o600)
        with pytest.raises(CommandError, match="cannot be used"):
            read_pending()
    with pytest.raises(ValueError, match="not a file of PAM's"):
        replace(pending, copy="/etc/shadow")
    os.unlink(change.PENDING)
    Path(change.PENDING).write_text(json.dumps(pending.__dict__))
    Path(change.PENDING).chmod(0o666)
    with pytest.raises(CommandError, match="everybody may write it"):
        read_pending()
