# SPDX-License-Identifier: Apache-2.0
"""What libpam says of a stack that is not installed. The modules are Linux-PAM's own; it needs no root."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from slurm_adopt.cli.enabling.trial import Outcome, can_try_elsewhere, try_account, user_without_job
from slurm_adopt.cli.main import CommandError

pytestmark = pytest.mark.skipif(not can_try_elsewhere(), reason="needs Linux-PAM 1.4")
ME = pwd.getpwuid(os.geteuid()).pw_name


def outcome(folder: Path, **files: str) -> Outcome:
    for name, text in files.items():
        (folder / name).write_text(text)
    return try_account("svc", "root", ME, str(folder))


def test_trial__is_what_the_stack_says(tmp_path: Path) -> None:
    assert outcome(tmp_path, svc="account required pam_permit.so\n") == Outcome("root", ME, 0, "Success")
    refused = outcome(tmp_path, svc="account required pam_deny.so\n")
    assert not refused.is_let_in
    # by path: by name, Linux-PAM 1.5.2 looks for it in /etc/pam.d
    assert outcome(
        tmp_path, svc=f"account include {tmp_path}/more\n", more="account required pam_permit.so\n"
    ).is_let_in
    by_user = f"account required pam_succeed_if.so quiet user = {ME}\naccount required pam_permit.so\n"
    assert outcome(tmp_path, svc=by_user).is_let_in


def test_trial__of_stacks_that_libpam_cannot_use(tmp_path: Path) -> None:
    assert not outcome(tmp_path, svc="account required /nowhere/pam_none.so\n").is_let_in
    assert outcome(tmp_path, svc="@include nowhere\n").code != 0
    assert outcome(tmp_path / "nowhere", **{}).code != 0


def test_trial__a_module_that_ends_the_process_ends_a_child(tmp_path: Path) -> None:
    (tmp_path / "end").write_text("#!/bin/sh\nkill -9 $PPID\n")
    (tmp_path / "end").chmod(0o755)
    found = outcome(tmp_path, svc=f"account required pam_exec.so quiet {tmp_path}/end\n")
    assert found.code == -1
    assert "ended the process" in found.said


def test_trial__of_whom() -> None:
    with pytest.raises(CommandError, match="no user"):
        user_without_job("nobody-of-this-name")
    assert user_without_job(ME) == ME
