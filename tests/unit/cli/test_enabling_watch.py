# SPDX-License-Identifier: Apache-2.0
"""Who takes a change back, as far as that can be tried without a node: the units, and a libpam that is too old."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from slurm_adopt.cli import main
from slurm_adopt.cli.enabling import change, enable, watch
from slurm_adopt.cli.enabling.candidate import Candidate
from slurm_adopt.cli.enabling.change import Pending
from slurm_adopt.cli.enabling.report import Report

ROOT = Path(__file__).parents[3]
UNITS = ROOT / "data" / "systemd"


def install(folder: Path) -> Path:
    """The units in a root folder, as installation has them."""
    units = folder / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    text = (UNITS / f"{watch.SERVICE}.in").read_text().replace("@bindir@", "/usr/bin")
    (units / watch.SERVICE).write_text(text)
    shutil.copy(UNITS / watch.TIMER, units)
    return units


def test_watch__the_units_are_enabled_where_they_are_looked_for(tmp_path: Path) -> None:
    if not shutil.which("systemctl"):
        pytest.skip("needs systemctl")
    install(tmp_path)
    systemctl = ["systemctl", f"--root={tmp_path}"]
    links = [tmp_path / path[1:] for path in watch.WANTED]
    assert not any(link.is_symlink() for link in links), "they are off by themselves"
    subprocess.run([*systemctl, "enable", watch.SERVICE, watch.TIMER], check=True, capture_output=True)
    assert all(link.is_symlink() for link in links)
    subprocess.run([*systemctl, "disable", watch.SERVICE, watch.TIMER], check=True, capture_output=True)
    assert not any(link.is_symlink() for link in links)


def test_watch__systemd_understands_the_units(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze")
    units = install(tmp_path)
    argv = ["systemd-analyze", "verify", "--man=no", str(units / watch.SERVICE), str(units / watch.TIMER)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "slurm-adopt" not in done.stderr, done.stderr


def test_watch__units_and_command_look_at_the_same_file() -> None:
    for name in (f"{watch.SERVICE}.in", watch.TIMER):
        assert re.findall(r"ConditionPathExists=(\S+)", (UNITS / name).read_text()) == [main.PENDING]
    assert change.PENDING == main.PENDING


def test_watch__systemd_is_told_for_as_long_as_a_change_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, ...]] = []
    links = (tmp_path / "service", tmp_path / "timer")

    def systemctl(*words: str) -> None:
        told.append(words)
        for link in links:
            if words[0] == "enable":
                link.symlink_to("unit")
            elif words[0] == "disable":
                link.unlink()

    monkeypatch.setattr(watch, "_systemctl", systemctl)
    monkeypatch.setattr(watch, "start_detached", lambda _: None)
    monkeypatch.setattr(watch, "WANTED", tuple(map(str, links)))
    monkeypatch.setattr(watch, "SYSTEMD_RUNS", str(tmp_path / "none"))
    pending = Pending("sshd", "/etc/pam.d/sshd", "/etc/pam.d/.sshd.before-slurm-adopt", "", "", "", "", 0.0)
    watch.arm(pending)
    watch.disarm()
    assert told == [], "no systemd, nobody to tell"
    monkeypatch.setattr(watch, "SYSTEMD_RUNS", str(tmp_path))
    watch.arm(pending)
    assert told == [("enable", watch.SERVICE, watch.TIMER), ("start", watch.TIMER)]
    assert watch.is_armed_for_boot()
    watch.disarm()
    assert told[2:] == [("disable", watch.SERVICE, watch.TIMER), ("stop", watch.TIMER)]
    watch.disarm()
    assert len(told) == 4, "once is enough"


class Silent(Report):
    """It remembers what it would say."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.outcomes = []

    def say(self, text: str) -> None:
        self.notes.append(text)


def test_enable__a_libpam_that_cannot_try_beforehand_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux-PAM before 1.4; then it is tried when it is in place."""
    monkeypatch.setattr(enable, "can_try_elsewhere", lambda: False)
    report = Silent()
    candidate = Candidate.__new__(Candidate)
    assert enable._try_before(candidate, "sshd", "nobody", report) == []
    assert "older than 1.4" in report.notes[0]
    assert report.outcomes == []
