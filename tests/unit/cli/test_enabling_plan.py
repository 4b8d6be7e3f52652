# SPDX-License-Identifier: Apache-2.0
"""Where `slurm-adopt enable` puts its lines, on the layouts of several distributions, and what `disable` takes out."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm_adopt.cli.doctor.node import Node
from slurm_adopt.cli.enabling.candidate import Candidate
from slurm_adopt.cli.enabling.plan import Plan, check_options, plan_disable, plan_enable
from slurm_adopt.cli.main import CommandError

ACCOUNT = "account  required  pam_slurm_adopt.so profile=strict\n"
SESSION = "session  required  pam_slurm_adopt.so profile=strict\n"
BOTH = ("account", "session")
DEBIAN = {
    "etc/pam.d/sshd": (
        "@include common-auth\n"
        "account    required     pam_nologin.so\n"
        "@include common-account\n"
        "session [success=ok ignore=ignore module_unknown=ignore default=bad]        pam_selinux.so close\n"
        "@include common-session\n"
        "session    required     pam_limits.so\n"
        "@include common-password\n"
    ),
    "etc/pam.d/common-auth": "auth [success=1 default=ignore] pam_unix.so nullok\nauth requisite pam_deny.so\nauth required pam_permit.so\n",
    "etc/pam.d/common-account": (
        "account [success=1 new_authtok_reqd=done default=ignore] pam_unix.so\n"
        "account requisite pam_deny.so\naccount required pam_permit.so\n"
    ),
    "etc/pam.d/common-session": "session required pam_unix.so\nsession optional pam_systemd.so\n",
    "etc/pam.d/common-password": "password required pam_unix.so\n",
    "etc/pam.d/other": "account required pam_deny.so\nsession required pam_deny.so\n",
}
REDHAT = {
    "etc/pam.d/sshd": (
        "#%PAM-1.0\n"
        "auth       substack     password-auth\n"
        "account    required     pam_sepermit.so\n"
        "account    required     pam_nologin.so\n"
        "account    include      password-auth\n"
        "password   include      password-auth\n"
        "session    required     pam_selinux.so close\n"
        "session    include      password-auth\n"
        "session    include      postlogin\n"
    ),
    "etc/pam.d/password-auth": (
        "auth required pam_unix.so\n"
        "account required pam_unix.so\n"
        "account sufficient pam_localuser.so\n"
        "account required pam_permit.so\n"
        "session required pam_unix.so\n"
        "-session optional pam_systemd.so\n"
    ),
    "etc/pam.d/postlogin": "session optional pam_umask.so\n",
}
SUSE = {
    "etc/pam.d/common-account": "account required pam_unix.so\n",
    "etc/pam.d/common-session": "session required pam_unix.so\n",
    "usr/etc/pam.d/sshd": (
        "auth include common-auth\naccount requisite pam_nologin.so\naccount include common-account\n"
        "password include common-password\nsession required pam_loginuid.so\nsession include common-session\n"
    ),
}


class Layout:
    """A folder that looks like a node."""

    def __init__(self, folder: Path, files: dict[str, str]) -> None:
        self.folder = folder
        for path in ("etc/pam.d", "run", "lib/security"):
            (folder / path).mkdir(parents=True)
        for module in ("pam_permit.so", "pam_slurm_adopt.so", "pam_localuser.so", "pam_nologin.so"):
            (folder / "lib/security" / module).write_bytes(b"\x7fELF pam_slurm_adopt_job")
        for path, text in files.items():
            self.write(path, text)

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        file.chmod(0o644)

    def candidate(self) -> Candidate:
        return Candidate(Node(str(self.folder)), str(self.folder / "run/try"))

    def enable(self, options: str | None = None, kinds: tuple[str, ...] = BOTH, service: str = "sshd") -> Plan:
        candidate = self.candidate()
        try:
            return plan_enable(candidate, service, options, "profile=strict", kinds)
        finally:
            candidate.close()

    def disable(self) -> Plan:
        candidate = self.candidate()
        try:
            return plan_disable(candidate, "sshd")
        finally:
            candidate.close()

    def carry_out(self, plan: Plan) -> str:
        """What the file is afterwards."""
        file = self.folder / plan.path[1:]
        if plan.after is None:
            file.unlink()
            return ""
        self.write(plan.path[1:], plan.after.decode())
        return file.read_text()


@pytest.fixture
def debian(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "node", DEBIAN)


@pytest.fixture
def redhat(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "node", REDHAT)


@pytest.fixture
def suse(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "node", SUSE)


def behind(text: str, line: str) -> str:
    """The line that follows."""
    lines = text.splitlines(True)
    return lines[lines.index(line) + 1]


def test_enable__on_debian_each_line_is_the_last_of_its_kind(debian: Layout) -> None:
    text = debian.carry_out(debian.enable())
    assert behind(text, "@include common-account\n") == ACCOUNT
    assert behind(text, "session    required     pam_limits.so\n") == SESSION
    assert text.replace(ACCOUNT, "").replace(SESSION, "") == DEBIAN["etc/pam.d/sshd"]
    assert not debian.enable().changes
    assert list((debian.folder / "run").iterdir()) == []


def test_enable__on_debian_with_sssd(debian: Layout) -> None:
    """pam-auth-update puts a line into common-account that ends the stack for local users."""
    sssd = "account sufficient pam_localuser.so\naccount [default=bad success=ok user_unknown=ignore] pam_sss.so\n"
    debian.write("etc/pam.d/common-account", DEBIAN["etc/pam.d/common-account"] + sssd)
    text = debian.carry_out(debian.enable())
    assert behind(text, ACCOUNT) == "@include common-account\n"


def test_enable__ahead_of_what_gives_the_session_another_root(debian: Layout) -> None:
    jail = "session required pam_permit.so\nsession required pam_chroot.so\nsession optional pam_permit.so\n"
    (debian.folder / "lib/security/pam_chroot.so").touch()
    debian.write("etc/pam.d/sshd", DEBIAN["etc/pam.d/sshd"] + jail)
    text = debian.carry_out(debian.enable())
    assert behind(text, SESSION) == "session required pam_chroot.so\n"
    assert text.replace(ACCOUNT, "").replace(SESSION, "") == DEBIAN["etc/pam.d/sshd"] + jail


def test_enable__a_file_that_includes_what_is_not_there(debian: Layout) -> None:
    debian.write("etc/pam.d/sshd", "@include common-account\n@include of-another-release\n@include common-session\n")
    with pytest.raises(CommandError, match="has no place for the session line"):
        debian.enable()


def test_enable__on_redhat_the_account_line_comes_before_what_ends_the_stack(redhat: Layout) -> None:
    text = redhat.carry_out(redhat.enable())
    assert behind(text, ACCOUNT) == "account    include      password-auth\n"
    assert text.endswith(SESSION)
    assert not redhat.enable().changes
    assert redhat.carry_out(redhat.disable()) == REDHAT["etc/pam.d/sshd"]


def test_enable__on_suse_the_vendors_file_is_copied_and_goes_again(suse: Layout) -> None:
    plan = suse.enable()
    assert (plan.source, plan.path, plan.before) == ("/usr/etc/pam.d/sshd", "/etc/pam.d/sshd", None)
    text = suse.carry_out(plan)
    assert behind(text, "account include common-account\n") == ACCOUNT
    assert not suse.enable().changes
    gone = suse.disable()
    assert gone.after is None
    suse.carry_out(gone)
    assert not suse.disable().changes
    assert suse.enable().before is None


def test_disable__takes_out_what_it_finds_and_nothing_else(debian: Layout) -> None:
    odd = DEBIAN["etc/pam.d/sshd"].replace("\n", "\n# pam_slurm_adopt.so is not here\n", 1)
    debian.write(
        "etc/pam.d/sshd",
        f"{ACCOUNT}{odd}-session optional \\\n  pam_slurm_adopt_observe.so \\\n  enforce=no\n# the end, without a newline",
    )
    assert debian.carry_out(debian.disable()) == f"{odd}# the end, without a newline"


def test_disable__leaves_what_other_services_have_and_slurms_own(debian: Layout) -> None:
    debian.write("etc/pam.d/common-account", DEBIAN["etc/pam.d/common-account"] + ACCOUNT)
    (debian.folder / "lib/security/pam_slurm_adopt.so").write_bytes(b"\x7fELF another")
    debian.write("etc/pam.d/sshd", DEBIAN["etc/pam.d/sshd"] + SESSION)
    plan = debian.disable()
    assert not plan.changes
    assert plan.notes == (
        "/etc/pam.d/common-account:4 stays: other services have this file as well",
        "/etc/pam.d/sshd:8 stays: it is Slurm's own",
    )


def test_disable__does_not_let_a_jump_land_elsewhere(debian: Layout) -> None:
    jump = "account [success=1 default=ignore] pam_succeed_if.so quiet user in ops\n"
    debian.write("etc/pam.d/sshd", f"{jump}{ACCOUNT}{DEBIAN['etc/pam.d/sshd']}")
    with pytest.raises(CommandError, match="jumps over a line of slurm-adopt"):
        debian.disable()


def test_enable__does_not_let_a_jump_land_elsewhere(redhat: Layout) -> None:
    """The only place for the line is one that a jump leads over."""
    jump = (
        "account [success=1 default=ignore] pam_succeed_if.so quiet uid < 1000\naccount    include      password-auth\n"
    )
    redhat.write("etc/pam.d/sshd", REDHAT["etc/pam.d/sshd"].replace("account    include      password-auth\n", jump))
    plan = redhat.enable()
    assert plan.after is not None
    assert behind(plan.after.decode(), ACCOUNT) == jump.splitlines(True)[0], "before the jump it is in nobody's way"
    debian_like = "account [success=ok default=1] pam_access.so\naccount sufficient pam_localuser.so\naccount required pam_permit.so\n"
    redhat.write("etc/pam.d/sshd", debian_like)
    assert redhat.enable(kinds=("account",)).after == (ACCOUNT + debian_like).encode()


def test_enable__existing_lines_keep_their_control(debian: Layout) -> None:
    """An administrator's own pattern: ours says yes, or pam_access does."""
    own = "account sufficient pam_slurm_adopt.so enforce=adopt\naccount required pam_access.so\n"
    debian.write(
        "etc/pam.d/sshd",
        DEBIAN["etc/pam.d/sshd"].replace("@include common-account\n", f"@include common-account\n{own}"),
    )
    assert "account sufficient pam_slurm_adopt.so enforce=adopt\n" in debian.carry_out(debian.enable())
    text = debian.carry_out(debian.enable("profile=strict"))
    assert "account sufficient pam_slurm_adopt.so profile=strict\naccount required pam_access.so\n" in text
    debian.write("etc/pam.d/sshd", text + ACCOUNT)
    assert not debian.enable("profile=strict").changes
    with pytest.raises(CommandError, match="belong together"):
        debian.enable("enforce=no")


