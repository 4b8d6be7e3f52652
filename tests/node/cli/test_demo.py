# SPDX-License-Identifier: Apache-2.0
"""`make demo`: the story is told and true, and it says so if it is not."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import demo
from lab.leaks import settled, snapshot
from lab.machine import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="an isolated node needs root")
CHECKOUT = Path(__file__).parents[3]
DEMO = [sys.executable, str(CHECKOUT / "tools/demo.py")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(CHECKOUT / "tools"), "PACE": "0"}


def test_demo__the_story_is_true() -> None:
    before = snapshot()
    done = subprocess.run(DEMO, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All of it was true." in done.stdout
    assert settled(before) == []


def test_demo__the_cluster_s_story_is_true() -> None:
    before = snapshot()
    command = [sys.executable, str(CHECKOUT / "tools/demo_cluster.py")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All of it was true." in done.stdout
    assert settled(before) == []


def test_demo__says_what_is_not_true(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a module in the PAM file alice gets in, and the demo must not pretend otherwise."""
    monkeypatch.setattr(demo, "use_product", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["demo", "--fast"])
    assert demo.main() == 1
    assert "NOT TRUE: refused" in capsys.readouterr().out


@pytest.mark.extra
def test_demo__keep_prints_how_to_log_in(tmp_path: Path) -> None:
    before = snapshot()
    said = tmp_path / "said"
    with said.open("w") as output:
        process = subprocess.Popen([*DEMO, "--keep"], env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=output)
    try:
        wait_for(lambda: "ends it" in said.read_text() or process.poll() is not None, "the node", 90, 0.2)
        (line,) = re.findall(r"^ +(tools/node --name \S+ ssh alice)", said.read_text(), re.MULTILINE)
        login = [*line.split(), "cat", "/proc/self/cgroup"]
        done = subprocess.run(login, cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        assert re.search(r"/job_\d+/step_extern", done.stdout)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    assert settled(before) == []
