# SPDX-License-Identifier: Apache-2.0
"""What slurmstepd says is not believed: where the kernel shows the process counts."""

from __future__ import annotations

import os

import pytest

from slurm_adopt.login.adoption import confirm
from slurm_adopt.login.recent import Recent
from slurm_adopt.system.kernel.procfs import Process
from slurm_adopt.system.slurm.stepd import StepFault
from slurm_adopt.system.tasks.task import run

PROCESS = Process(4711, 1)
SLURMSTEPD = b"6:freezer:/slurm/uid_1501/job_7/step_extern\n0::/\n"
PLACES = {
    "another user's job": b"6:freezer:/slurm/uid_1502/job_8/step_extern\n0::/\n",
    "the same user's other job": b"6:freezer:/slurm/uid_1501/job_8/step_extern\n0::/\n",
    "another step": b"6:freezer:/slurm/uid_1501/job_7/step_batch\n0::/\n",
    "no job": b"6:freezer:/\n0::/\n",
}


def confirmed(target: bytes, reference: bytes | None = SLURMSTEPD) -> None:
    """`confirm` with this in the place of the process's /proc/PID/cgroup. There is no slurmstepd to ask."""
    text = os.memfd_create("cgroup")
    try:
        os.write(text, target)
        os.lseek(text, 0, os.SEEK_SET)
        run(confirm(None, reference, PROCESS, text, Recent()))  # type: ignore[arg-type]
    finally:
        os.close(text)


def test_confirm__inside() -> None:
    confirmed(SLURMSTEPD)
    confirmed(SLURMSTEPD.replace(b"step_extern", b"step_extern/task_0"))


@pytest.mark.parametrize("target", PLACES.values(), ids=PLACES)
def test_confirm__elsewhere(target: bytes) -> None:
    with pytest.raises(StepFault) as caught:
        confirmed(target)
    assert caught.value.reason == "adopt-unconfirmed"


def test_confirm__slurmstepd_has_ended() -> None:
    with pytest.raises(StepFault) as caught:
        confirmed(SLURMSTEPD, None)
    assert caught.value.reason == "step-ending"
