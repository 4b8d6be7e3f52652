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
from .fields import (
    FIELD_CAP,
    TEXT_CAP,
    check_rest,
    decode_fields,
    encode_fields,
    number_of,
    one_line,
    take_family,
    take_texts,
)
from .fields import PACKET_CAP as PACKET_CAP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model import Phase

ARG_CAP = 32
CONNECTION_CAP = 8
USER_CAP = 256
SERVICE_CAP = 64
LOG_CAP = 1024

PHASES = ("account", "open_session", "close_session")
RESULTS = ("success", "ignore", "perm_denied", "session_err", "retry")
LEVELS = ("err", "warning", "notice", "info", "debug")
NAMESPACES = ("user", "pid", "mount", "ipc", "uts", "net", "cgroup")


@record
class Connection:
    """A connected TCP socket among the caller's own descriptors.

    Addresses are text as `inet_ntop` writes it, a link-local one with `%` and the number of its link. `family` is 4 or
    6, `fd` is the caller's descriptor number.
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
    """The module's request. `deadline_ns` is a point of CLOCK_MONOTONIC; `job` and `chosen` are SLURM_JOB_ID and
    SLURM_ADOPT_CHOSEN of the PAM environment; `strict`: the account line refuses what fails. `account`: what it
    has answered in the same process, `asked` or `left`."""

    phase: Phase
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
    auth: str = ""
    strict: bool = False
    account: str = ""

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise RemoteProtocolError(f"unknown phase {self.phase!r}")
        if not 0 <= self.uid < 0xFFFFFFFF:
            raise RemoteProtocolError(f"impossible uid {self.uid}")
        if not self.user or len(self.user) > USER_CAP or len(self.service) > SERVICE_CAP:
            raise RemoteProtocolError("user or service name is empty or too long")


@record
class LoginReply:
    """The reply that the module carries out. `joins` names namespaces; their descriptors come beside it, in order.

    `hold`: slurmstepd may still move the caller's number, which must not be given to another process meanwhile.
    `leave`: the session phase is to leave this login alone."""

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
    unset: tuple[str, ...] = ()
    hold: bool = False
    leave: bool = False

    def __post_init__(self) -> None:
        if self.result not in RESULTS or self.level not in LEVELS or not self.reason:
            raise LocalProtocolError(f"bad reply {self!r}")
        if not self.joins:
            return
        if any(kind not in NAMESPACES for kind in self.joins):
            raise LocalProtocolError(f"unknown namespace in {self.joins}")
        if self.join_failed not in RESULTS:
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
        ("AUTH", request.auth),
        ("STRICT", "1" if request.strict else ""),
        ("ACCOUNT", request.account),
    ]
    fields += [(f"ARG{index}", arg) for index, arg in enumerate(request.args)]
    for index, conn in enumerate(request.connections):
        words = (conn.fd, conn.family, conn.local_address, conn.local_port, conn.peer_address, conn.peer_port)
        fields.append((f"CONN{index}", " ".join(map(str, words))))
    return encode_fields(fields)


def decode_request(packet: bytes) -> LoginRequest:
    """A request packet as a validated record."""
    fields = decode_fields(packet)
    phase, deadline, service, user, uid = take_texts(fields, "PHASE", "DEADLINE", "SERVICE", "USER", "UID")
    take = fields.pop
    rhost, tty, job = take("RHOST", ""), take("TTY", ""), take("JOB", "")
    chosen, auth, strict = take("CHOSEN", ""), take("AUTH", ""), take("STRICT", "")
    if strict not in ("", "1"):
        raise RemoteProtocolError(f"STRICT={strict[:20]!r}")
    account = take("ACCOUNT", "")
    if account not in ("", "asked", "left"):
        raise RemoteProtocolError(f"ACCOUNT={account[:20]!r}")
    args = take_family(fields, "ARG", ARG_CAP)
    connections = tuple(map(_connection, take_family(fields, "CONN", CONNECTION_CAP)))
    check_rest(fields, "ARG", "CONN")
    names = (service, user, number_of(uid), rhost, tty, job)
    # __post_init__ refuses another phase
    return LoginRequest(phase, number_of(deadline), *names, args, connections, chosen, auth, bool(strict), account)  # type: ignore[arg-type]


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
    if reply.hold:
        fields.append(("HOLD", "1"))
    if reply.leave:
        fields.append(("LEAVE", "1"))
    for index, name in enumerate(reply.unset):
        fields.append((f"UNSET{index}", name))
    for index, (name, value) in enumerate(reply.env):
        fields.append((f"ENV{index}", f"{name}={value}"))
    if reply.joins:
        fields += [(f"JOIN{index}", kind) for index, kind in enumerate(reply.joins)]
        fields += [("JOIN_FAILED", reply.join_failed), ("JOIN_ERROR", one_line(reply.join_error, TEXT_CAP))]
    return encode_fields(fields)


def decode_reply(packet: bytes) -> LoginReply:
    """A reply packet as a validated record (for tests and tools; the module has its own parser)."""
    fields = decode_fields(packet)
    result, reason = take_texts(fields, "RESULT", "REASON")
    env = []
    for item in take_family(fields, "ENV", FIELD_CAP):
        name, mark, value = item.partition("=")
        if not name or not mark:
            raise RemoteProtocolError(f"not NAME=VALUE: {item!r}")
        env.append((name, value))
    unset = _names(take_family(fields, "UNSET", FIELD_CAP))
    joins = take_family(fields, "JOIN", len(NAMESPACES))
    check_rest(fields, "ENV", "UNSET", "JOIN")
    try:
        return LoginReply(
            result=result,
            reason=reason,
            level=fields.get("LEVEL", "info"),
            log=fields.get("LOG", ""),
            error=fields.get("ERROR", ""),
            info=fields.get("INFO", ""),
            env=tuple(env),
            unset=unset,
            hold=fields.get("HOLD") == "1",
            leave=fields.get("LEAVE") == "1",
            joins=joins,
            join_failed=fields.get("JOIN_FAILED", ""),
            join_error=fields.get("JOIN_ERROR", ""),
        )
    except LocalProtocolError as error:
        raise RemoteProtocolError(str(error)) from None


def _names(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not name or "=" in name:
            raise RemoteProtocolError(f"not a variable's name: {name!r}")
    return names


def _connection(text: str) -> Connection:
    words = text.split(" ")
    if len(words) != 6:
        raise RemoteProtocolError(f"not a connection: {text[:80]!r}")
    fd, family, local_address, local_port, peer_address, peer_port = words
    return Connection(
        number_of(fd), number_of(family), local_address, number_of(local_port), peer_address, number_of(peer_port)
    )
