# SPDX-License-Identifier: Apache-2.0
"""The packets between the PAM module and the helper or service (docs/protocol/login-exchange.md).

Rules of this file:
1. Pure: bytes to validated records and back.
2. A malformed packet raises `RemoteProtocolError`, whatever it holds; nothing of it is used.
3. Keys nobody knows are passed over: an older peer keeps working.
"""

from __future__ import annotations

from ..record import record
from .errors import LocalProtocolError, RemoteProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: One packet must fit the module's only buffer.
PACKET_CAP = 4096
FIELD_CAP = 64
KEY_CAP = 24
ARG_CAP = 32
CONNECTION_CAP = 8
USER_CAP = 256
SERVICE_CAP = 64
#: What the module shows a person is one line of a terminal or three, never a page.
TEXT_CAP = 512
LOG_CAP = 1024

VERSION = b"1"
PHASES = ("account", "open_session", "close_session")
RESULTS = ("success", "ignore", "perm_denied", "session_err", "retry")
LEVELS = ("err", "warning", "notice", "info", "debug")
NAMESPACES = ("user", "pid", "mount", "ipc", "uts", "net", "cgroup")
KEY_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


@record
class Connection:
    """A connected TCP socket among the caller's own descriptors.

    Addresses are text as `inet_ntop` writes it, `family` is 4 or 6, `fd` is the caller's descriptor number.
    """

    fd: int
    family: int
    local_address: str
    local_port: int
    peer_address: str
    peer_port: int

    def __post_init__(self) -> None:
        if self.family not in (4, 6) or self.fd < 0:
            raise RemoteProtocolError(f"bad connection {self!r}")
        if not (0 <= self.local_port <= 0xFFFF and 0 <= self.peer_port <= 0xFFFF):
            raise RemoteProtocolError(f"bad port in {self!r}")


@record
class LoginRequest:
    """What the module asks. `deadline_ns` is a point of CLOCK_MONOTONIC; `job` and `chosen` are SLURM_JOB_ID and
    SLURM_ADOPT_CHOSEN of the PAM environment."""

    phase: str
    deadline_ns: int
    service: str
    user: str
    uid: int
    rhost: str = ""
    tty: str = ""
    job: str = ""
    args: tuple[str, ...] = ()
    connections: tuple[Connection, ...] = ()
    chosen: str = ""

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise RemoteProtocolError(f"unknown phase {self.phase!r}")
        if not 0 <= self.uid < 0xFFFFFFFF:
            raise RemoteProtocolError(f"impossible uid {self.uid}")
        if not self.user or len(self.user) > USER_CAP or len(self.service) > SERVICE_CAP:
            raise RemoteProtocolError("user or service name is empty or too long")


@record
class LoginReply:
    """What the module carries out. `joins` names namespaces; their descriptors travel beside the packet, in order."""

    result: str
    reason: str
    level: str = "info"
    log: str = ""
    error: str = ""
    info: str = ""
    env: tuple[tuple[str, str], ...] = ()
    joins: tuple[str, ...] = ()
    join_failed: str = ""
    join_error: str = ""

    def __post_init__(self) -> None:
        if self.result not in RESULTS or self.level not in LEVELS or not self.reason:
            raise LocalProtocolError(f"bad reply {self!r}")
        if any(kind not in NAMESPACES for kind in self.joins):
            raise LocalProtocolError(f"unknown namespace in {self.joins}")
        if self.joins and self.join_failed not in RESULTS:
            raise LocalProtocolError("a reply with namespaces to join must say what a failed join means")


def encode_request(request: LoginRequest) -> bytes:
    """The request as one packet (the C module writes the same; this one is for tests and tools)."""
    fields = [
        ("PHASE", request.phase),
        ("DEADLINE", str(request.deadline_ns)),
        ("SERVICE", request.service),
        ("USER", request.user),
        ("UID", str(request.uid)),
        ("RHOST", request.rhost),
        ("TTY", request.tty),
        ("JOB", request.job),
        ("CHOSEN", request.chosen),
    ]
    fields += [(f"ARG{index}", arg) for index, arg in enumerate(request.args)]
    for index, conn in enumerate(request.connections):
        words = (conn.fd, conn.family, conn.local_address, conn.local_port, conn.peer_address, conn.peer_port)
        fields.append((f"CONN{index}", " ".join(map(str, words))))
    return _encode_fields(fields)


def decode_request(packet: bytes) -> LoginRequest:
    """A request packet as a validated record."""
    fields = _decode_fields(packet)
    return LoginRequest(
        phase=_text(fields, "PHASE"),
        deadline_ns=_number(_text(fields, "DEADLINE")),
        service=_text(fields, "SERVICE"),
        user=_text(fields, "USER"),
        uid=_number(_text(fields, "UID")),
        rhost=_text(fields, "RHOST", ""),
        tty=_text(fields, "TTY", ""),
        job=_text(fields, "JOB", ""),
        args=_family(fields, "ARG", ARG_CAP),
        connections=tuple(_connection(text) for text in _family(fields, "CONN", CONNECTION_CAP)),
        chosen=_text(fields, "CHOSEN", ""),
    )


