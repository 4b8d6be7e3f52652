# SPDX-License-Identifier: Apache-2.0
"""Slips in PAM's files and in systemd's units, in a folder that looks like a node: each is one finding, and the right one."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurm_adopt.cli.doctor import pam, units
from slurm_adopt.cli.doctor.finding import Finding
from slurm_adopt.cli.doctor.node import Node

LIBRARY = "lib/security"
ACCOUNT = "account required pam_slurm_adopt.so profile=strict\n"
SESSION = "session required pam_slurm_adopt.so profile=strict\n"
BOTH = ACCOUNT + SESSION
NOLOGIN = "account required pam_nologin.so\n"
CLOSED = "+ : root : ALL\n- : ALL : ALL\n"
UNITS = "usr/lib/systemd/system"
SERVICE = f"{UNITS}/slurm-adopt.service"
SOCKET = f"{UNITS}/slurm-adopt.socket"
DROP_IN = "etc/systemd/system/slurm-adopt.service.d/override.conf"
UNIT = (
    "[Service]\nExecStart=/usr/bin/slurm-adopt serve\nProtectSystem=strict\nReadWritePaths=/run/slurm-adopt\n"
    "CapabilityBoundingSet=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH CAP_SYS_RESOURCE\nAmbientCapabilities=\n"
)
LISTENS = "[Socket]\nListenSequentialPacket=/run/slurm-adopt/login.sock\n"
HEALTHY = {
    **{f"{LIBRARY}/pam_{name}.so": "\x7fELF" for name in ("permit", "unix", "nologin", "access", "deny", "limits")},
    f"{LIBRARY}/pam_slurm_adopt.so": "\x7fELF pam_slurm_adopt_job",
    "etc/pam.d/sshd": BOTH,
    "etc/debian_version": "12\n",
    "usr/bin/slurm-adopt": "#!/bin/sh\n",
    SERVICE: UNIT,
    SOCKET: LISTENS,
}
Check = Callable[[Node], Iterator[Finding]]


def build(folder: Path, changes: dict[str, str]) -> Node:
    for path, text in {**HEALTHY, **changes}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text.encode())
        (folder / path).chmod(0o644)
    return Node(str(folder))


def sshd(text: str, **files: str) -> dict[str, str]:
    return {"etc/pam.d/sshd": text, **{f"etc/pam.d/{name}": more for name, more in files.items()}}


def account(old: str, new: str) -> dict[str, str]:
    return sshd(ACCOUNT.replace(old, new) + SESSION)


def exec_start(arguments: str, more: str = "") -> dict[str, str]:
    return {DROP_IN: f"[Service]\nExecStart=\nExecStart=/usr/bin/slurm-adopt serve {arguments}\n{more}"}


ROWS: list[tuple[str, Check, str, dict[str, str]]] = [
    ("pam-bad-line", pam.check_pam, "a slip in the kind", account("account", "acount")),
    ("pam-bad-line", pam.check_pam, "a slip in another line's kind", sshd(NOLOGIN.replace("account", "accout") + BOTH)),
    ("pam-bad-line", pam.check_pam, "a colon behind the kind", account("account", "account:")),
    ("pam-bad-line", pam.check_pam, "no module", sshd("account required\n" + BOTH)),
    ("pam-bad-line", pam.check_pam, "a blank of a web page before the control", account("account ", "account\u00a0")),
    ("pam-bad-line", pam.check_pam, "one before the module", account("required ", "required\u00a0")),
    ("pam-bad-line", pam.check_pam, "one before an option", account("so ", "so\u2003")),
    ("pam-bad-line", pam.check_pam, "a byte order mark", sshd("\ufeff" + BOTH)),
    ("pam-bad-line", pam.check_pam, "all line ends of another system", sshd((NOLOGIN + BOTH).replace("\n", "\r\n"))),
    ("pam-bad-line", pam.check_pam, "those of a file that is included", {**sshd("@include common-x\n" + BOTH), "etc/pam.d/common-x": NOLOGIN.replace("\n", "\r\n")}),
    ("pam-bad-line", pam.check_pam, "a backslash at the end of the file", sshd(BOTH[:-1] + " \\\n")),
    ("pam-options", pam.check_pam, "a backslash that takes the next line along", sshd(f"{ACCOUNT[:-1]} \\\n{SESSION}")),
    ("pam-no-line", pam.check_pam, "the file of a service that no sshd asks", sshd(NOLOGIN, ssh=BOTH)),
    ("pam-option-idle", pam.check_pam, "strict, and its contrary", account("strict", "strict action_no_jobs=ignore")),
    ("pam-option-idle", pam.check_pam, "a wait that is longer than all", account("strict", "strict prolog_wait=30")),
    ("pam-option-idle", pam.check_pam, "a question that is longer than all", account("strict", "strict caller_timeout=9")),
    ("pam-option-idle", pam.check_pam, "a socket that is not asked", account("strict", "strict mode=oneshot socket=/run/x.sock")),
    ("pam-option-idle", pam.check_pam, "limits on the account line", account("strict", "strict rlimits=job")),
    ("pam-option-idle", pam.check_pam, "the manager on the account line", account("strict", "strict user_manager=refuse")),
    ("pam-option-idle", pam.check_pam, "a move on the session line", sshd(ACCOUNT + SESSION.replace("strict", "strict user_move=yes"))),
    ("pam-option-idle", pam.check_pam, "administrators on the session line", sshd(ACCOUNT + SESSION.replace("strict", "strict allow_groups=wheel"))),
    ("pam-option-idle", pam.check_pam, "the same on both lines is said once", sshd(BOTH.replace("strict", "strict action_adopt_failure=allow"))),
    ("pam-twice", pam.check_pam, "a script at each boot", sshd(ACCOUNT + SESSION * 20)),
    ("pam-options", pam.check_pam, "the same slip on both lines is said once", sshd(BOTH.replace("strict", "strikt"))),
    ("pam-lines-differ", pam.check_pam, "only the account line looks on", account("strict", "strict enforce=no")),
    ("pam-no-jobs-ignored", pam.check_pam, "who has no job is left to nobody", account("profile=strict", "action_no_jobs=ignore action_adopt_failure=deny action_generic_failure=deny")),
    ("pam-refuses-everybody", pam.check_pam, "access.conf for root alone", {**sshd(f"{ACCOUNT}account required pam_access.so\n{SESSION}"), "etc/security/access.conf": CLOSED}),
    ("pam-refuses-everybody", pam.check_pam, "the same before our line", {**sshd(f"account requisite pam_access.so\n{BOTH}"), "etc/security/access.conf": CLOSED.replace("ALL : ALL", "ALL EXCEPT root : ALL")}),
    ("pam-refuses-everybody", pam.check_pam, "a line that denies", sshd(f"{ACCOUNT}account required pam_deny.so\n{SESSION}")),
    ("unit-shadowed", units.check_units, "a whole unit of an earlier installation", {f"usr/local/lib/systemd/system/{SERVICE.rpartition('/')[2]}": UNIT.replace("/usr/bin", "/usr/local/bin")}),
    ("unit-shadowed", units.check_units, "systemctl edit --full", {"etc/systemd/system/slurm-adopt.socket": LISTENS + "Backlog=5\n"}),
    ("unit-command", units.check_units, "a second command", {DROP_IN: "[Service]\nExecStart=/usr/bin/slurm-adopt serve --warn-before 5\n"}),
    ("unit-command", units.check_units, "no command", {DROP_IN: "[Service]\nExecStart=\n"}),
    ("unit-command", units.check_units, "a program that is not there", {DROP_IN: "[Service]\nExecStart=\nExecStart=/usr/local/bin/slurm-adopt serve\n"}),
    ("unit-file", units.check_units, "a folder that is not there", exec_start("--audit-file /var/log/adopt/audit.jsonl")),
    ("unit-file", units.check_units, "a folder that it may not write", {**exec_start("--metrics-file=/var/lib/node/x.prom"), "var/lib/node/y": ""}),
    ("unit-file", units.check_units, "not a path", exec_start("--audit-file audit.jsonl")),
    ("unit-rights", units.check_units, "a user", {DROP_IN: "[Service]\nUser=nobody\n"}),
    ("unit-rights", units.check_units, "no capability", {DROP_IN: "[Service]\nCapabilityBoundingSet=\n"}),
    ("unit-rights", units.check_units, "one capability less", {DROP_IN: "[Service]\nCapabilityBoundingSet=~CAP_SYS_PTRACE\n"}),
    ("unit-not-started", units.check_units, "enabled, and not started", {"etc/systemd/system/sockets.target.wants/slurm-adopt.socket": LISTENS, "run/systemd/system/x": ""}),
    ("unit-socket", units.check_units, "another socket", {"etc/systemd/system/slurm-adopt.socket.d/x.conf": "[Socket]\nListenSequentialPacket=\nListenSequentialPacket=/run/x.sock\n"}),
]  # fmt: skip

FINE: list[tuple[str, Check, dict[str, str]]] = [
    ("nothing", pam.check_pam, {}),
    ("a file that is there to be included", pam.check_pam, sshd("account include site\nsession include site\n", site=BOTH)),
    ("a line for all services", pam.check_pam, sshd("session required pam_permit.so\n" + BOTH, other=ACCOUNT)),
    ("copies of the file", pam.check_pam, sshd(BOTH, **{"sshd.bak": BOTH, "sshd.rpmsave": NOLOGIN + ACCOUNT, "sshd-old": ACCOUNT})),
    ("a line that goes on", pam.check_pam, account("required ", "required \\\n  ")),
    ("a comment in another script", pam.check_pam, sshd(f"# Zugriff\u00a0nur mit Job\n{BOTH}")),
    ("a hint in another script", pam.check_pam, sshd(BOTH.replace("strict", "strict [hint=Fragen? Büro 5]"))),
    ("an include by its path", pam.check_pam, sshd(f"account include /etc/pam.d/common-x\n{BOTH}", **{"common-x": NOLOGIN})),
    ("a dash before the kind", pam.check_pam, sshd(f"-session optional pam_gone.so\n{BOTH}")),
    ("who has no job is left to access.conf", pam.check_pam, {**sshd(f"{ACCOUNT.replace('required', 'sufficient').replace('profile=strict', 'action_no_jobs=ignore action_adopt_failure=deny action_generic_failure=deny')}account required pam_access.so\n{SESSION}"), "etc/security/access.conf": CLOSED}),
    ("access.conf lets in administrators", pam.check_pam, {**sshd(f"{ACCOUNT.replace('required', 'sufficient')}account required pam_access.so\n{SESSION}"), "etc/security/access.conf": CLOSED}),
    ("access.conf lets in a group", pam.check_pam, {**sshd(f"{ACCOUNT}account required pam_access.so\n{SESSION}"), "etc/security/access.conf": f"+ : (hpc) : ALL\n{CLOSED}"}),
    ("a jump over pam_deny", pam.check_pam, sshd(f"account [success=1 default=ignore] pam_unix.so\naccount requisite pam_deny.so\n{BOTH}")),
    ("both lines look on", pam.check_pam, sshd(BOTH.replace("strict", "strict enforce=no"))),
    ("a shorter wait", pam.check_pam, sshd(BOTH.replace("strict", "strict timeout=30 prolog_wait=20 caller_timeout=3"))),
    ("session options on both lines", pam.check_pam, sshd(BOTH.replace("strict", "strict rlimits=job user_manager=refuse user_move=yes"))),
    ("no units", units.check_units, {SERVICE: "", SOCKET: ""}),
    ("units as they are", units.check_units, {}),
    ("the same unit twice", units.check_units, {"etc/systemd/system/slurm-adopt.service": UNIT}),
    ("files that it may write", units.check_units, {**exec_start("--metrics-file /var/lib/node/x.prom", "ReadWritePaths=/var/lib/node\n"), "var/lib/node/y": ""}),
    ("a folder of its own", units.check_units, {**exec_start("--audit-file /run/slurm-adopt/audit.jsonl"), "run/slurm-adopt/x": ""}),
    ("more capabilities", units.check_units, {DROP_IN: "[Service]\nCapabilityBoundingSet=CAP_NET_ADMIN\n"}),
    ("a comment that looks like a setting", units.check_units, {DROP_IN: "[Service]\n#User=nobody\n;ExecStart=\nNice=-5\n"}),
]  # fmt: skip


@pytest.mark.parametrize(("code", "check", "_", "changes"), ROWS, ids=[f"{row[0]}: {row[2]}" for row in ROWS])
def test_doctor_slips__names_it_and_nothing_else(
    code: str, check: Check, _: str, changes: dict[str, str], tmp_path: Path
) -> None:
    assert [finding.code for finding in check(build(tmp_path, changes))] == [code]


@pytest.mark.parametrize(("_", "check", "changes"), FINE, ids=[row[0] for row in FINE])
def test_doctor_slips__is_silent_about_what_is_fine(
    _: str, check: Check, changes: dict[str, str], tmp_path: Path
) -> None:
    assert list(check(build(tmp_path, changes))) == []


def test_doctor_slips__a_masked_unit_is_the_sites_wish(tmp_path: Path) -> None:
    node = build(tmp_path, {DROP_IN: "[Service]\nUser=nobody\n"})
    assert [finding.code for finding in units.check_units(node)] == ["unit-rights"]
    (tmp_path / "etc/systemd/system/slurm-adopt.service").symlink_to("/dev/null")
    assert list(units.check_units(node)) == []


MENDED = [row for row in ROWS if row[0] in ("pam-bad-line", "unit-command", "unit-rights", "unit-shadowed") or "backslash" in row[2]]  # fmt: skip


@pytest.mark.parametrize(("code", "check", "what", "changes"), MENDED, ids=[f"{row[0]}: {row[2]}" for row in MENDED])
def test_doctor_slips__a_mend_that_is_a_command_mends(
    code: str, check: Check, what: str, changes: dict[str, str], tmp_path: Path
) -> None:
    """Typed as it stands, below the folder. What systemd has to be told is left out: it does not run there."""
    node = build(tmp_path, changes)
    mends = [finding.mend for finding in check(node)]
    is_command = mends[0].startswith(("sed ", "LC_ALL=C sed ", "rm "))
    assert is_command == (
        what not in ("a colon behind the kind", "no module", "no command", "a program that is not there")
    )
    if is_command:
        typed = mends[0].replace(" && systemctl daemon-reload", "").replace(" /etc/", f" {tmp_path}/etc/")
        subprocess.run(["sh", "-ec", typed.replace(" /usr/", f" {tmp_path}/usr/")], check=True)
        assert list(check(node)) == []
