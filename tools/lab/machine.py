# SPDX-License-Identifier: Apache-2.0
"""One isolated machine: a set of namespaces over the private root, and the ways to work in it from outside.

Everything disappears when close() is called or the calling process ends in whatever way (see supervisor).
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lab.cgroups import CgroupTree
from lab.root import ensure_root

DEFAULT_TIMEOUT_S = 60.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MARKER = "lab-log-marker-"
# Joins the machine's cgroups, then its namespaces. Joining comes first: its files are the host's.
_ENTER = 'while [ "$1" != -- ]; do echo 0 > "$1" || exit 125; shift; done; shift; exec "$@"'


class LabError(RuntimeError):
    """The rig itself failed, not what is tested with it."""


class CommandError(subprocess.CalledProcessError):
    """A command in the machine failed; the message shows what it printed."""

    def __str__(self) -> str:
        shown = "\n".join(str(text).rstrip() for text in (self.stdout, self.stderr) if text)
        return f"{super().__str__()}\n{shown}"


@dataclass(frozen=True)
class Process:
    """A process in the machine, by its pid there. `cgroups` as Machine.cgroups_of()."""

    pid: int
    uid: int
    command: str
    cgroups: Mapping[str, str]


class Machine:
    """Namespaces, overlay, process 1 and log listener. up() starts it; usable as a context manager."""

    def __init__(
        self,
        hostname: str = "lab",
        suite: str | None = None,
        *,
        addresses: Sequence[str] = ("10.77.0.1/32",),
        packages: Sequence[str] = (),
    ) -> None:
        """addresses: of `lo`, beside 127.0.0.1. packages: more than the private root's usual ones."""
        self.hostname = hostname
        self.suite = suite
        self.addresses = tuple(addresses)
        self.packages = tuple(packages)
        self.name = f"slurm-adopt-lab-{secrets.token_hex(4)}"
        self.tree = CgroupTree.on_this_host(self.name)
        self.init_pid = 0
        """Process 1's pid on the host; 0 while the machine is down."""
        self._supervisor: subprocess.Popen[str] | None = None
        self._said: IO[str] | None = None

    def __enter__(self) -> Machine:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def up(self) -> None:
        """Start the machine. Raises LabError; nothing is left then."""
        if os.geteuid() != 0:
            raise LabError("the isolated node needs root (namespaces, cgroups, overlayfs)")
        root = ensure_root(self.suite, self.packages)
        spec = json.dumps(
            {
                "name": self.name,
                "root": str(root),
                "hostname": self.hostname,
                "addresses": self.addresses,
                "caller": os.getpid(),
                "cgroups": self.tree.to_json(),
            }
        )
        self._said = _output()
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        self._supervisor = subprocess.Popen(
            [sys.executable, "-m", "lab.supervisor", spec],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env=environment,
            start_new_session=True,
            cwd="/",
        )
        try:
            assert self._supervisor.stdout is not None
            answer = json.loads(self._supervisor.stdout.readline() or '{"error": "no answer"}')
            if "init" not in answer:
                self._supervisor.wait(30)
                self._said.seek(0)
                raise LabError(f"cannot start the machine: {answer.get('error')}\n{self._said.read()}")
            self.init_pid = answer["init"]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the machine and wait until its processes, mounts and cgroups are gone. Raises LabError if not."""
        supervisor, self._supervisor = self._supervisor, None
        self.init_pid = 0
        if supervisor is None:
            return
        assert supervisor.stdin is not None
        assert supervisor.stdout is not None
        supervisor.stdin.close()
        code = supervisor.wait(60)
        supervisor.stdout.close()
        said, self._said = self._said, None
        assert said is not None
        with said:
            if code:  # the supervisor was killed: process 1 died with it, the cgroups are ours to remove
                self.tree.remove()
                said.seek(0)
                raise LabError(f"the machine did not end cleanly:\n{said.read()}")

    # Running commands ------------------------------------------------------------------------------

    def enter_command(
        self, argv: Sequence[str], user: str | None = None, env: Mapping[str, str] | None = None, cwd: str | None = None
    ) -> list[str]:
        """The host's command line that runs argv in the machine: in its cgroups, outside any job.

        The environment is clean: PATH, HOME, USER, LOGNAME, SHELL, LANG and `env`. Killing the command on
        the host kills argv's process inside (not those that it detached).
        """
        if not self.init_pid:
            raise LabError("the machine is not up")
        uid, gid, home, shell = self.account(user or "root")
        variables = {
            "PATH": _PATH,
            "HOME": home,
            "USER": user or "root",
            "LOGNAME": user or "root",
            "SHELL": shell,
            "LANG": "C.UTF-8",
            **(env or {}),
        }
        identity = [] if user is None else [f"--reuid={uid}", f"--regid={gid}", "--init-groups"]
        return [
            "sh",
            "-c",
            _ENTER,
            "enter",
            *self.tree.member_files(),
            "--",
            "nsenter",
            "-t",
            str(self.init_pid),
            "-m",
            "-p",
            "-u",
            "-i",
            "-n",
            "-C",
            "--",
            "/usr/bin/setpriv",
            "--pdeathsig=KILL",
            *identity,
            "--",
            "/usr/bin/env",
            "-i",
            "-C",
            cwd or (home if self.path(home).is_dir() else "/"),
            *(f"{key}={value}" for key, value in variables.items()),
            *argv,
        ]

    def account(self, user: str) -> tuple[int, int, str, str]:
        """(uid, gid, home directory, shell) from the machine's /etc/passwd. Raises LabError."""
        for line in self.read("/etc/passwd").splitlines():
            name, _, uid, gid, _, home, shell = line.split(":")
            if name == user:
                return int(uid), int(gid), home, shell
        raise LabError(f"the machine has no user {user}")

    def popen(
        self,
        argv: Sequence[str],
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        **options: Any,
    ) -> subprocess.Popen[str]:
        """subprocess.Popen in the machine (see enter_command); text and no stdin, unless `options` say else."""
        settings: dict[str, Any] = {"stdin": subprocess.DEVNULL, "text": True, "errors": "replace", **options}
        return subprocess.Popen(self.enter_command(argv, user, env, cwd), **settings)

    def run(
        self,
        argv: Sequence[str] | str,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        check: bool = True,
        timeout: float = DEFAULT_TIMEOUT_S,
        cwd: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run argv (a string: by `bash -c`) and wait for it, not for what it leaves in the background.

        Raises CommandError if it fails and `check`, subprocess.TimeoutExpired after `timeout` seconds.
        """
        command = ["bash", "-c", argv] if isinstance(argv, str) else list(argv)
        # Files, not pipes: a pipe ends only when the last background process has closed it.
        with tempfile.TemporaryFile("w+") as stdin, _output() as stdout, _output() as stderr:
            stdin.write(input or "")
            stdin.seek(0)
            process = self.popen(command, user, env, cwd, stdin=stdin, stdout=stdout, stderr=stderr)
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                raise subprocess.TimeoutExpired(command, timeout) from None
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            stdout.seek(0)
            stderr.seek(0)
            done = subprocess.CompletedProcess(command, code, stdout.read(), stderr.read())
        if check and code:
            raise CommandError(code, shlex.join(command), done.stdout, done.stderr)
        return done

    # Files -----------------------------------------------------------------------------------------

    def path(self, inside: str) -> Path:
        """A file of the machine as the host reaches it. Absolute symbolic links in it lead to the host's files."""
        if not self.init_pid:
            raise LabError("the machine is not up")
        return Path(f"/proc/{self.init_pid}/root/{inside.lstrip('/')}")

    def write(self, inside: str, text: str, mode: int = 0o644, owner: str | None = None) -> None:
        """Write a file, its directories made if need be. owner: a user name of the machine."""
        target = self.path(inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)
        if owner is not None:
            self.run(["chown", f"{owner}:", inside])

    def read(self, inside: str) -> str:
        return self.path(inside).read_text(errors="replace")

    def install(self, source: str | os.PathLike[str], inside: str, mode: int | None = None) -> None:
        """Copy a file or directory of the host into the machine; `inside` is its new name, not a folder."""
        target = self.path(inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        if Path(source).is_dir():
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)
            if mode is not None:
                target.chmod(mode)

    # What happens inside ---------------------------------------------------------------------------

    def log(self) -> list[str]:
        """What was sent to /dev/log since the start: "<PRI>Mon DD HH:MM:SS program[pid]: text"."""
        return self.log_since(0)

    def log_mark(self) -> int:
        """For log_since(): everything up to now."""
        self._log_settles()
        return self.path("/run/lab/log").stat().st_size

    def log_since(self, mark: int) -> list[str]:
        self._log_settles()
        with self.path("/run/lab/log").open(errors="replace") as file:
            file.seek(mark)
            return [line for line in file.read().splitlines() if _MARKER not in line]

    def _log_settles(self) -> None:
        """Until everything sent so far is in the file: messages keep their order, so a last one of ours tells."""
        marker = f"<191>{_MARKER}{secrets.token_hex(4)}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
            log.connect(str(self.path("/dev/log")))
            log.send(marker.encode())
        wait_for(lambda: marker in self.read("/run/lab/log"), "the log")

    def cgroups_of(self, pid: int) -> dict[str, str]:
        """{"freezer": "/slurm/uid_1501/job_7/step_extern", ..., "systemd": "/", "unified": "/"} of a pid inside.

        One entry for each controller, paths as seen inside the machine. {} if the process is gone.
        """
        found: dict[str, str] = {}
        try:
            text = self.path(f"/proc/{pid}/cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return {}
        for line in text.splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in (controllers or "unified").split(","):
                found[controller.replace("name=", "")] = self.tree.relative(path)
        return found

    def processes(self, user: str | int | None = None) -> list[Process]:
        """The living processes of a user (name or uid; None: all), kernel's view, by pid inside the machine."""
        wanted = self.account(user)[0] if isinstance(user, str) else user
        found: list[Process] = []
        for entry in self.path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                status = (entry / "status").read_text()
                uid = int(status.partition("\nUid:")[2].split()[0])
                command = (entry / "cmdline").read_text(errors="replace").replace("\0", " ").strip()
            except (FileNotFoundError, ProcessLookupError, IndexError):
                continue
            zombie = status.partition("\nState:")[2].split()[0] == "Z"
            if not zombie and (wanted is None or uid == wanted):
                found.append(Process(int(entry.name), uid, command, self.cgroups_of(int(entry.name))))
        return sorted(found, key=lambda process: process.pid)

    def process(self, command: str, user: str | int | None = None, timeout: float = 60.0) -> Process:
        """The process that runs just this command line, as soon as there is one: a job's first may start after its
        extern step. LabError after `timeout` seconds."""

        def found() -> list[Process]:
            return [process for process in self.processes(user) if process.command == command]

        first: Process = wait_for(found, f"a process {command!r}", timeout)[0]
        return first


def _output() -> IO[str]:
    return tempfile.TemporaryFile("w+", errors="replace")


def wait_for(condition: Callable[[], Any], what: str, timeout: float = 60.0, interval: float = 0.01) -> Any:
    """Poll until `condition()` is true and return its value; LabError naming `what` after `timeout` seconds.

    The time is for a machine that is busy with other things: what never happens is found later, what happens is not.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise LabError(f"waited {timeout:g} s for {what}")
        time.sleep(interval)
