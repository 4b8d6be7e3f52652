# SPDX-License-Identifier: Apache-2.0
"""What the one-shot helper leaves for the service."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.observe import notes
from slurm_adopt.observe.notes import Decided, take_notes, write_note
from slurm_adopt.record import replace

ONE = Decided(1.5, 0.02, "", "account", "alice", 1501, "10.0.0.1", "sshd", "not-asked", "", "allow", "adopted", 7, "only",
              100, 12345, ("8:step-gone",), "publickey ssh-ed25519 AAAA\n",
              {"steps": [(7, "running", (1, 2, 7), 9728)]}, ("profile=strict",), False, "yes")  # fmt: skip


def test_notes__come_back_once_and_in_order(tmp_path: Path) -> None:
    path = str(tmp_path / "notes")
    assert take_notes(path) == []
    other = replace(ONE, user="bob", failed=())
    write_note(ONE, path)
    write_note(other, path)
    assert take_notes(path) == [ONE, other]
    assert take_notes(path) == []
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_notes__without_a_service_nothing_is_made(tmp_path: Path) -> None:
    write_note(ONE, str(tmp_path / "notes"))
    assert list(tmp_path.iterdir()) == []


def test_notes__no_link_is_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("")
    (tmp_path / "notes").symlink_to(target)
    write_note(ONE, str(tmp_path / "notes"))
    assert target.read_text() == ""


def test_notes__a_line_that_was_cut_short_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    take_notes(str(path))
    write_note(ONE, str(path))
    text = path.read_text()
    path.write_text(text[:40] + "\n" + "(1, 2)\n" + "7\n" + text)
    assert take_notes(str(path)) == [ONE]


def test_notes__a_reader_that_never_comes_fills_no_disk(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(notes, "SIZE_CAP", 1000)
    path = tmp_path / "notes"
    take_notes(str(path))
    for _ in range(100):
        write_note(ONE, str(path))
    assert path.stat().st_size < 1500


@given(st.text(), st.text())
def test_notes__any_name_survives(tmp_path_factory, user: str, source: str) -> None:  # type: ignore[no-untyped-def]
    path = str(tmp_path_factory.mktemp("notes") / "notes")
    take_notes(path)
    named = replace(ONE, user=user, source=source)
    write_note(named, path)
    assert take_notes(path) == [named]
