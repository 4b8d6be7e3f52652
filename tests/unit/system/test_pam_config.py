# SPDX-License-Identifier: Apache-2.0
"""What a PAM stack consists of, and whether a session would leave its job again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm_adopt.system.host import pam_stack as pam_config
from slurm_adopt.system.host.pam_stack import find_guard, moves_sessions, read_stack

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
    (tmp_path / "pam.d/two").write_text("session required pam_one.so\nsession required pam_two.so\n")
    (tmp_path / "pam.d/ends").write_text("session sufficient pam_one.so\n")
    return tmp_path


def escapes(pam: Path, text: str) -> bool:
    (pam / "pam.d/sshd").write_text(text)
    folders = (str(pam / "pam.d"),)
    return moves_sessions("sshd", folders, str(pam)) and find_guard("sshd", folders) is None


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
        # a second one after ours
        ("@include common-session\n" + OURS + "session optional pam_systemd.so\n", True),
        ("session optional pam_elogind.so\n", True),
        # what may end the stack before ours, or jump over it
        ("@include common-session\nsession sufficient pam_x.so\n" + OURS, True),
        ("@include common-session\nsession [success=done default=ignore] pam_x.so\n" + OURS, True),
        ("@include common-session\nsession [success=1 default=ignore] pam_x.so\n" + OURS, True),
        ("@include common-session\nsession [default=1] pam_x.so\nsession requisite pam_deny.so\n" + OURS, False),
        ("@include common-session\nsession [success=2 default=ignore] pam_x.so\nsession substack two\n" + OURS, True),
        ("@include common-session\nsession [success=1 default=ignore] pam_x.so\nsession substack two\n" + OURS, False),
        ("@include common-session\nsession substack ends\n" + OURS, False),
        ("@include common-session\nsession include ends\n" + OURS, True),
        # ours, and its failure counts for nothing
        ("@include common-session\nsession optional pam_slurm_adopt.so\n", True),
        ("@include common-session\nsession sufficient pam_slurm_adopt.so\n", True),
        ("@include common-session\nsession [success=ok default=ignore] pam_slurm_adopt.so\n", True),
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


def settled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Files that were changed just now count as old; how often each file is opened from now on."""
    opened: dict[str, int] = {}
    really_open = os.open

    def counting(path: str, flags: int) -> int:
        opened[Path(path).name] = opened.get(Path(path).name, 0) + 1
        return really_open(path, flags)

    monkeypatch.setattr(pam_config, "SETTLED_NS", -(10**12))
    monkeypatch.setattr(os, "open", counting)
    (folder / "pam.d/sshd").write_text("@include common-session\nsession optional pam_extra.so\n@include later\n")
    return opened


def modules(folder: Path) -> list[str]:
    return [line.module for line in read_stack("sshd", "session", (str(folder / "pam.d"),))]


def test_pam_config__what_is_unchanged_is_not_read_again(pam: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = settled(pam, monkeypatch)
    first = modules(pam)
    assert first == modules(pam) == ["pam_unix.so", "pam_systemd.so", "pam_extra.so"]
    assert opened == {"sshd": 1, "common-session": 1, "later": 1}


def _grow(pam: Path) -> None:
    with (pam / "pam.d/common-session").open("a") as file:
        file.write("session optional pam_new.so\n")


def _replace(pam: Path) -> None:
    """Another file of the same size, as an editor or a package's installation does it."""
    file = pam / "pam.d/common-session"
    (pam / "pam.d/new").write_text(file.read_text().replace("pam_unix.so", "pam_xinu.so"))
    (pam / "pam.d/new").rename(file)


def _remove(pam: Path) -> None:
    (pam / "pam.d/common-session").unlink()


def _appear(pam: Path) -> None:
    (pam / "pam.d/later").write_text("session optional pam_new.so\n")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_grow, ["pam_unix.so", "pam_systemd.so", "pam_new.so", "pam_extra.so"]),
        (_replace, ["pam_xinu.so", "pam_systemd.so", "pam_extra.so"]),
        (_remove, ["pam_extra.so"]),
        (_appear, ["pam_unix.so", "pam_systemd.so", "pam_extra.so", "pam_new.so"]),
    ],
)
def test_pam_config__every_change_is_seen(
    pam: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], expected: list[str]
) -> None:
    settled(pam, monkeypatch)
    before = modules(pam)
    change(pam)
    assert modules(pam) == expected != before


def test_pam_config__a_file_that_has_just_changed_is_not_remembered(pam: Path) -> None:
    (pam / "pam.d/sshd").write_text("session required pam_one.so\n")
    assert modules(pam) == ["pam_one.so"]
    assert not [key for key in pam_config.KNOWN_STACKS if key[2] == (str(pam / "pam.d"),)]


def test_pam_config__memory_is_bounded(pam: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settled(pam, monkeypatch)
    for number in range(2 * pam_config.KNOWN_STACKS_CAP):
        read_stack(f"service{number}", "session", (str(pam / "pam.d"),))
    assert 0 < len(pam_config.KNOWN_STACKS) <= pam_config.KNOWN_STACKS_CAP


def test_pam_config__words(pam: Path) -> None:
    (pam / "pam.d/x").write_text("session [success=1 default=ignore] pam_a.so [a b] c=d \\\n e\n")
    [line] = read_stack("x", "session", (str(pam / "pam.d"),))
    assert (line.control, line.module, line.args) == ("[success=1 default=ignore]", "pam_a.so", ("a b", "c=d", "e"))
