# SPDX-License-Identifier: Apache-2.0
"""Processes for tests of what takes a process."""

from __future__ import annotations

import os

from slurm_adopt.system.kernel.procfs import Process, read_process


def process_of(number: int) -> Process:
    """The process that has this number now."""
    process = read_process(number)
    assert process is not None, f"there is no process {number}"
    return process


def me() -> Process:
    """The test's own process."""
    return process_of(os.getpid())


def replaced(process: Process) -> Process:
    """An earlier process with the same number."""
    return Process(process.pid, process.started - 1)
