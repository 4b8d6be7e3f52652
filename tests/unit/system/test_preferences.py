# SPDX-License-Identifier: Apache-2.0
"""Which job a user has chosen for the next logins."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest

from slurm_adopt.system.host.preferences import (
    Preference,
    clear_preference,
    clear_void_preferences,
    read_preference,
    write_preference,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root's files are believed")


def test_preferences__round_trip(tmp_path: Path) -> None:
    directory = str(tmp_path / "preferences")
    assert read_preference(1501, directory) is None
    write_preference(1501, Preference(7, 4711, 99), directory)
    write_preference(1501, Preference(8, 4712, 100), directory)
    assert read_preference(1501, directory) == Preference(8, 4712, 100)
    assert read_preference(1502, directory) is None
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    assert [(entry.name, entry.stat().st_mode & 0o777) for entry in Path(directory).iterdir()] == [("1501", 0o600)]
    assert clear_preference(1501, directory)
    assert not clear_preference(1501, directory)


@pytest.mark.parametrize("text", ["", "7\n", "7 1\n", "7 1 2 3\n", "7 -1 2\n", "x y z\n", "7 1 2" + "0" * 200])
def test_preferences__anything_else_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "1501").write_text(text)
    (tmp_path / "1501").chmod(0o600)
    found = read_preference(1501, str(tmp_path))
    assert found is None or found.started >= 10**100


def test_preferences__the_void_ones_are_removed(tmp_path: Path) -> None:
    for uid in (1, 2, 3):
        write_preference(uid, Preference(uid, uid, uid), str(tmp_path))
    (tmp_path / ".8.1").write_text("just being written by somebody else")
    (tmp_path / ".9.1").write_text("half written")
    os.utime(tmp_path / ".9.1", (1, 1))
    assert clear_void_preferences(lambda preference: preference.job_id == 2, str(tmp_path)) == 2
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".8.1", "1", "3"]
    assert clear_void_preferences(lambda _: True, str(tmp_path / "missing")) == 0


def test_preferences__one_that_is_renewed_while_the_old_one_is_judged_stays(tmp_path: Path) -> None:
    old, new = Preference(7, 4711, 99), Preference(8, 4712, 100)
    write_preference(1501, old, str(tmp_path))

    def judge(preference: Preference) -> bool:
        write_preference(1501, new, str(tmp_path))  # another request, just then
        return preference == old

    assert clear_void_preferences(judge, str(tmp_path)) == 0
    assert read_preference(1501, str(tmp_path)) == new


def test_preferences__nothing_is_removed_while_another_request_writes(tmp_path: Path) -> None:
    write_preference(1501, Preference(7, 4711, 99), str(tmp_path))
    fd = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        assert clear_void_preferences(lambda _: True, str(tmp_path)) == 0
    finally:
        os.close(fd)
    assert clear_void_preferences(lambda _: True, str(tmp_path)) == 1


@pytest.mark.parametrize("mode", [0o722, 0o702])
def test_preferences__not_into_a_folder_that_others_may_write(tmp_path: Path, mode: int) -> None:
    os.chown(tmp_path, -1, 4)
    tmp_path.chmod(mode)
    with pytest.raises(OSError, match="chmod g"):
        write_preference(1501, Preference(7, 4711, 99), str(tmp_path))
    assert list(tmp_path.iterdir()) == []
