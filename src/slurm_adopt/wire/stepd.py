# SPDX-License-Identifier: Apache-2.0
"""slurmstepd's unix socket: names, requests and replies.

Rules of this file:
1. Pure: bytes to values and back. Integers are in the host's own byte order and C sizes.
2. A reply has no length and no frame: a decoder takes its bytes off a `Cursor`; `Incomplete` means "read on".
3. An opcode and its arguments are encoded as one piece: slurmstepd reads an opcode with one read(), and
   24.11.6 and later hold a lock while they wait for the pid that follows "add".
4. A reply's layout depends on the version slurmstepd answered in the handshake, never on our own.
"""

from __future__ import annotations

import struct

from ..record import record
from .errors import LocalProtocolError, RemoteProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model import State
    from .cursor import Cursor

#: What we say in the handshake. slurmstepd has a lower limit only (seen: 22.05 takes 26.05's number).
CLIENT_VERSION = 45 << 8
#: Oldest slurmstepd whose layouts are known here: 20.11.
OLDEST_VERSION = 36 << 8
#: 25.11: namespaces are asked with opcode 28; opcode 26 may stay unanswered for ever.
VERSION_25_11 = 44 << 8
EXTERN_STEP = 0xFFFFFFFC
BATCH_STEP = 0xFFFFFFFB
#: slurmstepd knows a pid as a C int.
PID_MAX = 0x7FFFFFFF
#: "list pids": more processes than a step is asked about here
PIDS_CAP = 65536
#: XAUTHORITY is a path.
PATH_CAP = 4096
#: mount, pid, user, and room for kinds a later release may add
NAMESPACE_CAP = 7

SLUID, STATE, PID_IN_STEP, DAEMON_PID, PIDS, UID, ADD_PID, X11, NAMESPACE, NAMESPACES = (
    1,
    5,
    8,
    9,
    15,
    20,
    22,
    23,
    26,
    28,
)

#: Kinds of namespaces by the kernel's CLONE_NEW* number, as opcode 28 names them.
NAMESPACE_KINDS = {
    0x00020000: "mount",
    0x02000000: "cgroup",
    0x04000000: "uts",
    0x08000000: "ipc",
    0x10000000: "user",
    0x20000000: "pid",
    0x40000000: "net",
}


@record
class StepSocket:
    """A socket name `NODE_JOBID.STEPID[.HETCOMP]`, taken apart."""

    node: str
    job_id: int
    step_id: int
    het_component: int | None = None


@record
class X11Display:
    """Opcode 23's answer: display number (0: the job has none) and XAUTHORITY path (may be empty)."""

    display: int
    xauthority: str


def parse_socket_name(name: str) -> StepSocket | None:
    """`name` as a step's socket, or None: the spool directory holds other things too."""
    stem, _, numbers = name.rpartition("_")
    parts = numbers.split(".")
    if not stem or len(parts) not in (2, 3) or not all(_is_decimal(part) for part in parts):
        return None
    values = [int(part) for part in parts]
    if max(values) > 0xFFFFFFFF or values[0] == 0:
        return None
    return StepSocket(stem, *values)


def encode_handshake() -> bytes:
    """The first bytes on a connection."""
    return struct.pack("=i", CLIENT_VERSION)


def encode_request(opcode: int) -> bytes:
    """A request without arguments."""
    return struct.pack("=i", opcode)


def encode_pid_request(opcode: int, pid: int) -> bytes:
    """`ADD_PID` or `PID_IN_STEP` for one process.

    A pid of 0 would make slurmstepd move *itself* into the user's cgroup (seen on 22.05).
    """
    if not 1 < pid <= PID_MAX:
        raise LocalProtocolError(f"pid {pid} is never a login")
    return struct.pack("=ii", opcode, pid)


def decode_version(cursor: Cursor) -> int:
    """slurmstepd's own protocol version; -1 is its refusal of ours."""
    version = cursor.unpack("=i")
    if version < OLDEST_VERSION:
        raise RemoteProtocolError(f"slurmstepd refused us, or is older than 20.11 (answered {version})")
    return version


def decode_int(cursor: Cursor) -> int:
    """A C int: state, pid or return code."""
    return cursor.unpack("=i")


def decode_uid(cursor: Cursor) -> int:
    """The job owner's uid."""
    return cursor.unpack("=I")


def decode_descriptor_byte(cursor: Cursor) -> bytes:
    """The one byte that carries a descriptor; its value means nothing."""
    return cursor.take(1)


def decode_bool(cursor: Cursor) -> bool:
    """A C bool."""
    value = cursor.unpack("=B")
    if value > 1:
        raise RemoteProtocolError(f"{value} is no bool")
    return bool(value)


def decode_pids(cursor: Cursor) -> tuple[int, ...]:
    """The processes of a step; on cgroup v2 slurmstepd's own is among them."""
    count = cursor.unpack("=I")
    raw = cursor.take_capped(4 * count, 4 * PIDS_CAP, "pids")
    return struct.unpack(f"={count}I", raw)


def decode_sluid(cursor: Cursor) -> int:
    """The job's SLUID as a number; 0 is unknown."""
    return cursor.unpack("=Q")


def decode_x11(cursor: Cursor) -> X11Display:
    """Display and XAUTHORITY; the path's length counts its NUL."""
    display = cursor.unpack("=i")
    raw = cursor.take_capped(cursor.unpack("=i"), PATH_CAP, "XAUTHORITY")
    path, _, rest = raw.partition(b"\0")
    if rest or not 0 <= display <= 0xFFFF or (raw and not raw.endswith(b"\0")):
        raise RemoteProtocolError("malformed X11 display")
    return X11Display(display, path.decode("utf-8", "surrogateescape"))


def namespace_kind(number: int) -> str:
    """The name of a CLONE_NEW* number."""
    if number not in NAMESPACE_KINDS:
        raise RemoteProtocolError(f"unknown kind of namespace {number:#x}")
    return NAMESPACE_KINDS[number]


def state_name(state: int) -> State:
    """`starting`, `running` or `ending`.

    Up to 23.02, 3 is ending; from 23.11, 3 is cancelled and 4 ending; 0 is not running (yet).
    """
    if state in (0, 1):
        return "starting"
    return "running" if state == 2 else "ending"


def _is_decimal(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and (text == "0" or text[0] != "0")
