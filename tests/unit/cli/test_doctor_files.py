# SPDX-License-Identifier: Apache-2.0
"""Checks of files that no test node has (SELinux, another cgroup version, units), below a folder that looks like a node."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurm_adopt.cli.doctor import daemons, helper, kernel, pam, selinux, slurm, sshd, subjects, user_managers
from slurm_adopt.cli.doctor.finding import Finding, as_text, exit_status
from slurm_adopt.cli.doctor.node import Node
from slurm_adopt.cli.doctor.subjects import SUBJECTS
from slurm_adopt.places import HELPER

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
    "proc/self/mounts": "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n",
    "proc/cmdline": "quiet\n",
    "sys/kernel/cgroup/features": "nsdelegate\nfavordynmods\n",
    "sys/kernel/rcu_expedited": "0\n",
    "sys/kernel/rcu_normal": "0\n",
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
    ("kernel-slow-moves", kernel.check_kernel, {"sys/kernel/rcu_normal": "1\n"}),
    ("kernel-slow-moves", kernel.check_kernel, {"sys/kernel/rcu_expedited": None}),
    ("kernel-slow-moves", kernel.check_kernel, {"proc/cmdline": "quiet isolcpus=2-7\n"}),
    ("kernel-no-ptrace", kernel.check_kernel, {"proc/sys/kernel/yama/ptrace_scope": "3\n", "etc/pam.d/sshd": ACCOUNT.replace("strict", "strict user_move=yes")}),
    ("cgroup-version", slurm.check_slurm, {"etc/slurm/cgroup.conf": f"{CGROUP}CgroupPlugin=cgroup/v1\n"}),
    ("slurm-conf-missing", slurm.check_slurm, {"etc/slurm/slurm.conf": None}),
    ("slurm-conf-malformed", slurm.check_slurm, {"etc/slurm/slurm.conf": f"{CONF}SlurmdSpoolDir=here\n"}),
    ("user-manager-drop-in", user_managers.check_user_managers, {"etc/slurm/slurm.conf": f"{CONF}Epilog=/usr/libexec/slurm-adopt/hooks/epilog\n", "etc/pam.d/sshd": SESSION.replace("strict", "strict user_manager=refuse")}),
    ("auth-key-missing", daemons.check_auth, {"etc/slurm/slurm.conf": f"{CONF}AuthType=auth/slurm\n"}),
    ("pam-session-escapes", pam.check_pam, {"run/systemd/seats/seat0": "", "etc/pam.d/sshd": f"{ACCOUNT}session optional pam_systemd.so\nsession [default=1] pam_warn.so\n{SESSION}session optional pam_permit.so\n"}),
    ("auth-key-mode", daemons.check_auth, {"etc/slurm/slurm.conf": f"{CONF}AuthType=auth/slurm\n", "etc/slurm/slurm.key": "x"}),
    ("slurm-container", slurm.check_slurm, {"etc/slurm/job_container.conf": "BasePath=/tmp\n", "etc/slurm/slurm.conf": f"{CONF}JobContainerType=tmpfs\n", "etc/pam.d/sshd": SESSION.replace("strict", "strict join_container=false")}),
    ("slurm-use-pam", slurm.check_slurm, {"etc/slurm/slurm.conf": f"{CONF}UsePAM=UP\n"}),
    ("cgroup-mountpoint", slurm.check_slurm, {"etc/slurm/cgroup.conf": f"{CGROUP}CgroupMountpoint=/cgroup\n"}),
    ("slurm-proctrack", slurm.check_slurm, {"etc/slurm/slurm.conf": f"{CONF}ProctrackType=proctrack/linuxproc\nTaskPlugin=none\n", "etc/slurm/cgroup.conf": "CgroupMountpoint=/cgroup\n"}),
    ("slurm-proctrack", slurm.check_slurm, {"etc/slurm/slurm.conf": f"{CONF}ProctrackType=cgroup\n"}),
]  # fmt: skip
#: What nodes have that public configuration files describe, and is right.
FINE: list[tuple[str, dict[str, str | None]]] = [
    ("plugins without their kinds", {"etc/slurm/slurm.conf": "ClusterName=x\nPrologFlags=Contain\nTaskPlugin=affinity,cgroup\nJobContainerType=none\nNodeName=n1\n"}),
    ("true instead of yes", {"etc/slurm/cgroup.conf": "ConstrainCores=no\nConstrainRAMSpace=True\n"}),
    ("quotes, and keys of old", {"etc/slurm/cgroup.conf": 'CgroupMountpoint="/sys/fs/cgroup"\nCgroupAutomount=yes\nCgroupReleaseAgentDir="/etc/slurm/cgroup"\nTaskAffinity=no\nConstrainRamSpace=yes\n'}),
    ("of containers", {"etc/slurm/cgroup.conf": f"{CGROUP}CgroupPlugin=cgroup/v2\nIgnoreSystemd=yes\nEnableControllers=yes\n"}),
    ("no cgroups at all", {"etc/slurm/cgroup.conf": f"{CGROUP}CgroupPlugin=disabled\nCgroupMountpoint=/cgroup\n"}),
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


@pytest.mark.parametrize("changes", [row[1] for row in FINE], ids=[row[0] for row in FINE])
def test_doctor_files__is_silent_about_what_is_only_written_otherwise(
    changes: dict[str, str | None], tmp_path: Path
) -> None:
    assert list(slurm.check_slurm(node(tmp_path, changes))) == []


@pytest.mark.parametrize(
    ("said", "expected"), [("3 6", ["python-too-old"]), ("3 9 loaded", []), ("3 9", ["python-broken"])]
)
def test_doctor_files__python(said: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No release here has one that is too old."""
    monkeypatch.setattr(helper, "resolve_program", lambda paths: paths[0])
    monkeypatch.setattr(helper, "run", lambda _: said.encode())
    changes: dict[str, str | None] = {HELPER[1:]: "#!/usr/bin/python3 -IS\n"}
    assert [found.code for found in helper.check_python(node(tmp_path, changes))] == expected


