# SPDX-License-Identifier: Apache-2.0
"""What a PAM stack consists of, and whether a session would leave its job again.

That libpam reads a stack as this reader does is shown in tests/libpam.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm_adopt.system.host import pam_stack as pam_config
from slurm_adopt.system.host.pam_known import UserFacts, answers_for, groups_in_question
from slurm_adopt.system.host.pam_outlook import is_guarded, is_there, session_outlook
from slurm_adopt.system.host.pam_stack import KnownStacks, PamLine, list_services, read_stack
from slurm_adopt.system.host.pam_walk import LEAVES, STAYS, UNKNOWN

OURS = "session required pam_slurm_adopt.so profile=strict\n"
COMMON = "@include common-session\n"
UNIX = "session required pam_unix.so\n"
SYSTEMD = "session optional pam_systemd.so\n"


@pytest.fixture
def pam(tmp_path: Path) -> Path:
    """A v2 machine with logind, and Debian's way of writing stacks."""
    for folder in ("sys/fs/cgroup", "run/systemd/seats", "etc/pam.d"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cgroup.controllers").touch()
    (tmp_path / "etc/pam.d/common-session").write_text(
        "session required pam_unix.so\n-session optional pam_systemd.so # why\n"
    )
    (tmp_path / "etc/pam.d/two").write_text("session required pam_one.so\nsession required pam_two.so\n")
    (tmp_path / "etc/pam.d/ends").write_text("session sufficient pam_one.so\n")
    return tmp_path


def outlook(pam: Path, text: str) -> str:
    (pam / "etc/pam.d/sshd").write_text(text)
    return session_outlook("sshd", root=str(pam))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (COMMON, LEAVES),
        ("session include common-session\n", LEAVES),
        ("session include /etc/pam.d/common-session\n", LEAVES),
        ("@include /etc/pam.d/common-session\n", LEAVES),
        ("SESSION Include common-session\n", LEAVES),
        ("session optional \\\n pam_systemd.so\n", LEAVES),
        (OURS + COMMON, LEAVES),
        (COMMON + OURS, STAYS),
        # where no module is, the line refuses everybody, or nobody
        (COMMON + "-session [success=ok default=bad] /nowhere/pam_slurm_adopt.so\n", STAYS),
        (COMMON + "-session [module_unknown=ignore default=bad] /nowhere/pam_slurm_adopt.so\n", LEAVES),
        (COMMON + "session [success=ok default=bad ignore=ignore] pam_slurm_adopt.so\n", STAYS),
        ("session required pam_unix.so\n", STAYS),
        ("account required pam_systemd.so\n", STAYS),
        ("#session optional pam_systemd.so\n", STAYS),
        # a second one after ours
        (COMMON + OURS + SYSTEMD, LEAVES),
        ("session optional pam_elogind.so\n", LEAVES),
        # what may end the stack before ours, or jump over it
        (COMMON + "session sufficient pam_x.so\n" + OURS, UNKNOWN),
        (COMMON + "session [success=done default=ignore] pam_x.so\n" + OURS, UNKNOWN),
        (COMMON + "session [success=1 default=ignore] pam_x.so\n" + OURS, UNKNOWN),
        (COMMON + "session [default=1] pam_x.so\nsession requisite pam_deny.so\n" + OURS, STAYS),
        (COMMON + "session [success=2 default=ignore] pam_x.so\nsession substack two\n" + OURS, UNKNOWN),
        (COMMON + "session [success=1 default=ignore] pam_x.so\nsession substack two\n" + OURS, STAYS),
        (COMMON + "session substack ends\n" + OURS, STAYS),
        (COMMON + "session include ends\n" + OURS, UNKNOWN),
        # ours, and its failure counts for nothing
        (COMMON + "session optional pam_slurm_adopt.so\n", UNKNOWN),
        (COMMON + "session sufficient pam_slurm_adopt.so\n", UNKNOWN),
        (COMMON + "session [success=ok default=ignore] pam_slurm_adopt.so\n", UNKNOWN),
        # a jump over pam_systemd, for some or for all
        ("session [default=1 success=ignore] pam_listfile.so item=user file=/x\n-" + SYSTEMD + UNIX, UNKNOWN),
        ("session [success=1 default=ignore] pam_succeed_if.so user notingroup admins\n" + SYSTEMD + UNIX, UNKNOWN),
        ("session [default=1] pam_x.so\n" + SYSTEMD + UNIX, STAYS),
        # and where nothing is left behind it, libpam refuses the session
        ("session [success=1 default=ignore] pam_x.so\n" + SYSTEMD, LEAVES),
        # a jump over more lines than there are fails the session, as libpam does it
        ("session [success=3 default=ignore] pam_x.so\n" + SYSTEMD, LEAVES),
        # nobody gets a session out of this one
        (SYSTEMD + "session requisite\n", STAYS),
        # what libpam has no one opinion of
        ("session required pam_unix.so \\\n\n" + OURS, UNKNOWN),
        ("@include nowhere\n", UNKNOWN),
        (COMMON + OURS + "session optional pam_x.so \\\n", UNKNOWN),
    ],
)
def test_pam_config__session_outlook(pam: Path, text: str, expected: str) -> None:
    assert outlook(pam, text) == expected