def encode_reply(reply: LoginReply) -> bytes:
    """The reply as one packet. Text for people is cut to its cap and freed of control characters."""
    fields = [
        ("RESULT", reply.result),
        ("REASON", reply.reason),
        ("LEVEL", reply.level),
        ("LOG", one_line(reply.log, LOG_CAP)),
        ("ERROR", one_line(reply.error, TEXT_CAP)),
        ("INFO", one_line(reply.info, TEXT_CAP)),
    ]
    fields += [(f"ENV{index}", f"{name}={value}") for index, (name, value) in enumerate(reply.env)]
    fields += [(f"JOIN{index}", kind) for index, kind in enumerate(reply.joins)]
    if reply.joins:
        fields += [("JOIN_FAILED", reply.join_failed), ("JOIN_ERROR", one_line(reply.join_error, TEXT_CAP))]
    return _encode_fields(fields)


def decode_reply(packet: bytes) -> LoginReply:
    """A reply packet as a validated record (for tests and tools; the module has its own parser)."""
    fields = _decode_fields(packet)
    env = []
    for item in _family(fields, "ENV", FIELD_CAP):
        name, mark, value = item.partition("=")
        if not name or not mark:
            raise RemoteProtocolError(f"not NAME=VALUE: {item!r}")
        env.append((name, value))
    try:
        return LoginReply(
            result=_text(fields, "RESULT"),
            reason=_text(fields, "REASON"),
            level=_text(fields, "LEVEL", "info"),
            log=_text(fields, "LOG", ""),
            error=_text(fields, "ERROR", ""),
            info=_text(fields, "INFO", ""),
            env=tuple(env),
            joins=_family(fields, "JOIN", len(NAMESPACES)),
            join_failed=_text(fields, "JOIN_FAILED", ""),
            join_error=_text(fields, "JOIN_ERROR", ""),
        )
    except LocalProtocolError as error:
        raise RemoteProtocolError(str(error)) from None


def one_line(text: str, cap: int) -> str:
    """`text` as one printable line of at most `cap` bytes: no control or undecodable character survives."""
    line = "".join(char if char.isprintable() else "?" for char in text)
    return line.encode("utf-8", "replace")[:cap].decode("utf-8", "ignore")


def _encode_fields(fields: Iterable[tuple[str, str]]) -> bytes:
    parts = [b"V=" + VERSION]
    for key, value in fields:
        if value == "":
            continue
        raw = value.encode("utf-8", "surrogateescape")
        if b"\0" in raw:
            raise LocalProtocolError(f"{key} holds a NUL byte")
        parts.append(key.encode("ascii") + b"=" + raw)
    packet = b"\0".join(parts) + b"\0"
    if len(packet) > PACKET_CAP or len(parts) > FIELD_CAP:
        raise LocalProtocolError(f"{len(packet)} bytes in {len(parts)} fields do not fit a packet")
    return packet


def _decode_fields(packet: bytes) -> dict[str, str]:
    if not packet or len(packet) > PACKET_CAP or packet[-1] != 0:
        raise RemoteProtocolError("packet is empty, too long, or does not end with NUL")
    parts = packet[:-1].split(b"\0")
    if len(parts) > FIELD_CAP or parts[0] != b"V=" + VERSION:
        raise RemoteProtocolError("too many fields, or not version 1")
    fields: dict[str, str] = {}
    for part in parts:
        key, mark, value = part.partition(b"=")
        if not mark or not 0 < len(key) <= KEY_CAP or not KEY_BYTES.issuperset(key) or not 65 <= key[0] <= 90:
            raise RemoteProtocolError(f"not a field: {part[:40]!r}")
        name = key.decode("ascii")
        if name in fields:
            raise RemoteProtocolError(f"{name} comes twice")
        fields[name] = value.decode("utf-8", "surrogateescape")
    return fields


def _text(fields: dict[str, str], key: str, default: str | None = None) -> str:
    value = fields.get(key, default)
    if value is None:
        raise RemoteProtocolError(f"{key} is missing")
    return value


def _number(text: str) -> int:
    # int() takes "+5", " 5" and "1_0" as well; the wire does not
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise RemoteProtocolError(f"not a decimal number: {text[:40]!r}")
    return int(text)


def _family(fields: dict[str, str], prefix: str, cap: int) -> tuple[str, ...]:
    values: list[str] = []
    while f"{prefix}{len(values)}" in fields:
        values.append(fields[f"{prefix}{len(values)}"])
        if len(values) > cap:
            raise RemoteProtocolError(f"more than {cap} {prefix} fields")
    present = sum(1 for key in fields if key.startswith(prefix) and key[len(prefix) :].isdigit())
    if present != len(values):
        raise RemoteProtocolError(f"{prefix} fields have a gap")
    return tuple(values)


def _connection(text: str) -> Connection:
    words = text.split(" ")
    if len(words) != 6:
        raise RemoteProtocolError(f"not a connection: {text[:80]!r}")
    fd, family, local_address, local_port, peer_address, peer_port = words
    return Connection(
        _number(fd), _number(family), local_address, _number(local_port), peer_address, _number(peer_port)
    )
