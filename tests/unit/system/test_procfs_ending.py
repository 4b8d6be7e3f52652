# SPDX-License-Identifier: Apache-2.0
"""Whether a process is ending, from what the kernel says."""

from __future__ import annotations

import os

import pytest

from slurm_adopt.system.kernel import procfs

#: of Linux 6.18, shortened
STAT = "188 (a (b) c) {state} 184 188 180 34816 -1 {flags} 76 0 0 0 0 0 0 0 20 0 1 0 5401 2654208 1184 18446744073709551615"


@pytest.mark.parametrize(
    ("state", "flags", "ends"),
    [("S", 4194304, False), ("R", 4194304 | 0x4, True), ("Z", 4227084, True), ("X", 0, True)],
    ids=["sleeping", "ending", "zombie", "dead"],
)
def test_procfs_ending__as_the_kernel_says(state: str, flags: int, ends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """cgroup v1 says `/` of a process that is ending, and its state is not that of a zombie yet."""
    text = STAT.format(state=state, flags=flags).encode()
    monkeypatch.setattr(procfs, "_read_record", lambda *_: text)
    assert procfs.is_ending(procfs.Process(188, 5401)) is ends
    assert procfs.is_ending(procfs.Process(188, 5400)), "the number is another process's"


def test_procfs_ending__real_processes() -> None:
    mine = procfs.read_process(os.getpid())
    assert mine is not None
    assert not procfs.is_ending(mine)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    zombie = procfs.read_process(child)
    assert zombie is not None
    assert procfs.is_ending(zombie)
    os.waitpid(child, 0)
    assert procfs.is_ending(zombie)
