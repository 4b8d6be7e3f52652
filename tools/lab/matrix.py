# SPDX-License-Identifier: Apache-2.0
"""The login matrix: every way to authenticate, every kind of session, with the original module and with ours.

For each login: is the user's process in the job, is the privileged sshd that lives on, what of the login is
left after scancel. The engine knows nothing about where it runs; lab.matrix_targets has the places.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from lab.accounts import USERS, password

METHODS = ("publickey", "password", "keyboard-interactive", "publickey,keyboard-interactive")
KINDS = ("pty", "command", "sftp", "scp", "forward", "mux")
"""An interactive shell; one command; a file transfer of each sort; -N -L; a second session of a ControlMaster."""
LOGINS = (
    *((method, kind) for method in METHODS for kind in KINDS),
    *(("hostbased", kind) for kind in ("pty", "command", "sftp")),
    *((method, kind) for method in ("publickey", "keyboard-interactive") for kind in ("agent", "x11")),
)
"""What the matrix tries: (method, kind). With a forwarded agent, with forwarded X11."""
KIND_NAMES = {
    "pty": "interactive",
    "command": "command",
    "sftp": "sftp",
    "scp": "scp",
    "forward": "ssh -N -L",
    "mux": "multiplexed session",
    "agent": "command, agent forwarded",
    "x11": "command, X11 forwarded",
}
PORTS = {
    "publickey": 2222,
    "password": 2223,
    "keyboard-interactive": 2224,
    "publickey,keyboard-interactive": 2225,
    "hostbased": 2226,
}
GRACE_S = 3.0
"""How long after Slurm's last word on the job something of the login may be left."""
_PROBE = "/run/lab-login-probe.py"
USER = "alice"


class Target(Protocol):
    """A machine to try logins on: the isolated node, the virtual machine."""

    @property
    def title(self) -> str:
        """For the table's heading: "Slurm 24.11.5, OpenSSH 10.0, cgroup v2, systemd"."""

    @property
    def has_systemd(self) -> bool:
        """Whether pam_systemd can do anything there."""

    @property
    def modules(self) -> Mapping[str, str]:
        """What to put on the PAM line, by module: {"original": PATH, "ours": "pam_slurm_adopt.so"}."""

    @property
    def parallel(self) -> int:
        """How many logins it can take at once without running into anybody's time limit."""

    @property
    def pam_options(self) -> str:
        """Further options for our module's lines: under emulation five seconds are not enough."""

    def run(
        self, argv: Sequence[str] | str, *, input: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]: ...
    def write(self, inside: str, text: str) -> None: ...
    def submit(self, user: str) -> int: ...
    def start_sshd(self, name: str, config: str) -> None: ...
    def log_mark(self) -> Any: ...
    def log_since(self, mark: Any) -> list[str]: ...
    def configure_pam(self, account: Sequence[str], session: Sequence[str], systemd: bool) -> None: ...


@dataclass(frozen=True)
class Setup:
    """How the machine is configured for a round of logins."""

    module: str
    session_line: bool
    systemd: bool

    @property
    def title(self) -> str:
        lines = "account + session" if self.session_line else "account"
        return f"{self.module}: {lines}" + (", pam_systemd" if self.systemd else "")

    @property
    def is_refused(self) -> bool:
        """Whether ours has to refuse: pam_systemd would take the session out, and no session line puts it back."""
        return self.module == "ours" and self.systemd and not self.session_line


@dataclass(frozen=True)
class Process:
    """A process of a login as the kernel showed it. `cgroup`: the text of /proc/PID/cgroup."""

    name: str
    uid: int
    cgroup: str

    def job(self) -> int:
        """The job in whose extern step it is; 0 if in none. v1: the freezer's word, as proctrack/cgroup uses it."""
        for line in self.cgroup.splitlines():
            number, controllers, path = line.split(":", 2)
            v1 = controllers == "freezer" and re.search(r"/slurm(?:_[^/]+)?/uid_\d+/job_(\d+)/step_extern(?:/|$)", path)
            v2 = number == "0" and re.search(r"slurmstepd\.scope/job_(\d+)/step_extern/user(?:/|$)", path)
            found = v1 or v2
            if found:
                return int(found.group(1))
        return 0

    def path(self) -> str:
        """Where it is, for people: the v2 path, on v1 the freezer's."""
        paths = {}
        for line in self.cgroup.splitlines():
            _, controllers, path = line.split(":", 2)
            paths[controllers] = path
        return paths.get("freezer", paths.get("", "?"))


@dataclass(frozen=True)
class Outcome:
    """What became of one login. If it was not `opened`, `said` is what the client and the log say."""

    method: str
    kind: str
    job_id: int
    opened: bool
    said: str
    user: tuple[Process, ...]
    sshd: tuple[Process, ...]
    left: tuple[Process, ...]
    forwards_after: bool

    @property
    def user_inside(self) -> bool:
        return bool(self.user) and all(process.job() == self.job_id for process in self.user)

    @property
    def sshd_inside(self) -> bool:
        return bool(self.sshd) and all(process.job() == self.job_id for process in self.sshd)

    @property
    def contained(self) -> bool:
        """All of it in the job, and nothing of it left afterwards."""
        return self.opened and self.user_inside and self.sshd_inside and not self.left and not self.forwards_after

    def cell(self) -> str:
        if not self.opened:
            return "no login"
        if self.contained:
            return "in / in / –"
        left = ", ".join(sorted({process.name for process in self.left})) or "–"
        where = [("in" if inside else "**out**") for inside in (self.user_inside, self.sshd_inside)]
        return " / ".join([*where, left])


