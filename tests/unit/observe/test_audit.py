# SPDX-License-Identifier: Apache-2.0
"""The audit stream: where it goes, and what a line is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.observe.audit import Audit, AuditFault, auth_methods, login_event
from slurm_adopt.observe.metrics import Metrics
from slurm_adopt.observe.notes import Decided

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


def decided(action: str, job: int) -> Decided:
    """A login of alice's whose process has ended long ago."""
    return Decided(1.5, 0.02, "", "account", "alice", 1501, "10.0.0.1", "sshd", "not-asked", "", action, "adopted", job,
                   "only", 2**22 + 1, 1, (), "", {}, ("profile=strict",), False, "yes")  # fmt: skip


def test_audit__a_login_is_told_as_it_was_decided() -> None:
    event = login_event(decided("allow", 7), "resident")
    assert (event["user"], event["uid"], event["verdict"], event["job"]) == ("alice", 1501, "allow", 7)
    assert (event["time"], event["ms"], event["path"], event["from"]) == (
        "1970-01-01T00:00:01.500Z",
        20.0,
        "resident",
        "10.0.0.1",
    )
    assert event["where"] == "", "its process is nowhere"
    assert login_event(decided("deny", 0), "one-shot")["job"] is None