def test_pam_config__other_options_of_our_line_are_the_callers_to_judge(pam: Path) -> None:
    (pam / "etc/pam.d/sshd").write_text(COMMON + OURS)
    assert session_outlook("sshd", lambda line: "profile=strict" in line.args, root=str(pam)) == STAYS
    assert session_outlook("sshd", lambda line: "service=*" in line.args, root=str(pam)) == LEAVES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OURS, True),
        ("session required pam_unix.so\n", False),
        (COMMON + "session sufficient pam_x.so\n" + OURS, False),
        ("session optional pam_slurm_adopt.so\n" + UNIX, False),
        ("", False),
    ],
)
def test_pam_config__a_line_that_all_sessions_come_by(pam: Path, text: str, expected: bool) -> None:
    (pam / "etc/pam.d/sshd").write_text(text)
    assert is_guarded("sshd", lambda _: True, str(pam)) == expected


@pytest.mark.parametrize("missing", ["sys/fs/cgroup/cgroup.controllers", "run/systemd/seats"])
def test_pam_config__nothing_moves_a_session_on_v1_or_without_logind(pam: Path, missing: str) -> None:
    gone = pam / missing
    gone.rmdir() if gone.is_dir() else gone.unlink()
    assert outlook(pam, COMMON) == STAYS


@pytest.mark.parametrize(
    ("unit", "process", "expected"),
    [
        (None, None, LEAVES),
        ("etc/systemd/system", None, STAYS),
        ("run/systemd/system", None, STAYS),
        ("etc/systemd/system", "", STAYS),
        # masked, and not stopped
        ("etc/systemd/system", "612\n", LEAVES),
    ],
)
def test_pam_config__logind_masked_after_boot(pam: Path, unit: str | None, process: str | None, expected: str) -> None:
    """Its sign in /run stays behind."""
    if unit is not None:
        (pam / unit).mkdir(parents=True)
        (pam / unit / "systemd-logind.service").symlink_to("/dev/null")
    if process is not None:
        cgroup = pam / "sys/fs/cgroup/system.slice/systemd-logind.service"
        cgroup.mkdir(parents=True)
        (cgroup / "cgroup.procs").write_text(process)
    assert outlook(pam, COMMON) == expected


@pytest.mark.parametrize("folder", ["lib/security", "usr/lib64/security", "usr/lib/aarch64-linux-gnu/security"])
def test_pam_config__a_module_that_is_not_installed(pam: Path, folder: str) -> None:
    """libpam passes over `-session optional pam_systemd.so` then; a required one fails."""
    assert outlook(pam, COMMON) == LEAVES, "nobody knows where modules are"
    modules = pam / folder
    modules.mkdir(parents=True)
    (modules / "pam_permit.so").touch()
    assert outlook(pam, COMMON) == STAYS
    assert outlook(pam, "session required pam_systemd.so\nsession optional pam_elogind.so\n") == STAYS
    (modules / "pam_systemd.so").touch()
    assert outlook(pam, COMMON) == LEAVES
    ours = COMMON + "session [success=ok module_unknown=ignore default=bad] pam_slurm_adopt.so\n"
    assert outlook(pam, ours) == LEAVES
    (modules / "pam_slurm_adopt.so").touch()
    assert outlook(pam, ours) == STAYS


def test_pam_config__a_module_by_its_path(pam: Path) -> None:
    assert not is_there("/opt/pam_systemd.so", str(pam))
    (pam / "opt").mkdir()
    (pam / "opt/pam_systemd.so").touch()
    assert is_there("/opt/pam_systemd.so", str(pam))


