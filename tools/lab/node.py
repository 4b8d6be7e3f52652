# SPDX-License-Identifier: Apache-2.0
"""A machine that is a compute node: munged, slurmd and sshd, and unless told otherwise slurmctld too."""

from __future__ import annotations

import re
import secrets
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.accounts import USERS, Keys, make_accounts
from lab.daemon import Daemon
from lab.machine import DEFAULT_TIMEOUT_S, LabError, Machine, wait_for
from lab.slurm import NodeEntry, Settings, SlurmConfig
from lab.sshd import Sshd, ssh_argv, write_pam

_FOLDERS = """
set -e
mkdir -p /run/munge /run/sshd /etc/slurm /var/log/slurm /var/spool/slurmd /var/spool/slurmctld
chmod 400 /etc/munge/munge.key
chown -R munge: /etc/munge /var/lib/munge /var/log/munge /run/munge
id slurm >/dev/null 2>&1 || useradd -r slurm
chown slurm: /var/log/slurm /var/spool/slurmctld
rm -rf /etc/update-motd.d
"""
# update-motd.d: for each login Debian's pam_motd starts five programs that look there, to say which kernel runs
_LOGS = ("/run/lab/log", "/var/log/slurm/slurmctld.log", "/var/log/slurm/slurmd.log", "/run/lab/sshd-main.log")
_EXTERN_STEPS = (0xFFFFFFFC, 0xFFFFFFFF)
"""The extern step's number in its socket's name; the second one up to 20.11."""
_VERSION, _ASK_STATE, _STATE_RUNNING = 45 << 8, 5, 2
"""Of slurmstepd's socket: the version a client speaks, the opcode that asks for the step's state, and one answer."""
WAITS = "exec sleep 1000"
"""A job's script. exec: it takes slurmstepd a second to see that what a script has left is gone, and slurmd asks again
after that; every test that waits for the end of its jobs would wait, too."""
_ASK_AGAIN_S = 0.1
"""How often Slurm is asked whether a job has got somewhere: each squeue takes some 20 ms of a processor."""
_ENDED = ("CANCELLED", "COMPLETED", "FAILED", "TIMEOUT")
_ASK_SLURM_S = 1.0
"""How often Slurm is asked what keeps a job from starting."""


