# SPDX-License-Identifier: Apache-2.0
"""What a PAM stack consists of, and whether a session would leave its job again."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurm_adopt.system.pam_config import read_stack, session_escapes

OURS = "session required pam_slurm_adopt.so profile=strict\n"


@pytest.fixture
def pam(tmp_path: Path) -> Path:
    """A v2 machine with logind, and Debian's way of writing stacks."""
    for folder in ("sys/fs/cgroup", "run/systemd/seats", "pam.d"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cgroup.controllers").touch()
    (tmp_path / "pam.d/common-session").write_text(
        "session required pam_unix.so\n-session optional pam_systemd.so # why\n"
    )
    return tmp_path


def escapes(pam: Path, text: str) -> bool:
    (pam / "pam.d/sshd").write_text(text)
    return session_escapes("sshd", (str(pam / "pam.d"),), str(pam))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@include common-session\n", True),
        ("session include common-session\n", True),
        (OURS + "@include common-session\n", True),
        ("@include common-session\n" + OURS, False),
        ("@include common-session\n-session [success=ok default=bad] /lib/security/pam_slurm_adopt.so\n", False),
        ("session required pam_unix.so\n", False),
        ("account required pam_systemd.so\n", False),
        ("#session optional pam_systemd.so\n", False),
    ],
)
def test_pam_config__session_escapes(pam: Path, text: str, expected: bool) -> None:
    assert escapes(pam, text) == expected


@pytest.mark.parametrize("missing", ["sys/fs/cgroup/cgroup.controllers", "run/systemd/seats"])
def test_pam_config__nothing_moves_a_session_on_v1_or_without_logind(pam: Path, missing: str) -> None:
    gone = pam / missing
    gone.rmdir() if gone.is_dir() else gone.unlink()
    assert not escapes(pam, "@include common-session\n")


def test_pam_config__a_stack_that_includes_itself_ends(pam: Path) -> None:
    (pam / "pam.d/sshd").write_text("@include sshd\nsession required pam_unix.so\n")
    assert read_stack("sshd", "session", (str(pam / "pam.d"),))


def test_pam_config__words(pam: Path) -> None:
    (pam / "pam.d/x").write_text("session [success=1 default=ignore] pam_a.so [a b] c=d \\\n e\n")
    [line] = read_stack("x", "session", (str(pam / "pam.d"),))
    assert (line.control, line.module, line.args) == ("[success=1 default=ignore]", "pam_a.so", ("a b", "c=d", "e"))
