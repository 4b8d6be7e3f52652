# SPDX-License-Identifier: Apache-2.0
"""What real slurmstepds of four releases answered (recorded by tools/record-stepd-frames), decoded whole, in pieces, cut."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from slurm_adopt.wire import stepd
from slurm_adopt.wire.cgroup_path import decode_cgroups, extern_step
from slurm_adopt.wire.cursor import Cursor
from slurm_adopt.wire.errors import Incomplete

VECTORS = [
    json.loads(path.read_text()) for path in sorted((Path(__file__).parents[1] / "vectors").glob("stepd-*.json"))
]
DECODERS: dict[str, Any] = {
    "version": stepd.decode_version,
    "uid": stepd.decode_uid,
    "state": stepd.decode_int,
    "daemon_pid": stepd.decode_int,
    "pid_in_step": stepd.decode_bool,
    "add_pid": stepd.decode_int,
    "x11": stepd.decode_x11,
    "namespace": stepd.decode_int,
    "namespaces": stepd.decode_int,
    "sluid": stepd.decode_sluid,
}
pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="recorded on a little-endian machine")


@pytest.fixture(params=VECTORS, ids=lambda vector: vector["slurm"])
def vector(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_vectors__there_are_releases_from_20_11_to_26_05() -> None:
    assert {vector["slurm"][:5] for vector in VECTORS} >= {"20.11", "22.05", "24.11", "26.05"}


def test_vectors__values(vector: Any) -> None:
    frames = {name: bytes.fromhex(frame) for name, frame in vector["frames"].items() if frame and ":" not in frame}
    major, minor = map(int, vector["slurm"].split(".")[:2])
    version = stepd.decode_version(Cursor(frames["version"]))
    assert version == {(20, 11): 36, (22, 5): 38, (24, 11): 42, (26, 5): 45}[major, minor] << 8
    assert stepd.decode_uid(Cursor(frames["uid"])) == vector["uid"]
    assert stepd.state_name(stepd.decode_int(Cursor(frames["state"]))) == "running"
    assert stepd.decode_int(Cursor(frames["add_pid"])) == 0
    assert stepd.decode_x11(Cursor(frames["x11"])) == stepd.X11Display(0, "")
    name = stepd.parse_socket_name(vector["socket"])
    assert name is not None
    assert (name.job_id, name.step_id) == (vector["job"], stepd.EXTERN_STEP)


def test_vectors__which_question_which_release_answers(vector: Any) -> None:
    """Why `system.stepd.query_namespaces` asks 26 up to 25.05 and 28 from 25.11, and takes EOF for "none" in 20.11.0-4."""
    answers = {name: vector["frames"][name] for name in ("namespace", "namespaces", "sluid")}
    expected = {
        "20.11.4": (":closed", ":closed", ":closed"),
        "22.05.8": ("00000000", ":closed", ":closed"),
        "24.11.5": ("00000000", ":closed", ":closed"),
    }
    if vector["slurm"] in expected:
        assert tuple(answers.values()) == expected[vector["slurm"]]
    else:
        assert answers["namespace"] == "", "26 stays unanswered for ever where no namespace plugin runs"
        assert answers["namespaces"] == "00000000"
        assert stepd.decode_sluid(Cursor(bytes.fromhex(answers["sluid"]))) > 0


@pytest.mark.parametrize("name", DECODERS)
def test_vectors__every_split_and_truncation(vector: Any, name: str) -> None:
    frame = vector["frames"][name]
    if not frame or ":" in frame:
        return
    data = bytes.fromhex(frame)
    whole = DECODERS[name](Cursor(data))
    for end in range(len(data)):
        with pytest.raises(Incomplete):
            DECODERS[name](Cursor(data[:end]))
        again = Cursor(data[:end] + data[end:])
        assert DECODERS[name](again) == whole
        again.check_end()


def test_vectors__the_adopted_process_is_in_the_step(vector: Any) -> None:
    step = extern_step(decode_cgroups(vector["cgroup_of_adopted"].encode()))
    assert step is not None
    assert (step.job_id, step.uid) == (vector["job"], vector["uid"])