@pytest.mark.parametrize("directory", ["usr/lib/pam.d", "usr/etc/pam.d", "usr/share/pam.d"])
def test_pam_config__files_of_the_distribution_and_of_the_vendor(pam: Path, directory: str) -> None:
    """The site's file goes first; what it includes may be anywhere."""
    vendor = pam / directory
    vendor.mkdir(parents=True)
    (vendor / "sshd").write_text("session include common-session\nsession include more\n")
    (vendor / "common-session").write_text("session required pam_vendor.so\n")
    (vendor / "more").write_text("session optional pam_more.so\n")
    assert modules(pam) == ["pam_unix.so", "pam_systemd.so", "pam_more.so"]
    assert session_outlook("sshd", root=str(pam)) == LEAVES
    assert "more" in list_services(str(pam))
    (pam / "etc/pam.d/sshd").write_text("session required pam_site.so\n")
    assert modules(pam) == ["pam_site.so"]


def test_pam_config__other_is_for_services_without_lines(pam: Path) -> None:
    (pam / "etc/pam.d/other").write_text("session required pam_other.so\n")
    assert modules(pam) == ["pam_other.so"]
    (pam / "etc/pam.d/sshd").write_text("account required pam_unix.so\n")
    assert modules(pam) == ["pam_other.so"]
    (pam / "etc/pam.d/sshd").write_text("session required pam_unix.so\n")
    assert modules(pam) == ["pam_unix.so"]


def test_pam_config__one_file_for_all_services(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/pam.conf").write_text(
        "SSHD session required pam_one.so\nlogin session required pam_two.so\n"
        "sshd account required pam_no.so\nother session required pam_three.so\n"
    )
    assert modules(tmp_path) == ["pam_one.so"]
    assert [line.module for line in read_stack("cron", "session", str(tmp_path)).lines] == ["pam_three.so"]


def line_of(text: str) -> PamLine:
    module, *args = text.split()
    return PamLine("session", "required", module, tuple(args), False, "x:1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pam_permit.so", True),
        ("pam_deny.so", False),
        ("pam_succeed_if.so quiet user = alice", True),
        ("pam_succeed_if.so user != alice", False),
        ("pam_succeed_if.so user in root:alice", True),
        ("pam_succeed_if.so user notin root:alice", False),
        ("pam_succeed_if.so uid >= 1000 quiet", True),
        ("pam_succeed_if.so uid lt 1000", False),
        ("pam_succeed_if.so uid >= 1000 user = bob", False),
        ("pam_succeed_if.so user ingroup admins:users", True),
        ("pam_succeed_if.so user notingroup users", False),
        ("pam_succeed_if.so user ingroup admins", False),
        ("pam_succeed_if.so service = sshd", True),
        # not known
        ("pam_succeed_if.so shell = /bin/sh", None),
        ("pam_succeed_if.so user =~ a*", None),
        ("pam_succeed_if.so use_uid user = alice", None),
        ("pam_succeed_if.so user = bob shell = /bin/sh", False),
        ("pam_succeed_if.so shell = /bin/sh user = bob", None),
        ("pam_succeed_if.so", None),
        ("pam_listfile.so item=user sense=allow file=/etc/admins onerr=fail", False),
        ("pam_listfile.so item=user sense=deny file=/etc/admins onerr=fail", True),
        ("pam_listfile.so item=user sense=allow file=/etc/users onerr=fail", True),
        ("pam_listfile.so item=group sense=allow file=/etc/users", None),
        ("pam_listfile.so item=user sense=allow file=/etc/nowhere", None),
        ("pam_listfile.so item=user sense=allow file=/etc/everybodys", None),
        ("pam_listfile.so item=user sense=allow file=/etc/users apply=root", None),
        ("pam_localuser.so", False),
        ("pam_access.so", None),
    ],
)
def test_pam_config__what_a_module_will_answer_for_a_user(tmp_path: Path, text: str, expected: bool | None) -> None:
    (tmp_path / "etc").mkdir()
    for name, users in (("admins", "root\nadmin\n"), ("users", "bob\nalice\n"), ("everybodys", "alice\n")):
        (tmp_path / "etc" / name).write_text(users)
    (tmp_path / "etc/everybodys").chmod(0o666)
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nmalice:x:7:7::/:/bin/sh\n")
    known = answers_for(UserFacts("alice", 1501, "sshd", frozenset({"users"})), str(tmp_path))
    answer = known(line_of(text))
    assert (None if answer is None else [code == 0 for code, _ in answer]) == (None if expected is None else [expected])


