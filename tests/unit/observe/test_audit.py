# SPDX-License-Identifier: Apache-2.0
"""The audit stream: where it goes, and what a line is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.observe.audit import Audit, AuditFault, auth_methods
from slurm_adopt.observe.metrics import Metrics

ED25519 = "publickey ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB6FEbeNGkLUKtFhTmJZjTnqE6Zap2cWD2R2oJyTyZ6n"


def test_audit__auth_is_shown_as_fingerprint() -> None:
    methods = auth_methods(f"{ED25519}\npassword\nkeyboard-interactive/pam\n")
    assert methods[0].startswith("publickey SHA256:")
    assert len(methods[0]) == len("publickey SHA256:") + 43
    assert methods[1:] == ["password", "keyboard-interactive/pam"]


@given(st.text())
def test_audit__any_auth_text_is_taken(text: str) -> None:
    assert all(isinstance(method, str) for method in auth_methods(text))


def test_audit__a_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    audit = Audit(Metrics(), journal=False, path=str(path))
    audit.write({"event": "login", "user": "a\nb\udcff"})
    path.rename(tmp_path / "audit.1")  # as logrotate does
    audit.write({"event": "end"})
    assert json.loads((tmp_path / "audit.1").read_text()) == {"event": "login", "user": "a\nb\udcff"}
    assert (tmp_path / "audit.1").read_text().count("\n") == 1
    assert json.loads(path.read_text()) == {"event": "end"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_audit__no_link_and_nobody_elses_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "open").write_text("")
    (tmp_path / "open").chmod(0o666)
    for name in ("link", "open", "missing/audit"):
        with pytest.raises(AuditFault):
            Audit(Metrics(), journal=False, path=str(tmp_path / name))
    assert not (tmp_path / "target").exists()


def test_audit__a_line_that_cannot_be_written_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    metrics = Metrics()
    audit = Audit(metrics, journal=False, path=str(folder / "audit"))
    (folder / "audit").unlink()
    folder.rmdir()
    audit.write({"event": "end"})
    assert metrics.value("slurm_adopt_audit_lost_total") == 1
