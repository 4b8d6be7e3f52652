# SPDX-License-Identifier: Apache-2.0
"""What a hostile user does in a session: deeds.py DEED NUMBER. Runs on the node's own Python, as the user.

Rules of this file:
1. A line `MANAGED ...` says that something worked which must not. The checker takes it for a violation.
2. Everything is bounded: so many processes, connections and seconds. The node has other users.
3. Nothing stops or kills the session's own processes: the checker waits for its end.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

SERVICE_SOCKETS = ("/run/slurm-adopt/login.sock", "/run/slurm-adopt/admin.sock")
USERS_SOCKET = "/run/slurm-adopt/user.sock"
CLONE_NEWUSER = 0x10000000
FOLDERS, CONNECTIONS, PROCESSES, FORKS = 600, 200, 60, 1500
#: What is left in the background lives so long.
DAEMON_S, NAMED_S = 20, 6
#: user00 and so on; all accept the same key.
USERS, ONWARD_S = 20, 10
TELL = "echo onward $(id -u)=$SLURM_JOB_ID=; cat /proc/self/cgroup; echo =onward; sleep 0.5"
NAMES = (
    "sshd: root [priv]",
    "sshd: user00@notty",
    "slurmstepd: [1.extern]",
    "/usr/bin/python3 -IS /usr/bin/slurm-adopt serve --listen /run/slurm-adopt/login.sock",
    "/usr/bin/python3 -IS /usr/libexec/slurm-adopt/helper",
)


def managed(what: str) -> None:
    print(f"MANAGED {what}", flush=True)


def where() -> str:
    with open("/proc/self/cgroup") as file:
        return file.read()


def cgroups(_chance: random.Random) -> None:
    """Write this process into every cgroup that there is."""
    before = where()
    for folder in _folders("/sys/fs/cgroup"):
        for name in ("cgroup.procs", "tasks"):
            with contextlib.suppress(OSError):
                with open(f"{folder}/{name}", "w") as file:
                    file.write(str(os.getpid()))
                if where() != before:
                    managed(f"to write itself into {folder}/{name}")
                    return


def _folders(top: str) -> Iterator[str]:
    left = FOLDERS
    for folder, _, _ in os.walk(top):
        yield folder
        left -= 1
        if not left:
            return


def service(chance: random.Random) -> None:
    """Connect to what is root's only, as oneself and as root of a user namespace."""
    for path in SERVICE_SOCKETS:
        _flood(path, chance, "an answer")
    if _start(lambda: _as_root_of_a_namespace(chance), speaks=True):
        os.wait()


def _as_root_of_a_namespace(chance: random.Random) -> None:
    uid = os.getuid()
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER):
        return
    with contextlib.suppress(OSError):
        with open("/proc/self/setgroups", "w") as file:
            file.write("deny")
        with open("/proc/self/uid_map", "w") as file:
            file.write(f"0 {uid} 1")
    for path in SERVICE_SOCKETS:
        _flood(path, chance, "an answer, as root of a user namespace")


def users(chance: random.Random) -> None:
    """Connect to what is everybody's, say nonsense or nothing, and stay."""
    _flood(USERS_SOCKET, chance, "")


def _flood(path: str, chance: random.Random, must_not: str) -> None:
    """Many connections at once for a second. `must_not`: what no byte may come back as."""
    kind = socket.SOCK_STREAM if path.endswith("admin.sock") else socket.SOCK_SEQPACKET
    held = []
    for _ in range(CONNECTIONS):
        client = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
        held.append(client)
        with contextlib.suppress(OSError):
            client.connect(path)
            if chance.randrange(2):
                client.send(b"metrics\n" if kind == socket.SOCK_STREAM else chance.randbytes(chance.randrange(1, 3000)))
    time.sleep(1)
    for client in held:
        with contextlib.suppress(OSError):
            if client.recv(100) and must_not:
                managed(f"to get {must_not} from {path}")
        client.close()


