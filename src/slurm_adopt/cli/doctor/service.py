# SPDX-License-Identifier: Apache-2.0
"""The resident service: its sockets, whether it answers, and whether it is the one that is installed."""

from __future__ import annotations

import os
import socket
import stat
import struct

from ...resident.run_files import ADMIN_SOCKET, LOGIN_SOCKET
from ...system.host.preferences import DIRECTORY as PREFERENCES
from ..user_client import SOCKET as USERS_SOCKET
from .finding import ERROR, WARNING, Finding
from .node import mode_fault, shown_mode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .node import Node

#: A service that is up answers in milliseconds; the module gives it most of `timeout=`.
WAIT_S = 1.0
ANSWER_CAP = 1 << 20
START_METRIC = "slurm_adopt_start_time_seconds "
RESTART = "systemctl restart slurm-adopt.service    # or restart `slurm-adopt serve`"
START = "systemctl enable --now slurm-adopt.socket"


def check_service(node: Node) -> Iterator[Finding]:
    """For each socket that a PAM line names, and for the usual one."""
    lines = [line for kind in ("account", "session") for line in node.our_lines(kind) if line.works]
    wanted = {line.options.socket for line in lines if line.options.mode != "oneshot"} or {LOGIN_SOCKET}
    only_service = {line.options.socket for line in lines if line.options.mode == "service"}
    for path in sorted(wanted):
        yield from check_socket(node, path, path in only_service)
    yield from check_users(node)


def check_users(node: Node) -> Iterator[Finding]:
    """The service for users, where the PAM lines count on it; and where it keeps what they have chosen."""
    lines = [line for line in node.our_lines("account", "sshd") if line.works]
    wanted = next(
        (line for line in lines if line.options.action_unknown == "preferred" or line.options.user_move), None
    )
    found = node.stat(USERS_SOCKET)
    if wanted is not None and found is None:
        what = "user_move=yes" if wanted.options.user_move else "action_unknown=preferred"
        yield Finding(
            "users-missing",
            WARNING,
            f"{wanted.line.origin} has {what}, and there is no {USERS_SOCKET}",
            "users can neither choose a job nor move: `slurm-adopt use` and `move` say that the service does not run",
            "systemctl enable --now slurm-adopt-users.socket    # or start `slurm-adopt serve-users --listen "
            f"{USERS_SOCKET}`",
        )
    if found is not None and (found.st_uid != 0 or found.st_mode & 0o666 != 0o666):
        yield Finding(
            "users-socket-mode",
            WARNING,
            f"{USERS_SOCKET}: {shown_mode(found)}",
            "it is for everybody, and root's: the kernel tells the service who asks",
            f"chown root:root {USERS_SOCKET} && chmod 666 {USERS_SOCKET}",
        )
    why = "whoever may write there takes away what others have chosen; `slurm-adopt use` refuses to store anything"
    seen, mend = mode_fault(node, PREFERENCES, 0o700)
    if seen:
        yield Finding("users-folder", ERROR, seen, why, mend)


def check_socket(node: Node, path: str, is_needed: bool) -> Iterator[Finding]:
    """A socket's owner and mode, and who listens there."""
    why = "whoever may write there can put another socket in the service's place, and hold up every login"
    seen, mend = mode_fault(node, os.path.dirname(path), 0o755)
    if seen:
        yield Finding("service-folder", ERROR, seen, why, mend)
    found = node.stat(path)
    if found is None:
        if is_needed:
            yield Finding(
                "service-missing",
                ERROR,
                f"mode=service, but there is no {path}",
                "nobody answers the module: action_generic_failure= holds for each login",
                f"{START}    # or take mode=service off the PAM line",
            )
        return
    if not stat.S_ISSOCK(found.st_mode):
        yield Finding(
            "service-socket",
            WARNING,
            f"{path} is not a socket",
            "the module starts the one-shot helper for each login",
            f"rm {path} && {START}",
        )
        return
    if found.st_uid != 0 or found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield Finding(
            "service-socket-mode",
            WARNING,
            f"{path}: {shown_mode(found)}",
            "users can fill the service's queue; it answers nobody but root",
            f"chown root:root {path} && chmod 600 {path}",
        )
    yield from check_listener(node, path)


def check_listener(node: Node, path: str) -> Iterator[Finding]:
    """Who listens on the modules' socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(WAIT_S)
        try:
            client.connect(node.place(path))
        except (BlockingIOError, TimeoutError, socket.timeout):
            yield _hung(f"the queue of {path} is full")
            return
        except OSError as error:
            yield Finding(
                "service-gone",
                WARNING,
                f"{path} is there, but nobody listens ({error.strerror})",
                "each login starts the one-shot helper: slower, and without numbers and audit stream",
                f"{START}    # or start `slurm-adopt serve --listen {path}` again",
            )
            return
        owner = struct.unpack("=iII", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
        if owner != 0:
            yield Finding(
                "service-untrusted",
                ERROR,
                f"uid {owner} listens on {path}",
                "somebody else is in the service's place; the module does not believe it and starts the helper",
                f"end that process, then rm {path} && {START}",
            )
            return
    # the admin's socket lives as long as the service itself; a service that systemd has yet to start has none
    if path == LOGIN_SOCKET and node.exists(ADMIN_SOCKET):
        yield from check_answer(node)


def check_answer(node: Node) -> Iterator[Finding]:
    """Whether the service's loop turns, and since when."""
    try:
        numbers = ask(node.place(ADMIN_SOCKET))
    except (socket.timeout, TimeoutError):
        yield _hung(f"the service takes connections on {ADMIN_SOCKET}, and does not answer")
        return
    except OSError:
        return  # it has just ended, as it does when nobody logs in
    line = next((line for line in numbers.splitlines() if line.startswith(START_METRIC)), "")
    # the change time: packages keep the time of the last change from when they were built
    installed = os.stat(__file__).st_ctime
    if line and float(line.split()[1]) + 1 < installed:
        yield Finding(
            "service-outdated",
            WARNING,
            "the service runs since before slurm-adopt was installed anew",
            "it decides logins as the version of before did",
            RESTART,
        )


def ask(path: str, word: bytes = b"metrics\n") -> str:
    """The answer of the service on its administrators' socket; `OSError`, `TimeoutError`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(WAIT_S)
        client.connect(path)
        client.sendall(word)
        answer = b""
        while len(answer) < ANSWER_CAP and (piece := client.recv(65536)):
            answer += piece
    return answer.decode("ascii", "replace")


def _hung(seen: str) -> Finding:
    return Finding(
        "service-hung",
        ERROR,
        seen,
        "each login waits four fifths of its timeout= for it, and starts the one-shot helper then",
        RESTART,
    )
