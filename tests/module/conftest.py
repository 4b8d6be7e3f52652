# SPDX-License-Identifier: Apache-2.0
"""Builds the module, and runs it in a room of its own: private /dev/log and /etc/passwd, hostile helper and service.

Rules of this file:
1. The host is never changed: all mounts are in a private mount namespace, which goes with the process that holds it.
2. Nothing is taken out of the module for the tests; what they replace is around it.
"""

from __future__ import annotations

import ast
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "src"))
SUCCESS, PERM_DENIED, SESSION_ERR = 0, 6, 14
#: fell_through.c, the next module of the stack, tells that the module returned PAM_IGNORE.
IGNORE = 17
SANITIZERS = "address,undefined"
SANITIZER_ENV = {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:exitcode=99", "UBSAN_OPTIONS": "halt_on_error=1"}

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
toor:x:0:0:another name of uid 0:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
alice:x:1501:1501::/home/alice:/bin/sh
"""

ROOM = """
set -e
mount -t tmpfs -o mode=755 none /dev
touch /dev/null && mount --bind "$NULL" /dev/null
ln -s "$1/log" /dev/log
mount --bind "$1/passwd" /etc/passwd
printf 'passwd: files\\n' > "$1/nsswitch" && mount --bind "$1/nsswitch" /etc/nsswitch.conf
echo ready
exec sleep 3600
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The module works as root only, and so do its tests."""
    reason = "needs root, a C compiler and meson" if os.geteuid() != 0 or not shutil.which("meson") else ""
    for item in items:
        if reason and HERE in Path(str(item.fspath)).parents:
            item.add_marker(pytest.mark.skip(reason=reason))


def run(*words: str | Path, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True, **kwargs)


class Ran(NamedTuple):
    """What the driver told of one run, and what reached /dev/log."""

    code: int
    elapsed_ms: int
    errors: list[str]
    infos: list[str]
    env: dict[str, str]
    changed: list[list[str]]
    log: list[tuple[int, str]]
    namespaces: dict[str, dict[str, str]]
    words: dict[str, list[str]]


class Room:
    """Where the driver runs."""

    def __init__(self, place: Path, build: Path) -> None:
        self.place = place
        self.module = build / "src/pam/pam_slurm_adopt.so"
        self.helper = build / "hostile/helper"
        self.driver = build / "driver"
        self.socket_path = place / "login.sock"
        self.stack = place / "pam.d"
        self.stack.mkdir()
        (place / "passwd").write_text(PASSWD)
        self.log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.log.bind(str(place / "log"))
        # the real /dev/null must be reachable under the new /dev: an open descriptor is
        with open("/dev/null", "rb") as null:
            self.holder = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "setpriv", "--pdeathsig", "KILL", "sh", "-c", ROOM]
                + ["room", str(place)],
                stdout=subprocess.PIPE,
                stdin=null,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NULL": "/proc/self/fd/0"},
                text=True,
            )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == "ready\n"

    def close(self) -> None:
        self.holder.kill()
        self.holder.wait()
        if self.holder.stdout:
            self.holder.stdout.close()
        self.log.close()

    def call(
        self,
        *options: str,
        function: str = "account",
        scenario: str = "good",
        user: str = "alice",
        service: str = "sshd",
        driver: tuple[str, ...] = (),
        control: str = "[success=done ignore=ignore default=die]",
    ) -> Ran:
        """One PAM call in the room. `options` are those of the PAM line, `driver` those of driver.c."""
        groups = {"account": ["account"], "login": ["account", "session"]}.get(function, ["session"])
        words = " ".join(f"[{option}]" for option in options)
        lines = [
            f"{group} {control} {self.module} socket={self.socket_path} {words}\n"
            f"{group} required {self.driver.parent}/fell_through.so\n"
            for group in groups
        ]
        (self.stack / service).write_text("".join(lines))
        (self.stack / "other").write_text("")
        (self.helper.parent / "scenario").write_text(scenario)
        with contextlib.suppress(FileNotFoundError):
            (self.helper.parent / "seen").unlink()
        self._drain_log()
        done = subprocess.run(
            ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", str(self.driver), *driver]
            + [str(self.stack), service, user, function],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            # the leak checker traces its own process, which one that has changed its uid does not allow
            env={
                "PATH": "/usr/bin:/bin",
                **SANITIZER_ENV,
                **({"ASAN_OPTIONS": "exitcode=99:detect_leaks=0"} if "-u" in driver else {}),
            },
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode(errors="replace")
        return self._told(done.stdout.decode("utf-8", "surrogateescape"))

    def seen(self) -> dict[str, Any]:
        """What the helper or service noted about itself and the request in the last call."""
        facts = ast.literal_eval((self.helper.parent / "seen").read_text())
        assert isinstance(facts, dict)
        fields = facts["request"][:-1].split(b"\0")
        facts["fields"] = dict(field.decode().split("=", 1) for field in fields)
        assert len(facts["fields"]) == len(fields)
        assert fields[0] == b"V=1"
        return facts

    def _drain_log(self) -> list[tuple[int, str]]:
        lines = []
        with contextlib.suppress(BlockingIOError):
            while True:
                raw = self.log.recv(65536, socket.MSG_DONTWAIT).decode("utf-8", "surrogateescape")
                priority, _, rest = raw[1:].partition(">")
                assert " sshd-driver: " in rest, "the host program's syslog identity was changed"
                lines.append((int(priority), rest.split(" sshd-driver: ", 1)[1]))
        return lines

    def _told(self, output: str) -> Ran:
        words: dict[str, list[str]] = {}
        ran = Ran(-1, -1, [], [], {}, [], [], {"before": {}, "after": {}}, words)
        assert output.endswith("done\n"), output
        for line in output.split("\n"):
            key, *values = line.split("\t")
            words[key] = values
            if key == "message":
                (ran.errors if values[0] == "3" else ran.infos).append("\t".join(values[1:]))
            elif key == "env":
                name, _, value = values[0].partition("=")
                ran.env[name] = value
            elif key == "changed":
                ran.changed.append(values)
            elif key == "ns":
                ran.namespaces[values[0]][values[1]] = values[2]
        log = [line for line in self._drain_log() if line[1] != "driver done"]
        return ran._replace(code=int(words["code"][0]), elapsed_ms=int(words["elapsed_ms"][0]), log=log)

    @contextlib.contextmanager
    def serving(self, scenario: str) -> Iterator[None]:
        """A service on the module's socket that behaves as `scenario` says."""
        peer = subprocess.Popen(
            ["/usr/bin/python3", "-IS", str(self.helper), str(self.socket_path), scenario],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            assert peer.stdout is not None
            assert peer.stdout.readline() == b"ready\n"
            yield
        finally:
            os.killpg(peer.pid, signal.SIGKILL)
            peer.wait()
            assert peer.stdout is not None
            peer.stdout.close()
            self.socket_path.unlink()


def soonest(call: Callable[[], Ran], limit_ms: float) -> Ran:
    """A call that took no longer than that. A busy machine may keep any one waiting; what always takes longer fails."""
    for _ in range(20):
        ran = call()
        if ran.elapsed_ms <= limit_ms:
            break
    assert ran.elapsed_ms <= limit_ms
    return ran


def compile_module(build: Path, *meson_options: str) -> Path:
    """The module as `meson setup` makes it, its helper path pointing into the build directory."""
    helper = build / "hostile" / "helper"
    run("meson", "setup", build, ROOT, "-Dwerror=true", "-Dtests=false", f"-Dhelper={helper}", *meson_options)
    run("ninja", "-C", build)
    return build


@pytest.fixture(scope="session")
def workshop() -> Iterator[Path]:
    """Everything built, gone with the run: three builds with sanitizers are not worth keeping for the next ones."""
    with tempfile.TemporaryDirectory(prefix="slurm-adopt-module-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def plain_build(workshop: Path) -> Path:
    """As it is shipped."""
    return compile_module(workshop / "plain")


@pytest.fixture(scope="session")
def build(workshop: Path) -> Path:
    """With sanitizers, the driver, and the hostile helper where the module looks for its helper."""
    place = compile_module(workshop / "sanitized", f"-Db_sanitize={SANITIZERS}")
    warn = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-g", f"-fsanitize={SANITIZERS}")
    run("cc", *warn, "-rdynamic", "-o", place / "driver", HERE / "driver.c", "-lpam")
    run("cc", "-shared", "-fPIC", "-o", place / "fell_through.so", HERE / "fell_through.c")
    (place / "hostile").mkdir()
    shutil.copy(HERE / "peer.py", place / "hostile/helper")
    (place / "hostile/helper").chmod(0o755)
    return place


@pytest.fixture(scope="session")
def shared_room(build: Path, workshop: Path) -> Iterator[Room]:
    place = workshop / "room"
    place.mkdir()
    room = Room(place, build)
    yield room
    room.close()


@pytest.fixture
def room(shared_room: Room) -> Iterator[Room]:
    """The room; fails the test if a process of the helper's is left."""
    yield shared_room
    helper = str(shared_room.helper).encode()
    deadline = time.monotonic() + 2
    while left := [pid for pid in _processes() if helper in _command_line(pid)]:
        if time.monotonic() > deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            pytest.fail(f"left behind: {left}")
        time.sleep(0.01)


def _processes() -> list[int]:
    """Root's. The command line of a user's may not be readable for half a minute (test_locked_memory)."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _owner(name) == 0]


def _owner(pid: str) -> int:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