def test_enable__a_line_that_all_services_have_is_not_doubled(debian: Layout) -> None:
    debian.write("etc/pam.d/common-account", DEBIAN["etc/pam.d/common-account"] + ACCOUNT)
    plan = debian.enable()
    assert (
        plan.after
        == DEBIAN["etc/pam.d/sshd"].replace("@include common-password", f"{SESSION}@include common-password").encode()
    )
    assert "/etc/pam.d/common-account:4 is the account line" in plan.notes[0]
    with pytest.raises(CommandError, match="with other options"):
        debian.enable("enforce=no")


def test_enable__another_service_and_one_kind_only(debian: Layout) -> None:
    debian.write("etc/pam.d/sshd-users", "account required pam_nologin.so")
    plan = debian.enable(None, ("account",), "sshd-users")
    assert plan.after == (
        b"account required pam_nologin.so\naccount  required  pam_slurm_adopt.so profile=strict service=sshd-users\n"
    )


def test_enable__text_that_is_no_unicode_stays_as_it_is(debian: Layout) -> None:
    debian.write("etc/pam.d/sshd", "# na\udcefve \x0c\u2028\n" + DEBIAN["etc/pam.d/sshd"])
    plan = debian.enable()
    assert plan.after is not None
    assert plan.after.replace(ACCOUNT.encode(), b"").replace(SESSION.encode(), b"") == plan.text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("enforce=perhaps", "enforce="),
        ("profile=strict;reboot", "cannot stand on a PAM line"),
        ("profile=strict\\", "cannot stand on a PAM line"),
        ("# profile=strict", "cannot stand on a PAM line"),
        ("profile", "cannot stand on a PAM line"),
        ("service=login", "does nothing in the service sshd"),
    ],
)
def test_enable__options_that_the_module_would_not_understand(options: str, says: str) -> None:
    with pytest.raises(CommandError, match=says):
        check_options("sshd", options)


@pytest.mark.parametrize(
    ("service", "says"), [("../shadow", "no name of a PAM service"), ("none", "there is no PAM service")]
)
def test_enable__services_that_are_none(debian: Layout, service: str, says: str) -> None:
    with pytest.raises(CommandError, match=says):
        debian.enable(service=service)


def broken_files() -> Iterator[tuple[str, str, str]]:
    yield "chmod o+w {sshd}", "everybody may write it", "chmod go-w /etc/pam.d/sshd"
    yield "chmod o+w {folder}", "/etc/pam.d: everybody may write it", "chmod go-w /etc/pam.d"
    yield "ln -sf common-auth {sshd}", "is a link to", "cp --remove-destination"
    yield "rm {sshd} && mkfifo {sshd}", "not a regular file", ""


@pytest.mark.parametrize(("command", "says", "mend"), list(broken_files()))
def test_enable__files_that_others_keep_or_write(debian: Layout, command: str, says: str, mend: str) -> None:
    folder = debian.folder / "etc/pam.d"
    subprocess.run(["sh", "-c", command.format(sshd=folder / "sshd", folder=folder)], check=True)
    with pytest.raises(CommandError) as caught:
        debian.enable()
    assert says in str(caught.value)
    assert mend in caught.value.hint
