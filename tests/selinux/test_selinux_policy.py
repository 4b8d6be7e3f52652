# SPDX-License-Identifier: Apache-2.0
"""The policy module compiles against the distribution's policy, and gives sshd no more than it says."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from lab.machine import LabError
from lab.selinux import SOURCES, compile_policy

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the policy sources live in a private root")


def rules(text: str) -> str:
    """The policy without comments."""
    return re.sub(r"#.*", "", text)


def without_tunables(text: str) -> str:
    """Only what holds with every boolean off."""
    return re.sub(r"tunable_policy\(`.*?^'\)", "", rules(text), flags=re.DOTALL | re.MULTILINE)


@needs_root
def test_selinux_policy__compiles(tmp_path: Path) -> None:
    said = compile_policy(tmp_path / "slurm_adopt.pp")
    assert (tmp_path / "slurm_adopt.pp").stat().st_size > 1000
    assert not re.search("warning|deprecated|obsolete", said, re.IGNORECASE), said


@needs_root
def test_selinux_policy__a_mistake_is_found(tmp_path: Path) -> None:
    shutil.copytree(SOURCES, tmp_path / "selinux")
    with (tmp_path / "selinux/slurm_adopt.te").open("a") as te:
        te.write("allow sshd_t no_such_type_t:file read;\n")
    with pytest.raises(LabError, match="no_such_type_t"):
        compile_policy(tmp_path / "slurm_adopt.pp", sources=tmp_path / "selinux")


def test_selinux_policy__sshd_stays_small() -> None:
    """Every rule that sshd_t is the subject of, with the booleans off: starting the helper, asking the service."""
    text = without_tunables((SOURCES / "slurm_adopt.te").read_text())
    subject = re.findall(r"^\s*(?:allow (?=sshd_t)|\w+\((?=sshd_t))(.*)$", text, re.MULTILINE)
    assert subject == [
        "sshd_t, slurm_adopt_exec_t, slurm_adopt_t)",
        "sshd_t slurm_adopt_t:process { noatsecure sigkill };",
        "sshd_t, slurm_adopt_runtime_t, slurm_adopt_runtime_t, slurm_adopt_t)",
    ]
    assert "sys_admin" not in text


def test_selinux_policy__labels() -> None:
    """The hooks keep bin_t: slurmd runs them, in its own domain."""
    text = (SOURCES / "slurm_adopt.fc").read_text()
    patterns = [line.split()[0] for line in text.splitlines() if line.startswith("/")]
    hook = "/usr/libexec/slurm-adopt/hooks/prolog"
    assert not any(re.fullmatch(pattern, hook) for pattern in patterns)
    for path in ("/usr/libexec/slurm-adopt/helper", "/run/slurm-adopt", "/run/slurm-adopt/login.sock"):
        assert any(re.fullmatch(pattern, path) for pattern in patterns), path
