# SPDX-License-Identifier: Apache-2.0
"""PAM stacks in the shapes that distributions and sites have, and what must be found out from each (tests/corpus/pam)."""

from __future__ import annotations

import configparser
import shutil
from pathlib import Path

import pytest

from slurm_adopt.cli.doctor.node import OUR_MARK, Node
from slurm_adopt.cli.doctor.pam import check_pam
from slurm_adopt.options.parse import parse_options
from slurm_adopt.system.host.pam_known import UserFacts, answers_for
from slurm_adopt.system.host.pam_outlook import is_guarded, session_outlook
from slurm_adopt.system.host.pam_stack import KINDS, MODULE, list_services, read_stack

CORPUS = Path(__file__).parents[2] / "corpus/pam"
CASES = sorted(folder.name for folder in CORPUS.iterdir() if folder.is_dir())


def test_pam_corpus__is_all_here() -> None:
    assert len(CASES) >= 45


def install_modules(root: Path, absent: list[str]) -> None:
    """Every module that a stack names, but for these."""
    stacks = (read_stack(service, kind, str(root)) for service in list_services(str(root)) for kind in KINDS)
    for line in (line for stack in stacks for line in stack.lines if line.what == "module"):
        path = root / (line.module[1:] if line.module.startswith("/") else f"lib/security/{line.module}")
        if line.name not in absent:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(OUR_MARK if line.name == MODULE else b"")
    (root / "lib/security").mkdir(parents=True, exist_ok=True)
    (root / "lib/security/pam_permit.so").touch()


@pytest.mark.parametrize("case", CASES)
def test_pam_corpus__case(tmp_path: Path, case: str) -> None:
    """The corpus has PAM's files; the machine around them is one with cgroup v2 and logind, unless it says otherwise."""
    root = tmp_path / case
    shutil.copytree(CORPUS / case, root)
    parser = configparser.ConfigParser()
    parser.read(root / "expected.ini")
    expected = parser["expected"]
    for folder in ("sys/fs/cgroup", "run/systemd/seats", "etc/systemd/system"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    if expected.get("machine") != "cgroup v1":
        (root / "sys/fs/cgroup/cgroup.controllers").touch()
    if expected.getboolean("masked", False):
        (root / "etc/systemd/system/systemd-logind.service").symlink_to("/dev/null")
    service = expected.get("service", "sshd")
    if "doctor" in expected:
        install_modules(root, expected.get("absent", "").split())
        # PAM's files are those of whoever runs this
        found = {finding.code for finding in check_pam(Node(str(root)))} - {"pam-file-writable"}
        assert found == set(expected["doctor"].split())

    assert session_outlook(service, root=str(root)) == expected["outlook"]
    assert is_guarded(service, lambda _: True, str(root)) == expected.getboolean("guarded")
    ours = [line for line in read_stack(service, "account", str(root)).lines if line.name == MODULE]
    assert any(parse_options(line.args).works_in(service) for line in ours) == expected.getboolean("account")
    for key, value in expected.items():
        if key.startswith("outlook."):
            words = value.replace("(", " ").replace(")", " ").split()
            who = UserFacts(key.partition(".")[2], 1501, service, frozenset(words[1:]))
            assert session_outlook(service, known=answers_for(who, str(root)), root=str(root)) == words[0], key
