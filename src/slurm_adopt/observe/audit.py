# SPDX-License-Identifier: Apache-2.0
"""The audit stream: one line of JSON for each login, and for each end of a session.

    {"event": "login", "time": ..., "user": ..., "uid": ..., "from": ..., "service": ..., "phase": ..., "verdict": ...,
     "reason": ..., "job": ..., "chosen": ..., "where": ..., "pid": ..., "ms": ..., "path": ..., "caller": ...,
     "security": ..., "auth": [...], "failed": [...], "enforce": "no" | "adopt", "facts": {...}, "options": [...],
     "strict": true}
    {"event": "end", "time": ..., "user": ..., "uid": ..., "from": ..., "job": ..., "pid": ..., "start": ...,
     "seconds": ..., "why": "logout" | "job-ended" | "process-ended" | "unobserved", "auth": [...]}
    {"event": "job-name", "time": ..., "user": ..., "uid": ..., "job": 4703, "name": "4700_11"}

sshd tells in the session phase how the user authenticated, so `auth` is in the line of the end; in that of the
login only if the session phase is the one that decided. With `enforce` the verdict is what it would have been.
`facts`, `options` (of the PAM line) and `strict` (the account line refuses what fails) are all that the decision
depends on: `login.recorded` makes facts of them again.

Rules of this file:
1. Times are UTC, RFC 3339 with milliseconds. `where` is what the kernel shows, read after the decision.
2. Plain ASCII: whatever a user or host is called, a line is one line.
3. A file is only ever appended to, whole lines, and must not be a link, or anybody's but root's (`files.append`).
4. A login that writes nothing down is still a login: failures are counted, never raised.
"""

from __future__ import annotations

import binascii
import importlib
import json
import sys
import time

from ..system.host.journal import LogSender
from ..system.kernel.procfs import read_cgroups
from ..system.tasks.files import append
from ..wire.cgroup_path import decode_cgroups, extern_step, lines_of_jobs
from ..wire.errors import RemoteProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..system.kernel.procfs import AnyProcess
    from .metrics import Metrics
    from .notes import Decided, MoveNote

#: AuthenticationMethods with more than this in a row do not exist.
METHOD_CAP = 8
IDENTIFIER = "slurm-adopt-audit"


class AuditFault(Exception):
    """The audit file cannot be used; the message says why."""


class Audit:
    """Where audit lines go: the journal, a file, both or nowhere."""

    def __init__(self, metrics: Metrics, journal: bool, path: str = "") -> None:
        self._metrics = metrics
        self._sender = LogSender(IDENTIFIER) if journal else None
        self._path = path
        self.enabled = journal or bool(path)
        if path:
            _append(path, b"")

    def write(self, event: dict[str, Any]) -> None:
        """One line. The file is opened each time, so that logrotate needs no signal."""
        if not self.enabled:
            return
        line = json.dumps(event, ensure_ascii=True, separators=(",", ":"))
        lost = self._sender is not None and not self._sender.send(line)
        if self._path:
            try:
                _append(self._path, line.encode("ascii") + b"\n")
            except AuditFault:
                lost = True
        if lost:
            self._metrics.count("slurm_adopt_audit_lost_total")


def login_event(decided: Decided, path: str) -> dict[str, Any]:
    """A decided login as an event."""
    event: dict[str, Any] = {
        "event": "login",
        "time": stamp(decided.when),
        "user": decided.user,
        "uid": decided.uid,
        "from": decided.source,
        "service": decided.service,
        "phase": decided.phase,
        "verdict": decided.action,
        "reason": decided.reason,
        "job": decided.job or None,
        "chosen": decided.chosen or None,
        "where": where_of(decided) if decided.job and decided.action == "allow" else "",
        "pid": decided.pid or None,
        "ms": round(decided.seconds * 1000, 3),
        "path": path,
    }
    if decided.caller != "not-asked":
        event["caller"] = decided.caller
    if decided.security:
        event["security"] = decided.security
    auth = auth_methods(decided.auth)
    if auth:
        event["auth"] = auth
    if decided.failed:
        event["failed"] = list(decided.failed)
    if decided.enforce != "yes":
        event["enforce"] = decided.enforce
    event["facts"], event["options"] = decided.facts, list(decided.args)
    if decided.strict:
        event["strict"] = True
    return event


def move_event(note: MoveNote, user: str) -> dict[str, Any]:
    """A login that its user has moved, or wanted to, as an event; `user` is empty if the login is not watched."""
    return {
        "event": "move",
        "time": stamp(note.when),
        "user": user,
        "uid": note.uid,
        "job": note.job,
        "result": note.result,
        "reason": note.reason,
        "where": where_of(note) if note.result == "ok" else "",
        "pid": note.pid or None,
    }


def auth_methods(text: str) -> list[str]:
    """sshd's SSH_AUTH_INFO_0 as words: `publickey SHA256:…` as ssh-keygen -l shows it, `password`, ….

    A line is a method, for keys followed by the key's type and its base64 (sshd(8), ExposeAuthInfo).
    """
    methods = []
    for line in text.splitlines()[:METHOD_CAP]:
        words = line.split(" ")
        if len(words) >= 3:
            try:
                digest = _sha256(binascii.a2b_base64(words[2]))
            except ValueError:
                continue
            shown = binascii.b2a_base64(digest, newline=False).decode().rstrip("=")
            methods.append(f"{words[0]} SHA256:{shown}")
        elif words[0]:
            methods.append(words[0])
    return methods


def _sha256(data: bytes) -> bytes:
    """hashlib brings in OpenSSL, 4 MiB of a service that is to stay below 25; python has the function built in."""
    # the right name first: looking for a module that is not there costs a login 0.1 ms
    try:
        module = importlib.import_module("_sha2" if sys.version_info >= (3, 12) else "_sha256")
    except ImportError:  # a python built without
        module = importlib.import_module("hashlib")
    digest: bytes = module.sha256(data).digest()
    return digest


def where_of(process: AnyProcess) -> str:
    """The cgroup of the extern step that a process is in, as the kernel says now; empty if it is in none."""
    try:
        found = extern_step(decode_cgroups(lines_of_jobs(read_cgroups(process) or b"")))
    except RemoteProtocolError:
        return ""
    return found.top if found is not None else ""


def stamp(seconds: float) -> str:
    """Seconds since 1970 as RFC 3339, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"


def _append(path: str, line: bytes) -> None:
    try:
        append(path, line)
    except OSError as error:
        raise AuditFault(f"{path}: {error.strerror}") from None
