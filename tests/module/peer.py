#!/usr/bin/python3 -IS
# SPDX-License-Identifier: Apache-2.0
"""The hostile other end: one-shot helper (descriptor 0) or service (`--listen PATH SCENARIO`), by scenario name.

The module starts it without arguments or environment, so a one-shot run reads its scenario from `scenario` beside
this file and writes what it saw to `seen` there.
"""

from __future__ import annotations

import os
import sys
import time

sys.path[:] = [p for p in sys.path if p]
import _socket  # noqa: E402  # only after the path is safe

HERE = os.path.dirname(os.path.abspath(__file__))
SCM_RIGHTS = _socket.SCM_RIGHTS
NAMESPACES = {"mount": "mnt"}


def packet(*fields: str) -> bytes:
    return b"".join(field.encode("utf-8", "surrogateescape") + b"\0" for field in fields)


OK = packet("V=1", "RESULT=success", "REASON=adopted", "LEVEL=info", "LOG=verdict=allow reason=adopted")


def answer(result: str, *more: str) -> bytes:
    return packet("V=1", f"RESULT={result}", "REASON=no-job", *more)


def fill(total: int, count: int) -> bytes:
    """A valid reply of exactly `count` fields and, by its last one, `total` bytes."""
    fields = ["V=1", "RESULT=success", "REASON=adopted"] + [f"X{n}=" for n in range(count - 3)]
    data = packet(*fields)
    return data[:-1] + b"x" * (total - len(data)) + b"\0"


BYTES = {
    "good": OK,
    "good-4096": fill(4096, 64),
    "retry": answer("retry"),
    "ignore": answer("ignore"),
    "denied": answer("perm_denied", "ERROR=Access denied: no job", "LEVEL=notice", "LOG=verdict=deny reason=no-job"),
    "session-err": answer("session_err", "ERROR=no"),
    "unknown-key": OK + packet("NEWS=from the future"),
    "hold": answer("perm_denied", "ERROR=Access denied: silent", "HOLD=1"),
    "leave": answer("success", "LEAVE=1"),
    "controls": answer("perm_denied", "ERROR=a\x1b[2Jb\nc\rd\x7f", "LOG=one\ntwo\x1b %s%n%d", "LEVEL=warning"),
    "utf8": answer("perm_denied", "ERROR=h\xe9las"),
    "empty-text": answer("perm_denied", "ERROR=", "INFO=", "LOG="),
    "info": answer("success", "INFO=in job 5", "ENV0=SLURM_JOB_ID=5", "ENV1=EMPTY="),
    "denied-env": answer("perm_denied", "ENV0=SLURM_JOB_ID=5", "INFO=never shown"),
    "percent": answer("perm_denied", "ERROR=%s%n%s", "LOG=%n%s"),
    # malformed
    "leave-what": answer("success", "LEAVE=2"),
    "garbage": bytes(range(1, 256)),
    "nul": b"\0",
    "oversize": fill(4097, 60),
    "huge": fill(60000, 60),
    "good-and-more": fill(4096, 64) + b"more",
    "truncated": OK[:-1],
    "duplicate": OK + packet("REASON=adopted"),
    "duplicate-unknown": OK + packet("A=1", "A=1"),
    "bad-result": answer("granted"),
    "no-result": packet("V=1", "REASON=adopted"),
    "no-reason": packet("V=1", "RESULT=success"),
    "bad-reason": packet("V=1", "RESULT=success", "REASON=a b"),
    "no-version": OK[4:],
    "late-version": OK[4:] + packet("V=1"),
    "version-2": packet("V=2") + OK[4:],
    "fields-65": fill(1000, 65),
    "bad-level": packet("V=1", "RESULT=success", "REASON=adopted", "LEVEL=emerg"),
    "no-equals": OK + b"PLAIN\0",
    "lower-key": OK + packet("key=1"),
    "long-key": OK + packet("K" * 25 + "=1"),
    "env-gap": OK + packet("ENV1=A=1"),
    "unset": answer("success", "ENV0=SLURM_JOB_ID=5", "ENV1=KEPT=1", "UNSET0=SLURM_JOB_ID", "UNSET1=NEVER_THERE"),
    "unset-value": OK + packet("UNSET0=A=B"),
    "unset-empty": OK + packet("UNSET0="),
    "unset-gap": OK + packet("UNSET1=A"),
    "env-name": OK + packet("ENV0=A"),
    "env-empty-name": OK + packet("ENV0==1"),
    "join-without-fd": OK + packet("JOIN0=mount", "JOIN_FAILED=session_err"),
}


def send(sock: _socket.socket, data: bytes, kinds: tuple[str, ...] = ()) -> None:
    """The packet, with descriptors of this process's namespaces of the given kinds."""
    fds = [os.open(f"/proc/self/ns/{NAMESPACES.get(kind, kind)}", os.O_RDONLY) for kind in kinds]
    raw = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
    sock.sendmsg([data], [(_socket.SOL_SOCKET, SCM_RIGHTS, raw)] if fds else [])
    for fd in fds:
        os.close(fd)


def joins(*kinds: str, failed: str = "session_err", more: tuple[str, ...] = ()) -> bytes:
    fields = [f"JOIN{index}={kind}" for index, kind in enumerate(kinds)]
    return packet(
        "V=1", "RESULT=success", "REASON=adopted", *fields, f"JOIN_FAILED={failed}", "JOIN_ERROR=no container", *more
    )