def test_pam_config__groups_that_have_to_be_looked_up() -> None:
    lines = tuple(
        line_of(f"pam_succeed_if.so {words}")
        for words in ("user ingroup a:b", "uid >= 1 user notingroup c", "user in d:e")
    )
    assert groups_in_question((*lines, line_of("pam_x.so user ingroup f"))) == ("a", "b", "c")


@pytest.mark.parametrize(("user", "expected"), [("alice", STAYS), ("admin", LEAVES)])
def test_pam_config__the_stack_of_slurms_documentation(pam: Path, user: str, expected: str) -> None:
    """Only who is on the list gets a session of logind's."""
    (pam / "etc/admins").write_text("root\nadmin\n")
    (pam / "etc/pam.d/sshd").write_text(
        "session [default=1 success=ignore] pam_listfile.so item=user sense=allow file=/etc/admins onerr=fail\n"
        "-session optional pam_systemd.so\nsession required pam_unix.so\n"
    )
    known = answers_for(UserFacts(user, 1501, "sshd"), str(pam))
    assert session_outlook("sshd", known=known, root=str(pam)) == expected
    assert session_outlook("sshd", root=str(pam)) == UNKNOWN


def test_pam_config__a_stack_that_includes_itself_ends(pam: Path) -> None:
    (pam / "etc/pam.d/sshd").write_text("session include sshd\nsession include sshd\nsession required pam_unix.so\n")
    assert read_stack("sshd", "session", str(pam)).doubts
    assert outlook(pam, "@include sshd\n" + COMMON + OURS) == UNKNOWN


#: Each test has a folder of its own.
STACKS = KnownStacks()


def settled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Files that were changed just now count as old; how often each file is opened from now on."""
    opened: dict[str, int] = {}
    really_open = os.open

    def counting(path: str, flags: int) -> int:
        opened[Path(path).name] = opened.get(Path(path).name, 0) + 1
        return really_open(path, flags)

    monkeypatch.setattr(pam_config, "SETTLED_NS", -(10**12))
    monkeypatch.setattr(os, "open", counting)
    (folder / "etc/pam.d/sshd").write_text("@include common-session\nsession optional pam_extra.so\n@include later\n")
    return opened


def modules(folder: Path) -> list[str]:
    return [line.module for line in STACKS.read("sshd", "session", str(folder)).lines]


def test_pam_config__what_is_unchanged_is_not_read_again(pam: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = settled(pam, monkeypatch)
    first = modules(pam)
    assert first == modules(pam) == ["pam_unix.so", "pam_systemd.so", "pam_extra.so"]
    assert opened == {"sshd": 1, "common-session": 1, "later": 4}


def _grow(pam: Path) -> None:
    with (pam / "etc/pam.d/common-session").open("a") as file:
        file.write("session optional pam_new.so\n")


def _replace(pam: Path) -> None:
    """Another file of the same size, as an editor or a package's installation does it."""
    file = pam / "etc/pam.d/common-session"
    (pam / "etc/pam.d/new").write_text(file.read_text().replace("pam_unix.so", "pam_xinu.so"))
    (pam / "etc/pam.d/new").rename(file)


def _remove(pam: Path) -> None:
    (pam / "etc/pam.d/common-session").unlink()


def _appear(pam: Path) -> None:
    (pam / "etc/pam.d/later").write_text("session optional pam_new.so\n")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_grow, ["pam_unix.so", "pam_systemd.so", "pam_new.so", "pam_extra.so"]),
        (_replace, ["pam_xinu.so", "pam_systemd.so", "pam_extra.so"]),
        (_remove, []),
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
    (pam / "etc/pam.d/sshd").write_text("session required pam_one.so\n")
    stacks = KnownStacks()
    assert [line.name for line in stacks.read("sshd", "session", str(pam)).lines] == ["pam_one.so"]
    assert not stacks.known


def test_pam_config__memory_is_bounded(pam: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settled(pam, monkeypatch)
    stacks = KnownStacks()
    sizes = []
    for number in range(2 * pam_config.KNOWN_STACKS_CAP):
        stacks.read(f"service{number}", "session", str(pam))
        sizes.append(len(stacks.known))
    assert max(sizes) == pam_config.KNOWN_STACKS_CAP
    assert min(sizes) == 1


def test_pam_config__words(pam: Path) -> None:
    (pam / "etc/pam.d/x").write_text("session [success=1 default=ignore] pam_a.so [a b] c=d \\\n e\n")
    [line] = read_stack("x", "session", str(pam)).lines
    assert (line.control, line.module, line.args) == ("success=1 default=ignore", "pam_a.so", ("a b", "c=d", "e"))
