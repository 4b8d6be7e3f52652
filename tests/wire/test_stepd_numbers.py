# SPDX-License-Identifier: Apache-2.0
"""The numbers of slurmstepd's socket, as bytes that go over it: an opcode that is another one asks something else.

As real slurmstepds of 20.11.4, 22.05.8, 24.11.5 and 26.05.5 take them (docs/reference, tests/vectors).
"""

from __future__ import annotations

import struct
import sys

import pytest

from slurm_adopt.wire import stepd
from slurm_adopt.wire.cursor import Cursor
from slurm_adopt.wire.errors import Incomplete, LocalProtocolError, RemoteProtocolError

little = pytest.mark.skipif(sys.byteorder != "little", reason="written for a little-endian machine")


@little
@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("SLUID", "01000000"),
        ("STATE", "05000000"),
        ("DAEMON_PID", "09000000"),
        ("PIDS", "0f000000"),
        ("UID", "14000000"),
        ("X11", "17000000"),
        ("NAMESPACE", "1a000000"),
        ("NAMESPACES", "1c000000"),
    ],
)
def test_stepd_numbers__questions(name: str, frame: str) -> None:
    assert stepd.encode_request(getattr(stepd, name)).hex() == frame


@little
@pytest.mark.parametrize(
    ("name", "pid", "frame"),
    [
        ("PID_IN_STEP", 4711, "0800000067120000"),
        ("ADD_PID", 4711, "1600000067120000"),
        ("ADD_PID", 2, "1600000002000000"),
        ("ADD_PID", 0x7FFFFFFF, "16000000ffffff7f"),
    ],
)
def test_stepd_numbers__questions_about_a_process(name: str, pid: int, frame: str) -> None:
    assert stepd.encode_pid_request(getattr(stepd, name), pid).hex() == frame


@little
def test_stepd_numbers__handshake() -> None:
    assert stepd.encode_handshake().hex() == "002d0000"


def test_stepd_numbers__steps_and_versions() -> None:
    assert stepd.parse_socket_name("lab_1.4294967292") == stepd.StepSocket("lab", 1, stepd.EXTERN_STEP)
    assert stepd.parse_socket_name("lab_1.4294967291") == stepd.StepSocket("lab", 1, stepd.BATCH_STEP)
    assert (stepd.OLDEST_VERSION, stepd.VERSION_25_11, stepd.CLIENT_VERSION) == (0x2400, 0x2C00, 0x2D00)
    assert stepd.decode_version(Cursor(struct.pack("=i", 0x2400))) == 0x2400


def test_stepd_numbers__kinds_of_namespaces_are_the_kernels() -> None:
    """CLONE_NEW* of sched.h; one that is mixed up would be joined in the place of another one."""
    kinds = {
        "mount": 0x00020000,
        "cgroup": 0x02000000,
        "uts": 0x04000000,
        "ipc": 0x08000000,
        "user": 0x10000000,
        "pid": 0x20000000,
        "net": 0x40000000,
    }
    assert {name: number for number, name in stepd.NAMESPACE_KINDS.items()} == kinds
    for name, number in kinds.items():
        assert stepd.namespace_kind(number) == name
    for number in (0, 1, 0x00000080, 0x80000000, 0x30000000, -1):
        with pytest.raises(RemoteProtocolError, match="unknown kind of namespace"):
            stepd.namespace_kind(number)


def test_stepd_numbers__signs() -> None:
    """A return code may be negative, a uid and a SLUID may have the highest bit."""
    assert stepd.decode_int(Cursor(struct.pack("=i", -1))) == -1
    assert stepd.decode_uid(Cursor(struct.pack("=I", 0xFFFFFFFE))) == 0xFFFFFFFE
    assert stepd.decode_sluid(Cursor(struct.pack("=Q", 1 << 63))) == 1 << 63
    assert stepd.decode_pids(Cursor(struct.pack("=II", 1, 0xFFFFFFFF))) == (0xFFFFFFFF,)
    path = b"/tmp/\xff\0"  # a file name is bytes
    assert stepd.decode_x11(Cursor(struct.pack("=ii", 1, len(path)) + path)).xauthority == "/tmp/\udcff"
    assert stepd.decode_bool(Cursor(b"\0")) is False
    for value in (2, 127, 128, 255):
        with pytest.raises(RemoteProtocolError, match=f"{value} is no bool"):
            stepd.decode_bool(Cursor(bytes([value])))


def test_stepd_numbers__caps() -> None:
    count = stepd.PIDS_CAP
    assert len(stepd.decode_pids(Cursor(struct.pack("=I", count) + bytes(4 * count)))) == count
    with pytest.raises(RemoteProtocolError, match=r"pids: length \d+ is outside"):
        stepd.decode_pids(Cursor(struct.pack("=I", count + 1) + bytes(4 * count + 4)))
    path = b"p" * (stepd.PATH_CAP - 1) + b"\0"
    assert stepd.decode_x11(Cursor(struct.pack("=ii", 0xFFFF, len(path)) + path)).display == 0xFFFF
    with pytest.raises(RemoteProtocolError, match="XAUTHORITY: length"):
        stepd.decode_x11(Cursor(struct.pack("=ii", 1, len(path) + 1) + b"p" + path))
    with pytest.raises(RemoteProtocolError, match="malformed X11 display"):
        stepd.decode_x11(Cursor(struct.pack("=ii", 0x10000, 0)))


def test_stepd_numbers__the_byte_that_carries_a_descriptor() -> None:
    cursor = Cursor(b"\x07rest")
    assert stepd.decode_descriptor_byte(cursor) == b"\x07"
    assert cursor.position == 1
    with pytest.raises(Incomplete):
        stepd.decode_descriptor_byte(Cursor(b""))


def test_stepd_numbers__which_process_numbers_are_refused() -> None:
    for pid in (-1, 0, 1, 0x80000000):
        with pytest.raises(LocalProtocolError, match=f"pid {pid} is never a login"):
            stepd.encode_pid_request(stepd.PID_IN_STEP, pid)


def test_stepd_numbers__names_with_numbers_at_their_limits() -> None:
    assert stepd.parse_socket_name("n_4294967295.4294967295.0") == stepd.StepSocket("n", 4294967295, 4294967295, 0)
    assert stepd.parse_socket_name("n_00000000001.0") is None
    for name in ("n_4294967296.0", "n_1.4294967296", "n_10000000000.0", "n_1.00", "n_1.0.01", "n_-1.0", "n_1.x"):
        assert stepd.parse_socket_name(name) is None