def setups(target: Target) -> list[Setup]:
    """Every configuration that makes sense there. The original has nothing for the session stack."""
    with_systemd = (False, True) if target.has_systemd else (False,)
    return [
        Setup(module, session_line, systemd)
        for module in target.modules
        for session_line in ((False,) if module == "original" else (False, True))
        for systemd in with_systemd
    ]


def apply(target: Target, setup: Setup) -> None:
    """Write the PAM files, as the manual of each module says: last in each stack, failures denied."""
    options = (
        "action_adopt_failure=deny action_generic_failure=deny"
        if setup.module == "original"
        else f"profile=strict {target.pam_options}".rstrip()
    )
    line = f"required {target.modules[setup.module]} {options}"
    target.configure_pam([line], [line] if setup.session_line else [], setup.systemd)


_HOST_BASED = """
set -e
printf '%s root\\n' $(uname -n) >/etc/ssh/shosts.equiv
printf '%s %s\\n' $(uname -n) "$(cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub)" >>/etc/ssh/ssh_known_hosts
printf 'EnableSSHKeysign yes\\n' >/etc/ssh/ssh_config.d/keysign.conf
[ -e /usr/bin/xauth ] || { printf '#!/bin/sh\\nexit 0\\n' >/usr/bin/xauth; chmod 755 /usr/bin/xauth; }
"""
"""The machine trusts its own root to say whom it lets in; and sshd wants to see an xauth before it forwards X11."""


def prepare(target: Target) -> None:
    """The sshd under test and the probe; once for each machine."""
    target.write(_PROBE, Path(__file__).with_name("login_probe.py").read_text())
    target.run(_HOST_BASED)
    target.start_sshd("matrix", sshd_config(PORTS))


def play(target: Target, logins: Sequence[tuple[str, str]]) -> list[Outcome]:
    """One job, all these (method, kind) logins into it, then scancel. The machine must be prepared and configured."""
    job = target.submit(USER)
    spec = {
        "user": USER,
        "uid": USERS[USER],
        "password": password(USER),
        "job": job,
        "ports": PORTS,
        "logins": logins,
        "grace_s": GRACE_S,
        "parallel": target.parallel,
    }
    mark = target.log_mark()
    text = target.run(["python3", _PROBE], input=json.dumps(spec), timeout=600.0 + 30.0 * len(logins)).stdout
    outcomes = [_outcome(job, report) for report in json.loads(text)]
    if not all(outcome.opened for outcome in outcomes):
        log = [line for line in target.log_since(mark) if "slurm_adopt" in line or "PAM" in line]
        outcomes = [o if o.opened else replace(o, said="\n".join([o.said, *log[-40:]])) for o in outcomes]
    return outcomes


def _outcome(job: int, report: Mapping[str, Any]) -> Outcome:
    user, sshd, left = (
        tuple(Process(p["name"], p["uid"], p["cgroup"]) for p in report[key]) for key in ("user", "sshd", "left")
    )
    return Outcome(
        report["method"],
        report["kind"],
        job,
        report["opened"],
        report["said"],
        user,
        sshd,
        left,
        report["forwards_after"],
    )


def sshd_config(ports: Mapping[str, int]) -> str:
    """An sshd that takes one way to authenticate on each port. Source: sshd_config(5), Match LocalPort."""
    lines = [f"Port {port}" for port in ports.values()]
    lines += [
        "UsePAM yes",
        "PubkeyAuthentication yes",
        "PasswordAuthentication yes",
        "KbdInteractiveAuthentication yes",
        "HostbasedAuthentication yes",
        "HostbasedUsesNameFromPacketOnly yes",
        "X11Forwarding yes",
        "HostKey /etc/ssh/ssh_host_ed25519_key",
        "LogLevel DEBUG1",
        "MaxStartups 1000",
        "LoginGraceTime 600",
        "UseDNS no",
        "Subsystem sftp /usr/lib/openssh/sftp-server",
    ]
    for method, port in ports.items():
        lines += [f"Match LocalPort {port}", f"    AuthenticationMethods {method}"]
    return "\n".join(lines) + "\n"


def last_port(config: str) -> int:
    """The last port that sshd will listen on: when that one answers, all do."""
    return int(re.findall(r"^Port (\d+)", config, re.MULTILINE)[-1])


Results = Mapping[Setup, Sequence[Outcome]]


def table(title: str, results: Results) -> str:
    """One markdown table. Rows are logins, columns configurations."""
    lines = [
        f"### {title}",
        "",
        "Each cell: the user's processes / the privileged sshd / what is left after `scancel`.",
        "",
    ]
    lines.append("| Authentication | Session | " + " | ".join(setup.title for setup in results) + " |")
    lines.append("| --- " * (2 + len(results)) + "|")
    for row in zip(*results.values()):
        method = row[0].method.replace(",", " + ")
        cells = [
            "refused" if setup.is_refused and not outcome.opened else outcome.cell()
            for setup, outcome in zip(results, row)
        ]
        lines.append(f"| {method} | {KIND_NAMES[row[0].kind]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def examine(target: Target, logins: Sequence[tuple[str, str]] = LOGINS) -> dict[Setup, list[Outcome]]:
    """The whole matrix on one machine."""
    prepare(target)
    results = {}
    for setup in setups(target):
        print(f"matrix: {target.title}: {setup.title}", file=sys.stderr, flush=True)
        apply(target, setup)
        results[setup] = play(target, logins)
    return results
