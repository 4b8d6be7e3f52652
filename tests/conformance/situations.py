# SPDX-License-Identifier: Apache-2.0
"""The node, its users and their jobs, and measuring cases with both modules."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.machine import LabError, wait_for
from lab.node import WAITS, Node
from lab.product import install_product

from .outcome import Outcome, outcome_of

ORIGINAL, OURS = "original", "ours"
MODULES = (ORIGINAL, OURS)
#: States of a step, as slurmstepd numbers them (from 23.11 on, 3 is cancelled and 4 ending).
RUNNING, ENDING = 2, 3
#: Holds a connection to the driver, so that caller ID can find the job as the source of a login.
CALLER_SCRIPT = "exec bash -c 'exec 3<>/dev/tcp/10.77.0.1/7001; echo $SLURM_JOB_ID >&3; exec sleep 1000'"


@dataclass(frozen=True)
class Call:
    """One call of PAM, apart from the module. `caller`: "" no connection, "outside", or the name of a job."""

    args: str = ""
    user: str = "alice"
    caller: str = "outside"
    service: str = "sshd"
    phases: tuple[str, ...] = ("account",)
    env: tuple[tuple[str, str], ...] = ()
    linger_s: float = 0


@dataclass(frozen=True)
class Measured:
    """What both modules did, and our log line's reason code."""

    original: Outcome
    ours: Outcome
    reason: str
    raw: dict[str, Any]


class Rig:
    """The node with its driver. Use as a context manager."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.jobs: dict[str, int] = {}
        """Ids of the jobs by name."""
        self.original = ""
        self._driver: subprocess.Popen[str] | None = None
        self._confdirs: dict[tuple[str, str, str], str] = {}

    def __enter__(self) -> Rig:
        node = self.node
        node.up()
        try:
            install_product(node)
            node.install(Path(__file__).with_name("driver.py"), "/run/lab/driver.py")
            self.original = node.original_module
            self._driver = node.popen(
                ["python3", "-u", "/run/lab/driver.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            assert self._driver.stdout is not None
            assert json.loads(self._driver.stdout.readline()) == "ready"
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.kill()
            driver.communicate()
        self.node.close()

    def submit(self, name: str, user: str, script: str = WAITS) -> None:
        """Start a job, and wait until its extern step takes logins."""
        self.jobs[name] = self.node.sbatch(user, script)
        self.wait_running(name)

    def wait_running(self, name: str) -> None:
        try:
            wait_for(lambda: self.step_state(name) == RUNNING, f"job {name} to take logins", 60)
        except LabError as error:
            raise LabError(f"{error}\n{self.node.diagnose()}") from error

    def step_state(self, name: str) -> int:
        """What the job's extern step says of itself; 0 if it says nothing."""
        path = self.node.extern_socket(self.jobs[name])
        if path is None:
            return 0
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            try:
                connection.connect(str(path))
                connection.sendall(struct.pack("=ii", 45 << 8, 5))
                return int(struct.unpack("=ii", connection.makefile("rb").read(8))[1])
            except (OSError, struct.error):
                return 0

    def module(self, which: str) -> str:
        """The module as a PAM line names it."""
        return self.original if which == ORIGINAL else "pam_slurm_adopt.so"

    def confdir(self, which: str, call: Call) -> str:
        """A directory with the PAM file of this call. What comes after the module tells IGNORE from success."""
        key = (which, call.args, call.service)
        if key not in self._confdirs:
            self._confdirs[key] = f"/run/lab/conf/{len(self._confdirs)}"
            line = f"[success=done ignore=ignore default=die] {self.module(which)} {call.args}"
            text = (
                f"account {line}\naccount [default=die] pam_debug.so acct=try_again\n"
                f"session {line}\nsession [default=die] pam_debug.so open_session=try_again close_session=try_again\n"
            )
            self.node.write(f"{self._confdirs[key]}/{call.service}", text)
        return self._confdirs[key]

    def drive(self, requests: Sequence[tuple[str, Call]], parallel: bool = False) -> list[dict[str, Any]]:
        """Run (module, call) pairs in the node."""
        calls = [
            {
                "confdir": self.confdir(which, call),
                "service": call.service,
                "user": call.user,
                "phases": list(call.phases),
                "caller": str(self.jobs.get(call.caller, call.caller)),
                "rhost": "10.77.0.1" if call.caller else "",
                "env": dict(call.env),
                "linger_s": call.linger_s,
            }
            for which, call in requests
        ]
        assert self._driver is not None
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._driver.stdin.write(json.dumps({"calls": calls, "parallel": parallel}) + "\n")
        self._driver.stdin.flush()
        results: list[dict[str, Any]] = json.loads(self._driver.stdout.readline())
        return results

    def measure(self, calls: Sequence[Call], parallel: bool = False) -> list[Measured]:
        """What both modules do with each call."""
        mark = self.node.log_mark()
        results = self.drive([(which, call) for call in calls for which in MODULES], parallel)
        reasons = self.reasons(mark)
        names = {job: name for name, job in self.jobs.items()}
        return [
            Measured(
                outcome_of(original, names),
                outcome_of(ours, names),
                reasons.get(ours["name"], ""),
                {ORIGINAL: original, OURS: ours},
            )
            for original, ours in zip(results[::2], results[1::2])
        ]

    def reasons(self, mark: int) -> dict[str, str]:
        """Our reason codes since `mark`, by the driver's name of the call."""
        return {name: line.partition(" reason=")[2].split()[0] for name, line in self.verdicts(mark).items()}

    def verdicts(self, mark: int) -> dict[str, str]:
        """Our log lines since `mark`, by the driver's name of the call."""
        found = {}
        for line in self.node.log_since(mark):
            head, verdict, rest = line.partition(": verdict=")
            if verdict and " reason=" in rest:
                found[re.findall(r"case\d+", head)[0]] = rest
        return found


def start_jobs(rig: Rig) -> None:
    """bob has one job, carol has three of which the one with the lowest id started last; alice has none."""
    rig.jobs["newest"] = rig.node.sbatch("carol", CALLER_SCRIPT, hold=True)
    rig.submit("only", "bob", CALLER_SCRIPT)
    rig.submit("oldest", "carol", CALLER_SCRIPT)
    rig.submit("middle", "carol", CALLER_SCRIPT)
    rig.node.run(["scontrol", "release", str(rig.jobs["newest"])])
    rig.wait_running("newest")


@contextlib.contextmanager
def moved_away(node: Node, path: str) -> Iterator[None]:
    """The file or directory is not there for a while."""
    node.run(["mv", path, f"{path}.away"])
    try:
        yield
    finally:
        node.run(["rm", "-rf", path])
        node.run(["mv", f"{path}.away", path])
