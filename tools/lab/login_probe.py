# SPDX-License-Identifier: Apache-2.0
"""Opens logins of many kinds on one machine, looks where their processes are, cancels the job, looks what is left.

1. It runs on the machine under test, on that machine's own Python (3.9 and later), given as a file: one
   program run there instead of hundreds of remote calls, and the same on every kind of target.
2. It believes the kernel only. A login is found by its TCP connection (each client has a source address of
   its own, 127.0.1.N), its processes by who holds that socket and by descent, the job by /proc/PID/cgroup.
3. Whatever it has opened is gone when it ends.

stdin: {"user", "uid", "password", "job", "ports": {method: port}, "logins": [[method, kind], ...], "grace_s",
"parallel"}
stdout: [{"method", "kind", "opened", "said", "user": [PROCESS], "sshd": [PROCESS], "left": [PROCESS],
"forwards_after": bool}, ...]; PROCESS: {"pid", "started", "uid", "name", "cgroup"}.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

OPEN_TIMEOUT_S = 240
"""Under emulation one login takes seconds."""
_OPTIONS = (
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "LogLevel=ERROR",
    "ConnectTimeout=240",
    "NumberOfPasswordPrompts=1",
)


class Login:
    """One login; `method` as in AuthenticationMethods, `kind` one of those in `_command`."""

    def __init__(self, spec: dict[str, Any], number: int, method: str, kind: str, folder: str) -> None:
        self.spec = spec
        self.method, self.kind = method, kind
        self.source = f"127.0.1.{number + 1}"
        self.port = int(spec["ports"][method])
        self.forward = 20000 + number
        self.control = f"{folder}/{number}"
        self.said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  closed with us
        self.clients: list[subprocess.Popen[str]] = []
        self.opened = False
        self.user: list[dict[str, Any]] = []
        self.sshd: list[dict[str, Any]] = []
        self.left: list[dict[str, Any]] = []
        self.forwards_after = False

    def start(self) -> None:
        self.began = time.monotonic()
        self._client(self._command(), self.method not in ("publickey", "hostbased"))

    def _client(self, argv: list[str], asks: bool) -> None:
        # for X11 the client needs no more than a display's name until somebody draws
        forwarded = {"SSH_AUTH_SOCK": self.spec["agent"], "DISPLAY": "127.0.0.1:99"}
        environment = {**os.environ, **forwarded, "SSHPASS": self.spec["password"]}
        self.clients.append(
            subprocess.Popen(
                (["sshpass", "-e"] if asks else []) + argv,
                env=environment,
                text=True,
                stdin=subprocess.PIPE,
                stdout=self.said,
                stderr=self.said,
                start_new_session=True,
            )
        )

    def _command(self) -> list[str]:
        offered = f"PreferredAuthentications={self.method}"
        options = [part for option in (*_OPTIONS, offered, f"BindAddress={self.source}") for part in ("-o", option)]
        options += ["-o", "BatchMode=yes"] if self.method in ("publickey", "hostbased") else []
        options += ["-o", "HostbasedAuthentication=yes"] if self.method == "hostbased" else []
        where = f"{self.spec['user']}@127.0.0.1"
        ssh = ["ssh", "-p", str(self.port), *options]
        if self.kind == "pty":
            return [*ssh, "-tt", where]
        if self.kind == "command":
            return [*ssh, where, "sleep 98765"]
        if self.kind == "agent":
            return [*ssh, "-A", where, "ssh-add -l; [ $? = 1 ] && exec sleep 98765"]  # 1: an agent without keys
        if self.kind == "x11":
            return [*ssh, "-Y", where, 'test -n "$DISPLAY" && exec sleep 98765']
        if self.kind == "sftp":
            return ["sftp", "-P", str(self.port), *options, where]
        if self.kind == "scp":  # 8 Kbit/s: it takes longer than the test
            return ["scp", "-l", "8", "-P", str(self.port), *options, sys.executable, f"{where}:/dev/null"]
        if self.kind == "forward":
            return [*ssh, "-N", "-L", f"127.0.0.1:{self.forward}:127.0.0.1:{self.port}", where]
        assert self.kind == "mux", self.kind
        return [*ssh, "-M", "-S", self.control, "-N", where]

    def look(self) -> bool:
        """Whether the login is fully there; if so, its processes are noted."""
        if self.kind == "mux" and len(self.clients) == 1:
            if os.path.exists(self.control):
                where = f"{self.spec['user']}@127.0.0.1"
                self._client(["ssh", "-S", self.control, "-o", "ControlMaster=no", where, "sleep 98765"], False)
            return False
        if self.kind == "forward" and not self.forwards():
            return False
        sshd, below = server_side(self.port, self.source)
        users = [process for process in below if process["uid"] == self.spec["uid"]]
        if self.kind != "forward":
            users = [process for process in users if not process["name"].startswith("sshd")]
            wanted = {"pty": "bash", "sftp": "", "scp": ""}.get(self.kind, "sleep")
            if wanted and not any(process["name"] == wanted for process in users):
                return False
        # root's share of the connection: the process that lives on and that everything else descends from
        root = [process for process in sshd if process["uid"] == 0]
        if users and root:
            time.sleep(0.5)  # a process that has just begun may still be moved
            self.user = [again for process in users if (again := read_again(process))]
            self.sshd = [again for process in root if (again := read_again(process))]
            self.opened = bool(self.user and self.sshd)
        return self.opened

    def forwards(self) -> bool:
        """Whether the forwarding still carries bytes: at its far end sshd says its version."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.forward), 2) as connection:
            connection.settimeout(5)
            return connection.recv(4) == b"SSH-"
        return False

    def ended(self) -> bool:
        return any(client.poll() is not None for client in self.clients)

    def close(self) -> None:
        for client in self.clients:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(client.pid, signal.SIGKILL)
            client.wait()
            if client.stdin:
                with contextlib.suppress(OSError):
                    client.stdin.close()

    def report(self) -> dict[str, Any]:
        self.said.seek(0)
        return {
            "method": self.method,
            "kind": self.kind,
            "opened": self.opened,
            "said": self.said.read()[-2000:],
            "user": self.user,
            "sshd": self.sshd,
            "left": self.left,
            "forwards_after": self.forwards_after,
        }