def test_doctor_files__selinux_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label = b"system_u:object_r:bin_t:s0\0"
    monkeypatch.setattr("os.getxattr", lambda *_: label)
    [found] = selinux.check_selinux(node(tmp_path, {}))
    assert found.code == "selinux-label"
    assert found.seen.endswith(" has the label system_u:object_r:bin_t:s0")
    label = b"system_u:object_r:slurm_adopt_exec_t:s0\0"
    assert list(selinux.check_selinux(node(tmp_path, {}))) == []


@pytest.mark.parametrize(
    ("penalties", "exempt", "expected"),
    [
        ("crash:90 authfail:5 noauth:1 max:600", "none", ["sshd-penalties"]),
        ("crash:90 authfail:5 noauth:1 max:600", "10.0.0.0/8", []),
        ("crash:90 authfail:0 noauth:1 max:600", "none", []),
        ("no", "none", []),
    ],
)
def test_doctor_files__penalties_of_openssh_9_8(
    penalties: str, exempt: str, expected: list[str], tmp_path: Path
) -> None:
    """As `sshd -T` of OpenSSH 10.0 says them."""
    settings = {"persourcepenalties": penalties, "persourcepenaltyexemptlist": exempt}
    server = sshd.Server("sshd", "/usr/sbin/sshd", (), sshd.DEFAULT_CONFIG, "sshd")
    assert [found.code for found in sshd.check_times(node(tmp_path, {}), server, "sshd", settings)] == expected


def test_doctor_files__a_connection_for_each_match_block(tmp_path: Path) -> None:
    config = tmp_path / "sshd_config"
    config.write_text(
        'Port 22\nMatch User "alice" LocalPort 2222\n  PermitTTY no\nmatch localaddress=10.0.0.1/8 rdomain=v\nMatch all\n'
    )
    assert sshd._match_specs(str(config)) == [
        "user=alice,host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=2222",
        "user=nobody,host=localhost,addr=127.0.0.1,laddr=10.0.0.1,lport=22,rdomain=v",
        "user=nobody,host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22",
    ]


def test_doctor_files__a_pam_service_for_some_logins_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `sshd -T` and `sshd -T -C` of OpenSSH 10.0 say it."""
    config = tmp_path / "sshd_config"
    config.write_text("Match User alice\n  PAMServiceName other\n")
    said = ["usepam yes\npamservicename sshd\n", "usepam yes\npamservicename other\n"]
    monkeypatch.setattr(sshd, "run", lambda _: said)
    server = sshd.Server("sshd", "/usr/sbin/sshd", (), str(config), "sshd")
    [found] = sshd.check_server(node(tmp_path, {}), server)
    assert found.code == "sshd-pam-service"
    assert "uses in a Match block the PAM service other" in found.seen


@pytest.mark.parametrize(("state", "expected"), [(5, ["clock-not-synchronized"]), (0, [])])
def test_doctor_files__clock(state: int, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def adjtimex(self, _: object) -> int:
            return state

    monkeypatch.setattr("ctypes.CDLL", lambda _: Library())
    assert [found.code for found in daemons.check_clock()] == expected


def test_doctor_files__a_check_that_fails_costs_its_own_subject(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Node) -> Iterator[Finding]:
        yield Finding("pam-twice", "warning", "it", "so", "thus")
        raise KeyError("nobody has thought of this")

    def works(_: Node) -> Iterator[Finding]:
        yield Finding("lingering", "warning", "it", "so", "thus")

    monkeypatch.setattr(subjects, "SUBJECTS", (("one", fails), ("two", works)))
    monkeypatch.setattr(subjects, "check_trial", lambda *_: iter(()))
    found = subjects.look_at()
    assert [finding.code for finding in found] == ["pam-twice", "check-failed", "lingering"]
    assert "nobody has thought of this" in found[1].seen


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