def move(chance: random.Random) -> None:
    """Into some job near one's own: one's own, another user's, or none."""
    own = int(os.environ.get("SLURM_JOB_ID") or 1)
    for _ in range(4):
        job = max(1, own + chance.randrange(-6, 7))
        for word in ("move", "use"):
            with contextlib.suppress(subprocess.SubprocessError):
                command = ["slurm-adopt", word, str(job)]
                subprocess.run(command, check=False, timeout=3, stdin=subprocess.DEVNULL, capture_output=True)


def onward(chance: random.Random) -> None:
    """A login whose source is a job of one's own: as oneself it may go there, as somebody else it must not."""
    own = int(os.environ["USER"][len("user") :])
    for number in (own, chance.randrange(USERS)):
        argv = ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={ONWARD_S}", f"user{number:02d}@127.0.0.1", TELL]
        subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def daemons(_chance: random.Random) -> None:
    """In sessions of their own, with no parent, deaf to what can be ignored."""

    def daemon() -> None:
        os.setsid()
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        _start(lambda: _sleep("sleep", DAEMON_S))

    for _ in range(3):
        _start(daemon)


def names(_chance: random.Random) -> None:
    """By the command line, and by the short name."""

    def short() -> None:
        with open("/proc/self/comm", "w") as file:
            file.write("sshd")
        time.sleep(NAMED_S)

    for name in NAMES:
        _start(partial(_sleep, name, NAMED_S))
    _start(short)


def _sleep(name: str, seconds: int) -> None:
    os.execv("/bin/sleep", [name, str(seconds)])  # noqa: S606  # no shell: the name has brackets


def limits(_chance: random.Random) -> None:
    """As many processes and descriptors as one may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    few = PROCESSES if hard == resource.RLIM_INFINITY else min(hard, PROCESSES)
    resource.setrlimit(resource.RLIMIT_NPROC, (few, hard))
    for _ in range(PROCESSES):
        if not _start(lambda: time.sleep(3)):
            break
    with contextlib.suppress(OSError):
        held = [os.open("/dev/null", os.O_RDONLY)]
        while len(held) < 5000:
            held.append(os.dup(held[0]))
    time.sleep(2)


def signals(_chance: random.Random) -> None:
    """Stop whatever is somebody else's."""
    own = os.getuid()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid == own or not _is_anothers(name, own):
                continue
            os.kill(int(name), signal.SIGSTOP)
            os.kill(int(name), signal.SIGCONT)
            if _is_anothers(name, own):  # still: an sshd may have become one's own just now
                managed(f"to signal process {name}")


def _is_anothers(name: str, own: int) -> bool:
    """By all of its uids: /proc shows one's own sshd as root's, and it may be signalled."""
    with open(f"/proc/{name}/status") as file:
        status = file.read()
    return str(own) not in status.partition("\nUid:")[2].partition("\n")[0].split()


def forks(_chance: random.Random) -> None:
    """Process numbers come and go."""
    until = time.monotonic() + 3
    for _ in range(FORKS):
        if time.monotonic() > until or not _start(lambda: None):
            return
        os.wait()


def _start(act: Callable[[], object], speaks: bool = False) -> int:
    """In a child, without the session's output unless it speaks; its number, 0 if there can be none."""
    try:
        pid = os.fork()
    except OSError:
        return 0
    if pid:
        return pid
    try:
        null = os.open("/dev/null", os.O_RDWR)
        for number in (0,) if speaks else (0, 1, 2):
            os.dup2(null, number)
        act()
    finally:
        os._exit(0)


DEEDS: dict[str, Callable[[random.Random], None]] = {
    act.__name__: act for act in (cgroups, service, users, move, onward, daemons, names, limits, signals, forks)
}

if __name__ == "__main__":
    DEEDS[sys.argv[1]](random.Random(int(sys.argv[2])))
