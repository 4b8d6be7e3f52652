# SPDX-License-Identifier: Apache-2.0
"""slurmstepd's socket names and replies. Frames as seen on Debian's 22.05.8 (4-byte integers, little-endian hosts)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.wire import stepd
from slurm_adopt.wire.cursor import Cursor
from slurm_adopt.wire.errors import Incomplete, LocalProtocolError, RemoteProtocolError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vm_1.4294967292", stepd.StepSocket("vm", 1, stepd.EXTERN_STEP)),
        ("n_1_2.0", stepd.StepSocket("n_1", 2, 0)),
        ("n.example.org_12.4294967291", stepd.StepSocket("n.example.org", 12, 4294967291)),
        ("n_12.0.3", stepd.StepSocket("n", 12, 0, 3)),
        ("_12.0", None),
        ("n_12", None),
        ("n_.0", None),
        ("n_12.", None),
        ("n_012.0", None),
        ("n_0.4294967292", None),
        ("n_1.4294967296", None),
        ("n_99999999999.0", None),
        ("n_1.2.3.4", None),
        ("n_+1.0", None),
        ("n_١.0", None),
        ("cred_state", None),
        ("job00012", None),
        ("hwloc_topo_whole.xml", None),
        ("", None),
    ],
)
def test_stepd__socket_name(name: str, expected: object) -> None:
    assert stepd.parse_socket_name(name) == expected


def test_stepd__requests() -> None:
    assert stepd.encode_handshake() == struct.pack("=i", 11520)
    assert stepd.encode_request(stepd.UID) == struct.pack("=i", 20)
    assert stepd.encode_pid_request(stepd.ADD_PID, 4711) == struct.pack("=ii", 22, 4711)


@pytest.mark.parametrize("pid", [0, -1, 1, 1 << 31, 1 << 40])
def test_stepd__pids_that_must_never_be_sent(pid: int) -> None:
    """pid 0 makes slurmstepd move itself into the user's cgroup (seen on 22.05.8)."""
    with pytest.raises(LocalProtocolError):
        stepd.encode_pid_request(stepd.ADD_PID, pid)


@pytest.mark.parametrize("answer", [-1, 0, 9215, -(1 << 31)])
def test_stepd__refused_handshake(answer: int) -> None:
    with pytest.raises(RemoteProtocolError):
        stepd.decode_version(Cursor(struct.pack("=i", answer)))


def test_stepd__state_by_number() -> None:
    assert [stepd.state_name(state) for state in (0, 1, 2, 3, 4, 99, -1)] == [
        "starting",
        "starting",
        "running",
        "ending",
        "ending",
        "ending",
        "ending",
    ]


X11 = struct.pack("=ii", 12, 16) + b"/tmp/.Xauth.abc\0"
VECTORS = [
    (stepd.decode_version, struct.pack("=i", 9728), 9728),
    (stepd.decode_int, struct.pack("=i", 2), 2),
    (stepd.decode_uid, struct.pack("=I", 1501), 1501),
    (stepd.decode_bool, b"\1", True),
    (stepd.decode_sluid, struct.pack("=Q", 7), 7),
    (stepd.decode_x11, struct.pack("=ii", 0, 0), stepd.X11Display(0, "")),
    (stepd.decode_x11, X11, stepd.X11Display(12, "/tmp/.Xauth.abc")),
]


@pytest.mark.parametrize(("decode", "frame", "value"), VECTORS)
def test_stepd__whole_truncated_and_followed(decode, frame: bytes, value: object) -> None:  # type: ignore[no-untyped-def]
    cursor = Cursor(frame)
    assert decode(cursor) == value
    cursor.check_end()
    for end in range(len(frame)):
        with pytest.raises(Incomplete):
            decode(Cursor(frame[:end]))
    followed = Cursor(frame + b"x")
    assert decode(followed) == value
    with pytest.raises(RemoteProtocolError):
        followed.check_end()


@pytest.mark.parametrize(
    "frame",
    [
        struct.pack("=ii", 1, -1),
        struct.pack("=ii", 1, 1 << 30),
        struct.pack("=ii", -1, 0),
        struct.pack("=ii", 70000, 0),
        struct.pack("=ii", 1, 3) + b"abc",
        struct.pack("=ii", 1, 4) + b"a\0b\0",
    ],
)
def test_stepd__malformed_x11(frame: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as raised:
        stepd.decode_x11(Cursor(frame))
    assert not isinstance(raised.value, Incomplete)


@given(st.binary(max_size=64))
def test_stepd__any_bytes(data: bytes) -> None:
    for decode, _, _ in VECTORS:
        try:
            decode(Cursor(data))
        except RemoteProtocolError:
            continue


@given(st.text(max_size=40))
def test_stepd__any_name(name: str) -> None:
    found = stepd.parse_socket_name(name)
    if found is not None:
        tail = "" if found.het_component is None else f".{found.het_component}"
        assert name == f"{found.node}_{found.job_id}.{found.step_id}{tail}"


def test_stepd__list_of_pids() -> None:
    data = struct.pack("=III", 2, 100, 4194304)
    assert stepd.decode_pids(Cursor(data)) == (100, 4194304)
    assert stepd.decode_pids(Cursor(struct.pack("=I", 0))) == ()
    for end in range(len(data)):
        with pytest.raises(Incomplete):
            stepd.decode_pids(Cursor(data[:end]))
    with pytest.raises(RemoteProtocolError):
        stepd.decode_pids(Cursor(struct.pack("=I", stepd.PIDS_CAP + 1)))
