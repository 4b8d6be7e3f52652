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
def test_stepd__pids() -> None:
    data = struct.pack("=III", 2, 100, 4194304)
    assert stepd.decode_pids(Cursor(data)) == (100, 4194304)
    assert stepd.decode_pids(Cursor(struct.pack("=I", 0))) == ()
    for end in range(len(data)):
        with pytest.raises(Incomplete):
            stepd.decode_pids(Cursor(data[:end]))
    with pytest.raises(RemoteProtocolError):
        stepd.decode_pids(Cursor(struct.pack("=I", stepd.PIDS_CAP + 1)))