def server_side(port: int, source: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(processes that hold the server's end of the connection, these and all that descend from them)."""
    inodes = {f"socket:[{inode}]" for inode in connection_inodes(port, source)}
    table = {process["pid"]: process for process in all_processes()}
    holders = {pid for pid in table if inodes & set(descriptors(pid))}
    family = set(holders)
    while True:
        more = {pid for pid, process in table.items() if process["parent"] in family} - family
        if not more:
            break
        family |= more
    return [table[pid] for pid in sorted(holders)], [table[pid] for pid in sorted(family)]


def connection_inodes(port: int, source: str) -> list[str]:
    remote = struct.pack("<I", struct.unpack(">I", socket.inet_aton(source))[0]).hex().upper()
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{port:04X}") and fields[2].startswith(remote) and fields[3] == "01":
            found.append(fields[9])
    return found


def descriptors(pid: int) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def read_process(pid: int) -> dict[str, Any] | None:
    """None if it is gone; a zombie is."""
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").partition("(")[2].rpartition(")")
        fields = rest.split()
        uid = os.stat(f"/proc/{pid}").st_uid
        cgroup = Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return None
    if fields[0] in "ZX":
        return None
    return {
        "pid": pid,
        "parent": int(fields[1]),
        "started": int(fields[19]),
        "uid": uid,
        "name": name,
        "cgroup": cgroup,
    }


def read_again(process: dict[str, Any]) -> dict[str, Any] | None:
    now = read_process(process["pid"])
    return now if now and now["started"] == process["started"] else None


def all_processes() -> list[dict[str, Any]]:
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [process for pid in pids if (process := read_process(pid))]


def open_all(logins: list[Login], parallel: int) -> None:
    waiting = list(logins)
    pending: list[Login] = []
    while waiting or pending:
        while waiting and len(pending) < parallel:
            pending.append(waiting.pop(0))
            pending[-1].start()
        for login in list(pending):
            late = time.monotonic() - login.began > OPEN_TIMEOUT_S
            if login.look() or login.ended() or late:
                pending.remove(login)
        time.sleep(0.2)


def cancel(job: int, timeout_s: float) -> None:
    """Cancel the job and wait until Slurm says that it is over."""
    subprocess.run(["scancel", str(job)], check=False)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        listed = subprocess.run(
            ["squeue", "-h", "-j", str(job), "-o", "%T"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        ).stdout.strip()
        if not listed:
            return
        time.sleep(0.5)


def main() -> None:
    spec = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        logins = [Login(spec, number, method, kind, folder) for number, (method, kind) in enumerate(spec["logins"])]
        spec["agent"] = f"{folder}/agent"
        agent = subprocess.Popen(["ssh-agent", "-D", "-a", spec["agent"]], stdout=subprocess.DEVNULL)
        try:
            open_all(logins, spec["parallel"])
            cancel(spec["job"], 240)
            time.sleep(spec["grace_s"])
            for login in logins:
                login.left = [again for process in login.user + login.sshd if (again := read_again(process))]
                login.forwards_after = login.kind == "forward" and login.opened and login.forwards()
            json.dump([login.report() for login in logins], sys.stdout)
        finally:
            agent.kill()
            agent.wait()
            for login in logins:
                login.close()
                for process in login.left:
                    with contextlib.suppress(ProcessLookupError):
                        if read_again(process):
                            os.kill(process["pid"], signal.SIGKILL)


if __name__ == "__main__":
    main()