class Node(Machine):
    """with Node() as node: a running one-node cluster with users alice, bob and carol.

    suite         Debian or Ubuntu release, default the host's own
    node_name     Slurm's NodeName where it differs from the host name
    slurm         slurm.conf settings, e.g. {"Prolog": "/etc/slurm/prolog.sh", "TaskPlugin": "task/cgroup"}
    cgroup_conf   cgroup.conf settings
    lines         further lines of slurm.conf
    config, keys, munge_key, hosts, controller, compute   for a machine of a cluster (see lab.cluster)
    """

    def __init__(
        self,
        suite: str | None = None,
        *,
        hostname: str = "lab",
        node_name: str | None = None,
        slurm: Settings | None = None,
        cgroup_conf: Settings | None = None,
        lines: Sequence[str] = (),
        packages: Sequence[str] = (),
        addresses: Sequence[str] = ("10.77.0.1/32",),
        config: SlurmConfig | None = None,
        keys: Keys | None = None,
        munge_key: bytes | None = None,
        hosts: str | None = None,
        controller: bool = True,
        compute: bool = True,
    ) -> None:
        super().__init__(hostname, suite, addresses=addresses, packages=packages)
        self.node_name = node_name or hostname
        self.config = config or SlurmConfig(
            hostname, [NodeEntry(self.node_name, hostname)], slurm or {}, cgroup_conf or {}, lines
        )
        self.keys = keys
        self.munge_key = munge_key or secrets.token_bytes(128)
        self.controller = controller
        self.compute = compute
        self.hosts = hosts
        self.munged = Daemon(self, "munged", ["/usr/sbin/munged"], "/run/munge/munged.pid", user="munge")
        self.slurmctld = Daemon(self, "slurmctld", ["/usr/sbin/slurmctld"], "/run/slurmctld.pid")
        self.slurmd = Daemon(self, "slurmd", ["/usr/sbin/slurmd"], "/run/slurmd.pid")
        self.ssh_server = Sshd(self, "main", 22)
        self._further_servers: list[Sshd] = []
        self.original_module = ""
        """A copy of the original pam_slurm_adopt.so of the distribution's package (ours may take its place)."""
        self.slurm_version = ""
        """As slurmd says it: "22.05.8"."""

    def __enter__(self) -> Node:
        self.up()
        return self

    def up(self) -> None:
        """Start the machine and its daemons, and wait until Slurm would run a job. Raises LabError."""
        super().up()
        try:
            self.prepare()
            self.start_daemons()
        except BaseException as error:
            story = self.diagnose()
            self.close()
            if isinstance(error, (LabError, subprocess.SubprocessError)):
                raise LabError(f"{error}\n{story}") from error
            raise

    def prepare(self) -> None:
        """Users, keys and configuration: everything but the daemons."""
        self.keys = make_accounts(self, self.keys)
        self.write("/etc/hosts", self._hosts())
        self.write("/etc/hostname", f"{self.hostname}\n")
        self.write("/etc/resolv.conf", "")  # mmdebstrap leaves the host's there
        self.path("/etc/munge").mkdir(exist_ok=True)
        self.path("/etc/munge/munge.key").unlink(missing_ok=True)
        self.path("/etc/munge/munge.key").write_bytes(self.munge_key)
        self.run(_FOLDERS)
        self.slurm_version = self.run(["slurmd", "-V"]).stdout.split()[1]
        self.write_slurm_config()
        write_pam(self, "sshd")
        self.original_module = "/usr/local/lib/original/pam_slurm_adopt.so"
        self.run(
            "mkdir -p /usr/local/lib/original; "
            f"cp -p /lib/security/pam_slurm_adopt.so {self.original_module} 2>/dev/null || "
            f"cp -p /lib/*/security/pam_slurm_adopt.so {self.original_module}"
        )
        self.run(["truncate", "-s", "0", "/run/lab/log"])  # of what useradd said

    @property
    def slurm_release(self) -> tuple[int, int]:
        """(22, 5)"""
        major, minor = self.slurm_version.split(".")[:2]
        return int(major), int(minor)

    def write_slurm_config(self, config: SlurmConfig | None = None) -> None:
        """Write slurm.conf and cgroup.conf (anew); the daemons read them when they start or are told to."""
        self.config = config or self.config
        for folder in ("/etc/slurm", "/etc/slurm-llnl"):  # the second one: Debian 11's programs look there, too
            self.write(f"{folder}/slurm.conf", self.config.slurm_conf(self.tree))
            self.write(f"{folder}/cgroup.conf", self.config.cgroup_conf(self.tree, self.slurm_release))

    def start_daemons(self) -> None:
        self.munged.start()
        if self.controller:
            self.slurmctld.start()
        if self.compute:
            self.slurmd.start()
        if self.compute or not self.controller:
            self.ssh_server.start()
        if self.controller and self.compute:
            self.wait_idle()

    def wait_idle(self, timeout: float = 120.0) -> None:
        """Until every node of the cluster takes jobs."""

        def idle() -> bool:
            states = self.run(["sinfo", "-h", "-N", "-o", "%T"], check=False).stdout.split()
            return bool(states) and all(state in ("idle", "mixed", "allocated") for state in states)

        wait_for(idle, "the nodes to be idle", timeout, 0.05)

    def diagnose(self) -> str:
        """The ends of all logs, for the report of a failed test."""
        parts = []
        for name in _LOGS:
            try:
                parts += [f"--- {name}", *self.read(name).splitlines()[-25:]]
            except (OSError, LabError):
                continue
        return "\n".join(parts)

    def _hosts(self) -> str:
        if self.hosts is not None:
            return self.hosts
        addresses = [address.partition("/")[0] for address in self.addresses]
        return "".join(f"{address} {self.hostname}\n" for address in addresses) + "127.0.0.1 localhost\n"

    # Jobs ------------------------------------------------------------------------------------------

    @property
    def spool_dir(self) -> str:
        """SlurmdSpoolDir with %n and %h in place."""
        spool = self.config.settings.get("SlurmdSpoolDir") or "/var/spool/slurmd"
        return spool.replace("%n", self.node_name).replace("%h", self.hostname)

    def extern_socket(self, job: int) -> Path | None:
        """The socket of the job's extern step on this node, as the host reaches it; None if there is none."""
        for step in _EXTERN_STEPS:
            path = self.path(f"{self.spool_dir}/{self.node_name}_{job}.{step}")
            if path.exists():
                return path
        return None

    def sbatch(self, user: str, script: str = WAITS, **options: str | int | bool) -> int:
        """Queue a job and return its id. options: sbatch's long ones (ntasks=1, job_name="x", exclusive=True)."""
        argv = ["sbatch", "--parsable", "--output=/dev/null", f"--wrap={script}"]
        argv += _flags(options)
        return int(self.run(argv, user=user).stdout.split(";")[0])

    def submit(self, user: str, script: str = WAITS, timeout: float = 120.0, **options: str | int | bool) -> int:
        """sbatch(), and wait until the job runs here and logins can go there. Returns the job's id.

        Raises LabError with Slurm's reason.
        """
        job = self.sbatch(user, script, **options)
        self.wait_started([job], timeout)
        wait_for(lambda: self.job_state(job) == "RUNNING", f"job {job} to run", timeout, _ASK_AGAIN_S)
        return job

    def submit_many(self, user: str, count: int, script: str = WAITS, timeout: float = 300.0) -> list[int]:
        """As submit(), for many one-task jobs at once."""
        loop = f'for i in $(seq {count}); do sbatch --parsable --output=/dev/null --wrap="$0" -n1; done'
        queued = self.run(["bash", "-c", loop, script], user=user, timeout=timeout).stdout
        jobs = [int(line) for line in queued.split()]
        self.wait_started(jobs, timeout)
        return jobs

    def wait_started(self, jobs: Iterable[int], timeout: float = 120.0) -> None:
        """Until the extern step of each job says that it runs: its socket is there a moment before.

        On a busy machine slurmd may fail to launch a job, which is then requeued and held. It is released once.
        Raises LabError with Slurm's reason.
        """
        waiting, released = set(jobs), set[int]()
        deadline, ask = time.monotonic() + timeout, time.monotonic() + _ASK_SLURM_S
        while True:
            waiting = {job for job in waiting if not self.extern_runs(job)}
            if not waiting:
                return
            now = time.monotonic()
            if now > ask:
                ask = now + _ASK_SLURM_S
                held = {job for job in waiting if self._is_held(job)} if len(waiting) < 200 else set()
                if held & released or now > deadline:
                    raise LabError(f"jobs {sorted(waiting)} do not start:\n{self.why_not_started()}")
                for job in held:
                    self.run(["scontrol", "release", str(job)])
                    self.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False)
                    deadline = now + timeout
                released |= held
            time.sleep(0.01 if len(waiting) < 10 else 0.1)

    def why_not_started(self) -> str:
        """What Slurm says about the node and the jobs that wait or have ended."""
        command = "sinfo -h -o 'node %T %E'; squeue -h -t all -o '%T %r' | sort | uniq -c"
        return self.run(command, check=False).stdout

    def _is_held(self, job: int) -> bool:
        """Whether Slurm holds the job back after a launch that failed."""
        state, _, reason = self.run(
            ["squeue", "-h", "-t", "all", "-j", str(job), "-o", "%T %r"], check=False
        ).stdout.partition(" ")
        return state == "PENDING" and "held" in reason.lower()

    def extern_runs(self, job: int) -> bool:
        """Whether the job's extern step is there and in the state "running", as its slurmstepd says."""
        path = self.extern_socket(job)
        return path is not None and _step_state(path) == _STATE_RUNNING

    def job_state(self, job: int) -> str:
        """Slurm's state word, "" if Slurm does not know the job (any more)."""
        return self.run(["squeue", "-h", "-t", "all", "-j", str(job), "-o", "%T"], check=False).stdout.strip()

    def cancel(self, job: int, wait: bool = True, timeout: float = 120.0) -> None:
        """Cancel a job; wait: until Slurm has finished with it and none of its steps is left on this node."""
        self.run(["scancel", str(job)])
        if wait:
            self.wait_ended(job, timeout=timeout)

    def steps(self) -> dict[int, list[str]]:
        """The steps on this node, by job: {7: ["batch", "extern"]}; the kernel's view, by slurmstepd's title."""
        found: dict[int, list[str]] = {}
        for process in self.processes(0):
            if step := re.match(r"slurmstepd: \[(\d+)\.(\S+)\]", process.command):
                found.setdefault(int(step[1]), []).append(step[2])
        return found

    def wait_ended(self, *jobs: int, timeout: float = 120.0) -> None:
        """Until no step of the jobs is left here. Not by its sockets: 24.11 may leave one (EACCES at unlink)."""
        what = f"{', '.join(map(str, jobs))} to end"
        wait_for(lambda: not self.steps().keys() & set(jobs), f"the steps of {what}", timeout, 0.05)
        wait_for(lambda: not self._unfinished() & set(jobs), f"jobs {what}", timeout, _ASK_AGAIN_S)

    def _unfinished(self) -> set[int]:
        """The jobs that Slurm has not finished with."""
        listed = self.run(["squeue", "-h", "-t", "all", "-o", "%A %T"], check=False).stdout.splitlines()
        states = dict(line.split() for line in listed)
        return {int(job) for job, state in states.items() if state not in _ENDED}

    def jobs(self, user: str | None = None) -> list[int]:
        """The ids of running jobs, in order of submission."""
        argv = ["squeue", "-h", "-t", "running", "-o", "%A", *(["-u", user] if user else [])]
        return sorted(int(line) for line in self.run(argv).stdout.split())

    def allocate(self, user: str, timeout: float = 120.0, **options: str | int | bool) -> int:
        """As submit(), for a job that has nothing but its extern step (salloc --no-shell): it ends at once."""
        job = self.salloc(user, **options)
        self.wait_started([job], timeout)
        return job

    def salloc(self, user: str, **options: str | int | bool) -> int:
        """An allocation without any command; returns its id when it is granted. One task, unless options say else."""
        argv = ["salloc", "--no-shell", *_flags({"ntasks": 1, **options})]
        said = ""
        with self.popen(argv, user, stderr=subprocess.PIPE) as salloc:
            assert salloc.stderr is not None
            for line in salloc.stderr:
                said += line
                if granted := re.search(r"Granted job allocation (\d+)", line):
                    break
            else:
                raise LabError(f"no allocation for {user}: {said}")
            salloc.kill()  # it would only look every 3 s whether the node is ready
        return int(granted[1])

    def cancel_all(self) -> None:
        """Cancel every job and wait: the state a test should leave a shared node in."""
        jobs = [int(line) for line in self.run(["squeue", "-h", "-o", "%A"]).stdout.split()]
        if jobs:
            self.run(["scancel", *map(str, jobs)], check=False)
            self.wait_ended(*jobs)

    def reset(self) -> None:
        """No jobs, no users' processes, no further sshds, Debian's PAM files."""
        for server in self._further_servers:
            server.stop()
        self._further_servers.clear()
        self.cancel_all()
        # once more if need be: a login that was under way may end up with a new process
        uids = set(USERS.values())
        while left := [process.pid for process in self.processes() if process.uid in uids]:
            self.run(["kill", "-KILL", *map(str, left)], check=False)
        for dist in self.path("/run/lab").glob("pam-*.dist"):
            write_pam(self, dist.name[len("pam-") : -len(".dist")])

    # Logins ----------------------------------------------------------------------------------------

    def sshd(self, name: str, port: int, lines: Sequence[str] = ()) -> Sshd:
        """Start a further sshd, e.g. sshd("kbd", 2222, ["KbdInteractiveAuthentication yes"])."""
        server = Sshd(self, name, port, lines)
        server.start()
        self._further_servers.append(server)
        return server

    def pam(self, service: str = "sshd", **stacks: Sequence[str]) -> None:
        """Write a PAM file: pam("sshd", account=["required pam_slurm_adopt.so profile=strict"]). See write_pam."""
        write_pam(self, service, **stacks)

    def ssh(
        self,
        user: str,
        command: str | None = "true",
        *,
        client: str | None = None,
        check: bool = False,
        timeout: float = DEFAULT_TIMEOUT_S,
        input: str | None = None,
        **how: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Log in as `user` and run a command. client: who runs ssh (default root, whose key everybody accepts).

        how: see sshd.ssh_argv: host, port, auth ("publickey", "password", "keyboard-interactive", or a list of
        these with commas), key, tty, options.
        """
        argv, env = ssh_argv(user, command, **how)
        return self.run(argv, user=client, env=env, check=check, timeout=timeout, input=input)

    def ssh_popen(
        self, user: str, command: str | None = None, *, client: str | None = None, **how: Any
    ) -> subprocess.Popen[str]:
        """A login that stays open: the client with pipes (stderr in stdout). End it with communicate() or kill()."""
        argv, env = ssh_argv(user, command, **how)
        return self.popen(argv, client, env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _step_state(path: Path) -> int | None:
    """The number that a slurmstepd answers when it is asked for its step's state; None if it does not answer."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as step:
            step.settimeout(10)
            step.connect(str(path))
            step.sendall(struct.pack("=i", _VERSION))
            step.recv(4, socket.MSG_WAITALL)
            step.sendall(struct.pack("=i", _ASK_STATE))
            (state,) = struct.unpack("=i", step.recv(4, socket.MSG_WAITALL))
            return int(state)
    except (OSError, struct.error):
        return None


def _flags(options: Mapping[str, str | int | bool]) -> list[str]:
    """{"job_name": "x", "exclusive": True} as command line options."""
    flags = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        flags.append(flag if value is True else f"{flag}={value}")
    return flags
