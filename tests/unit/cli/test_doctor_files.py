# SPDX-License-Identifier: Apache-2.0
"""Checks of files that no test node has (SELinux, another cgroup version, units), below a folder that looks like a node."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurm_adopt.cli.doctor import daemons, kernel, selinux, slurm, user_managers
from slurm_adopt.cli.doctor.finding import Finding, as_text, exit_status
from slurm_adopt.cli.doctor.node import Node
from slurm_adopt.cli.doctor.subjects import SUBJECTS

SOURCE = Path(__file__).parents[3] / "src" / "slurm_adopt" / "cli" / "doctor"
GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "doctor.md"
ACCOUNT = "account required pam_slurm_adopt.so profile=strict\n"
SESSION = "session required pam_slurm_adopt.so profile=strict\n"
CONF = "ClusterName=x\nPrologFlags=contain\nTaskPlugin=task/cgroup\nNodeName=n1\n"
CGROUP = "ConstrainCores=yes\n"
SE = "sys/fs/selinux/"
POLICY = f"{SE}booleans/slurm_adopt_join_namespaces"
HEALTHY = {
    "etc/pam.d/sshd": ACCOUNT + SESSION,
    "etc/slurm/slurm.conf": CONF,
    "etc/slurm/cgroup.conf": CGROUP,
    "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
    "proc/sys/kernel/yama/ptrace_scope": "1\n",
    "proc/sys/kernel/osrelease": "6.1.0-18-amd64\n",
    "proc/mounts": "cgroup2 /sys/fs/cgroup cgroup2 rw,favordynmods 0 0\n",
    f"{SE}enforce": "1",
    POLICY: "1 1\n",
}
Check = Callable[[Node], Iterator[Finding]]


def node(folder: Path, changes: dict[str, str | None]) -> Node:
    for path, text in {**HEALTHY, **changes}.items():
        if text is not None:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
            (folder / path).chmod(0o644)
    return Node(str(folder))


ROWS: list[tuple[str, Check, dict[str, str | None]]] = [
    ("selinux-policy-missing", selinux.check_selinux, {POLICY: None}),
    ("selinux-boolean", selinux.check_selinux, {f"{SE}booleans/slurm_adopt_job_limits": "0 0\n", "etc/pam.d/sshd": SESSION.replace("strict", "strict rlimits=job")}),
    ("selinux-boolean", selinux.check_selinux, {POLICY: "0 0\n", "etc/pam.d/sshd": SESSION, "etc/slurm/slurm.conf": f"{CONF}JobContainerType=job_container/tmpfs\n"}),
    ("kernel-slow-moves", kernel.check_kernel, {"proc/mounts": "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"}),
    ("kernel-no-ptrace", kernel.check_kernel, {"proc/sys/kernel/yama/ptrace_scope": "3\n", "etc/pam.d/sshd": ACCOUNT.replace("strict", "strict user_move=yes")}),
    ("cgroup-version", slurm.check_slurm, {"etc/slurm/cgroup.conf": f"{CGROUP}CgroupPlugin=cgroup/v1\n"}),
    ("slurm-conf-missing", slurm.check_slurm, {"etc/slurm/slurm.conf": None}),
    ("slurm-conf-malformed", slurm.check_slurm, {"etc/slurm/slurm.conf": f"{CONF}SlurmdSpoolDir=here\n"}),
    ("user-manager-drop-in", user_managers.check_user_managers, {"etc/slurm/slurm.conf": f"{CONF}Epilog=/usr/libexec/slurm-adopt/hooks/epilog\n", "etc/pam.d/sshd": SESSION.replace("strict", "strict user_manager=refuse")}),
    ("auth-key-missing", daemons.check_auth, {"etc/slurm/slurm.conf": f"{CONF}AuthType=auth/slurm\n"}),
    ("auth-key-mode", daemons.check_auth, {"etc/slurm/slurm.conf": f"{CONF}AuthType=auth/slurm\n", "etc/slurm/slurm.key": "x"}),
]  # fmt: skip


@pytest.mark.parametrize(("code", "check", "changes"), ROWS, ids=[row[0] for row in ROWS])
def test_doctor_files__names_the_fault(code: str, check: Check, changes: dict[str, str | None], tmp_path: Path) -> None:
    found = [finding.code for finding in check(node(tmp_path, changes)) if finding.code != "clock-not-synchronized"]
    assert found == [code]


@pytest.mark.parametrize(
    "check", [selinux.check_selinux, kernel.check_kernel, slurm.check_slurm, user_managers.check_user_managers]
)
def test_doctor_files__is_silent_on_a_healthy_folder(check: Check, tmp_path: Path) -> None:
    assert list(check(node(tmp_path, {}))) == []
    assert list(selinux.check_selinux(Node(f"{tmp_path}/empty"))) == []


def test_doctor_files__every_code_stands_in_the_guide() -> None:
    text = "".join(path.read_text() for path in SOURCE.glob("*.py"))
    codes = set(re.findall(r'Finding\(\s*"([a-z-]+)"', text))
    guide = set(re.findall(r"`([a-z-]+)`", GUIDE.read_text()))
    assert len(codes) > 70
    assert codes <= guide, codes - guide
    assert len({name for name, _ in SUBJECTS}) == len(SUBJECTS)


def test_doctor_files__a_finding_is_complete_and_harmless() -> None:
    found = Finding("pam-no-line", "error", "seen \x1b[2J" + "x y " * 40, "why", "one\ntwo")
    lines = list(as_text(found, 80, colour=False))
    assert "\x1b" not in "".join(lines)
    assert max(map(len, lines)) <= 80
    assert lines[-2:] == ["  mend  one", "        two"]
    assert exit_status([found]) == 2
    assert exit_status([Finding("a", "note", "b", "c", "d")]) == 0
    with pytest.raises(ValueError, match="incomplete"):
        Finding("a", "error", "", "why", "mend")
