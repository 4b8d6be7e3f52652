# SPDX-License-Identifier: Apache-2.0
"""Building the private root: once, whole or not at all. With a stand-in for mmdebstrap, which takes a while."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab import root
from lab.root import RootError, ensure_root

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="building a root needs root")

# mmdebstrap's last two arguments are the directory and the source
STAND_IN = """\
#!/bin/bash
target=${@: -2:1}
echo "I: pretending"
mkdir -p "$target/etc/apt" && echo "${@: -1}" > "$target/etc/apt/sources.list"
echo "$target" >> "$COUNT"
sleep "${SECONDS_TO_TAKE:-0}"
[ -z "$FAIL" ] || { echo "E: no such package"; exit 1; }
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    stand_in = tmp_path / "bin" / "mmdebstrap"
    stand_in.parent.mkdir()
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    monkeypatch.setenv("SLURM_ADOPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "roots"


def builds(cache: Path) -> int:
    return len((cache.parents[1] / "count").read_text().splitlines())


def test_root__is_built_once_for_each_list_of_packages(cache: Path) -> None:
    first = ensure_root("bookworm")
    assert first.parent == cache
    assert ensure_root("bookworm") == first
    assert builds(cache) == 1
    assert ensure_root("bookworm", ["gcc"]) != first
    assert builds(cache) == 2


@pytest.mark.usefixtures("cache")
def test_root__keeps_nothing_of_the_mirror() -> None:
    assert (ensure_root("bookworm") / "etc/apt/sources.list").read_text() == ""


def test_root__a_failed_build_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(RootError, match="no such package"):
        ensure_root("bookworm")
    assert [path for path in cache.iterdir() if path.is_dir()] == []


@pytest.mark.usefixtures("cache")
def test_root__what_a_killed_builder_left_is_removed() -> None:
    target = ensure_root("bookworm")
    stale = target.with_name(f"{target.name}.partial-1")
    target.rename(stale)
    assert ensure_root("bookworm") == target
    assert not stale.exists()


def test_root__two_builders_do_not_clash(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECONDS_TO_TAKE", "1")
    environment = {**os.environ, "PYTHONPATH": str(Path(root.__file__).parents[1])}
    command = [sys.executable, "-m", "lab.root", "bookworm"]
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=60) for process in both]
    assert answers[0][0] == answers[1][0] != ""
    assert builds(cache) == 1
    assert "waiting for another build" in answers[0][1] + answers[1][1]


def test_root__a_missing_release_file_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: 'ID=slackware\nVERSION_CODENAME=""\n')
    with pytest.raises(RootError, match="Debian or Ubuntu"):
        root.host_release()
