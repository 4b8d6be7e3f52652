# SPDX-License-Identifier: Apache-2.0
"""What users call their jobs: from a job's environment, and from slurmctld's answer."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.recorded_jobs import ANSWERS

from slurm_adopt.wire.callerid import Message
from slurm_adopt.wire.errors import RemoteProtocolError
from slurm_adopt.wire.job_names import claims_in_environment, is_name
from slurm_adopt.wire.job_names_answer import decode_names
from slurm_adopt.wire.user_jobs_question import RESPONSE_JOBS

BATCH = {"SLURM_JOB_ID": "4703", "SLURM_TASK_PID": "99"}


def message(body: bytes, version: int) -> Message:
    return Message(version << 8, 0x44, RESPONSE_JOBS, None, None, body)


@pytest.mark.parametrize("text", ["4700_11", "4800+1", "1_0"])
def test_job_names__are_two_numbers(text: str) -> None:
    assert is_name(text)


@pytest.mark.parametrize(
    "text", ["", "4700", "_", "+", "4700_", "_11", "4700_1+2", "a_1", "4700_[1-3]", "4700-1", "1_\u0662"]
)
def test_job_names__nothing_else_is_one(text: str) -> None:
    assert not is_name(text)


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ({}, {4703: "4703"}),
        ({"SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "11"}, {4703: "4700_11"}),
        ({"SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "0"}, {4703: "4700_0"}),
        ({"SLURM_ARRAY_JOB_ID": "4700"}, {4703: "4703"}),
        ({"SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "\x1b[2J"}, {4703: "4703"}),
        (
            {"SLURM_HET_SIZE": "2", "SLURM_JOB_ID_HET_GROUP_0": "4703", "SLURM_JOB_ID_HET_GROUP_1": "4704"},
            {4703: "4703+0", 4704: "4703+1"},
        ),
        ({"SLURM_HET_SIZE": "4294967295", "SLURM_JOB_ID_HET_GROUP_0": "4703"}, {4703: "4703+0"}),
        ({"SLURM_JOB_ID": "x"}, {}),
    ],
)
def test_job_names__in_an_environment(more: dict[str, str], names: dict[int, str]) -> None:
    assert claims_in_environment({**BATCH, **more}) == names


def test_job_names__a_logins_environment_tells_nothing() -> None:
    """`export_env=id`, or any of its lists: without a task's variables it is not what slurmstepd has made."""
    assert claims_in_environment({"SLURM_JOB_ID": "4703"}) == {}


@pytest.mark.parametrize(("vector", "version", "body"), ANSWERS)
def test_job_names__in_slurmctlds_answer_as_squeue_shows_them(vector: Any, version: int, body: bytes) -> None:
    """With whatever numbers a node may have; a job that waits has no number of its own yet."""
    assert len(vector["names"]) > 6
    assert sum("_" in name for name in vector["names"].values()) > 1
    assert sum("+" in name for name in vector["names"].values()) == 2
    named = decode_names(message(body, version), vector["uid"], range(1, 40))
    assert {str(job_id): name for job_id, name in named.items()} == vector["names"]


@pytest.mark.parametrize(("vector", "version", "body"), ANSWERS)
def test_job_names__cut_short_they_are_the_same_or_fewer(vector: Any, version: int, body: bytes) -> None:
    whole = decode_names(message(body, version), vector["uid"], range(1, 40))
    for cut in range(0, len(body), 7):
        try:
            some = decode_names(message(body[:cut], version), vector["uid"], range(1, 40))
        except RemoteProtocolError:
            continue
        assert some.items() <= whole.items()


@pytest.mark.parametrize(("vector", "version", "body"), ANSWERS)
@given(data=st.data())
def test_job_names__changed_bytes_are_names_or_an_error(
    vector: Any, version: int, body: bytes, data: st.DataObject
) -> None:
    changed = bytearray(body)
    for _ in range(8):
        at = data.draw(st.integers(0, len(body) - 5))
        struct.pack_into(">I", changed, at, data.draw(st.sampled_from([0, 1, 7, 0xFFFFFFFE, 0xFFFFFFFF, 0x7FFFFFFF])))
    try:
        names = decode_names(message(bytes(changed), version), vector["uid"], (1, 6, 7))
    except RemoteProtocolError:
        return
    assert set(names) <= {1, 6, 7}
    assert all(is_name(name) or name == str(job_id) for job_id, name in names.items())