def unshare(flags: int) -> None:
    import ctypes

    if ctypes.CDLL(None).unshare(flags) != 0:
        raise OSError("unshare")


NEWUTS, NEWIPC = 0x04000000, 0x08000000


def act(scenario: str, sock: _socket.socket) -> None:
    """What the scenario says, after the request has been read. Returning is a normal exit without more."""
    if scenario in BYTES:
        send(sock, BYTES[scenario])
    elif scenario == "silent":
        time.sleep(20)
    elif scenario == "late":
        time.sleep(6)
        send(sock, OK)
    elif scenario == "slow":
        time.sleep(0.15)
        send(sock, OK)
    elif scenario == "exit":
        os._exit(3)
    elif scenario == "stop":
        os.kill(os.getpid(), 19)
    elif scenario == "drip":
        send(sock, b"V")
        for byte in OK:
            time.sleep(0.01)
            send(sock, bytes([byte]))
    elif scenario == "empty-packet":
        send(sock, b"", ("uts",))
        send(sock, OK)
    elif scenario == "two-answers":
        send(sock, BYTES["denied"])
        send(sock, OK)
    elif scenario == "grandchild":
        if os.fork() == 0:
            time.sleep(20)
        os._exit(0)
    elif scenario == "nobody-sends":
        os.setresuid(65534, 65534, 65534)
        send(sock, OK)
    elif scenario == "deaf":
        send(sock, OK)
        time.sleep(20)
    elif scenario in ("fd-unasked", "denied-with-fd"):
        send(sock, BYTES["good" if scenario == "fd-unasked" else "denied"], ("uts",))
    elif scenario == "fd-too-few":
        send(sock, joins("uts", "ipc"), ("uts",))
    elif scenario == "fd-too-many":
        send(sock, joins("uts"), ("uts", "ipc"))
    elif scenario == "fd-flood":
        send(sock, joins("uts"), ("uts",) * 200)
    elif scenario == "fd-nine":
        send(sock, joins("uts"), ("uts",) * 9)
    elif scenario == "join-unknown":
        send(sock, joins("time"), ("uts",))
    elif scenario == "join-no-failed":
        send(sock, OK + packet("JOIN0=uts"), ("uts",))
    elif scenario == "join":
        unshare(NEWUTS | NEWIPC)
        send(sock, joins("uts", "ipc", more=("ENV0=IN=container", "INFO=in", "LOG=joined")), ("uts", "ipc"))
    elif scenario == "join-half":
        unshare(NEWUTS)
        send(sock, joins("uts", "mount", failed="success"), ("uts", "ipc"))
    elif scenario in ("join-none-deny", "join-none-allow"):
        failed = "success" if scenario.endswith("allow") else "session_err"
        send(sock, joins("mount", failed=failed, more=("ENV0=A=1", "INFO=in", "LOG=joined")), ("uts",))
    else:
        raise ValueError(scenario)


def look_around(request: bytes) -> None:
    """Notes the request and what this process inherited, for the tests to read."""
    parent = os.getppid()
    status = open("/proc/self/status", encoding="ascii").read().splitlines()
    facts = {
        "request": request,
        "env": open("/proc/self/environ", "rb").read(),
        "argv": sys.argv[1:],
        "cwd": os.getcwd(),
        "umask": os.umask(0),
        "fds": {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in map(int, os.listdir("/proc/self/fd")) if fd < 3},
        "fd_count": len(os.listdir("/proc/self/fd")) - 1,
        "signals": {line.split(":")[0]: line.split()[1] for line in status if line.startswith("Sig")},
        "uids": next(line.split()[1:] for line in status if line.startswith("Uid")),
        "leader": os.getsid(0) == os.getpid(),
        "pid": os.getpid(),
        "parent_low_fds": [fd for fd in range(3) if os.path.lexists(f"/proc/{parent}/fd/{fd}")],
        "now_ns": time.monotonic_ns(),
    }
    with open(HERE + "/seen.new", "w", encoding="utf-8") as out:
        out.write(repr(facts))
    os.rename(HERE + "/seen.new", HERE + "/seen")


def main() -> None:
    if len(sys.argv) == 1:
        with open(HERE + "/scenario", encoding="ascii") as source:
            scenario = source.read()
        sock = _socket.socket(fileno=0)
        if scenario == "exit-unread":
            sys.exit(3)
        if scenario != "deaf":
            look_around(sock.recv(65536))
        act(scenario, sock)
        return
    path, scenario = sys.argv[1:]
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    listener.bind(path)
    os.chmod(path, 0o666)
    if scenario == "foreign":
        os.setresuid(65534, 65534, 65534)
    listener.listen(0 if scenario == "full" else 64)
    if scenario == "full":
        filler = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        filler.connect(path)
    os.write(1, b"ready\n")
    if scenario == "full":
        time.sleep(60)
    while True:
        fd, _ = listener._accept()  # type: ignore[attr-defined]
        sock = _socket.socket(fileno=fd)
        if scenario == "closes":
            sock.close()
            continue
        request = sock.recv(65536)
        if scenario == "half-way" or not request:
            sock.close()
            continue
        if os.fork() == 0:  # in a child: a silent scenario must not hold up the next login of the same test
            listener.close()
            if not scenario.startswith("join"):
                look_around(request)
            try:
                act("good" if scenario == "foreign" else scenario, sock)
            finally:
                os._exit(0)
        sock.close()


main()
