# SPDX-License-Identifier: Apache-2.0
"""A virtual machine that is a compute node: systemd as process 1, pure cgroup v2, and SELinux if wanted.

    from lab.vm import Vm
    with Vm() as vm:
        job = vm.submit("alice")
        vm.pam(account=[f"required {vm.original_module}"])
        print(vm.ssh_login("alice", "cat /proc/self/cgroup").stdout)

Everything in it is thrown away at the end. Nothing is installed on the host: QEMU runs from a private root.
Needs root, and some 3 GiB of memory. Booting takes about half a minute under emulation.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.accounts import password
from lab.machine import DEFAULT_TIMEOUT_S, CommandError, LabError, wait_for
from lab.matrix import PORTS, last_port, sshd_config
from lab.sshd import ssh_argv
from lab.vm_guest import HOSTNAME
from lab.vm_image import ensure_image
from lab.vm_qemu import Boot, boot

_TIMEOUT_S = 4 * DEFAULT_TIMEOUT_S
"""Everything takes its time under emulation, the more so on a busy host."""

MFA = "publickey,keyboard-interactive"


class Vm:
    """One virtual machine. Its methods are those of lab.node.Node wherever both have them."""

    def __init__(self, suite: str = "trixie", *, selinux: bool = False, boots_again: bool = False) -> None:
        """selinux: boots permissive; enforce with run("setenforce 1"). boots_again: lose_power() may be called."""
        self.suite = suite
        self.selinux = selinux
        self.boots_again = boots_again
        self.hostname = self.node_name = HOSTNAME
        self.original_module = ""
        """Where the original pam_slurm_adopt.so of the distribution's package lies in the machine."""
        self.slurm_version = ""
        self._boot: Boot | None = None
        self._dist: dict[str, str] = {}

    def __enter__(self) -> Vm:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def up(self) -> None:
        """Boot, and wait until Slurm would run a job. Raises LabError; nothing is left then."""
        image = ensure_image(self.suite, self.selinux)
        arguments = ["security=selinux", "selinux=1", "enforcing=0"] if self.selinux else []
        self._boot = boot(image, arguments, self.boots_again)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        wait_for(
            lambda: self.run("sinfo -h -o %T", check=False).stdout.strip() == "idle",
            "slurmd to be idle",
            _TIMEOUT_S,
            0.5,
        )
        # ours takes the path of the original, which is kept elsewhere
        self.original_module = "/usr/local/lib/original/pam_slurm_adopt.so"
        self.run(f"install -D /lib/*/security/pam_slurm_adopt.so {self.original_module}")
        self.slurm_version = self.run(["slurmd", "-V"]).stdout.split()[1]
        for name in ("sshd", "common-session"):
            self._dist[name] = self.read(f"/etc/pam.d/{name}")
        self.start_sshd("login", sshd_config(PORTS))

    def lose_power(self) -> None:
        """Off at once, and on again, until it can be reached. LabError if it does not come back.

        What was not on the disk is gone, and so are the units of start_sshd().
        """
        self._running.lose_power()

    def close(self) -> None:
        if self._boot is not None:
            self._boot.close()
            self._boot = None

    @property
    def accelerator(self) -> str:
        """ "kvm" or "tcg"."""
        return self._running.accelerator

    @property
    def _running(self) -> Boot:
        if self._boot is None:
            raise LabError("the virtual machine is not up")
        return self._boot

    def console(self) -> str:
        return self._running.console()

    # Running commands and files --------------------------------------------------------------------

    def run(
        self,
        argv: Sequence[str] | str,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        check: bool = True,
        timeout: float = _TIMEOUT_S,
        cwd: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run argv (a string: by `bash -c`) as root or as `user`, outside any job, and wait for it and its output.

        Raises CommandError if it fails and `check`, subprocess.TimeoutExpired after `timeout` seconds.
        """
        command = ["bash", "-c", argv] if isinstance(argv, str) else list(argv)
        inside = ["env", "-C", cwd or "/", *(f"{key}={value}" for key, value in (env or {}).items()), *command]
        if user is not None:
            inside = ["runuser", "-u", user, "--", *inside]
        done = subprocess.run(
            self._running.ssh_command(shlex.join(inside)),
            input=input or "",
            text=True,
            errors="replace",
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise CommandError(done.returncode, shlex.join(command), done.stdout, done.stderr)
        return subprocess.CompletedProcess(command, done.returncode, done.stdout, done.stderr)

    def put(self, source: Path | str, inside: str) -> None:
        """Copy a file or the contents of a directory; `inside` is the new name.

        Directories that exist keep their mode.
        """
        source = Path(source)
        folder, name = (source, ".") if source.is_dir() else (source.parent, source.name)
        packed = subprocess.run(
            ["tar", "-C", str(folder), "--owner=0", "--group=0", "-c", name], stdout=subprocess.PIPE, check=True
        ).stdout
        target = inside if source.is_dir() else str(Path(inside).parent)
        unpack = f"mkdir -p {shlex.quote(target)} && tar -C {shlex.quote(target)} --no-overwrite-dir -x"
        if not source.is_dir() and name != Path(inside).name:
            unpack += f" --transform {shlex.quote(f's,.*,{Path(inside).name},')}"
        done = subprocess.run(self._running.ssh_command(unpack), input=packed, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            raise LabError(f"cannot copy {source}: {done.stderr.decode(errors='replace')}")

    def get(self, inside: str, target: Path | str) -> None:
        """Copy one file out of the machine."""
        done = subprocess.run(
            self._running.ssh_command(f"cat {shlex.quote(inside)}"),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            raise LabError(f"cannot read {inside}: {done.stderr.decode(errors='replace')}")
        Path(target).write_bytes(done.stdout)

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        quoted = shlex.quote(inside)
        self.run(f"mkdir -p $(dirname {quoted}) && cat >{quoted} && chmod {mode:o} {quoted}", input=text)

    def read(self, inside: str) -> str:
        return self.run(["cat", inside]).stdout

    # Slurm -----------------------------------------------------------------------------------------

    def submit(self, user: str, script: str = "sleep 100000", timeout: float = _TIMEOUT_S) -> int:
        """A one-task job that runs and whose extern step can be asked. Returns its id."""
        argv = ["sbatch", "--parsable", "--output=/dev/null", "-n1", f"--wrap={script}"]
        job = int(self.run(argv, user=user, cwd="/tmp").stdout.split(";")[0])
        check = f"squeue -h -j {job} -o %T | grep -qx RUNNING && test -S /var/spool/slurmd/{HOSTNAME}_{job}.4294967292"
        wait_for(lambda: self.run(check, check=False).returncode == 0, f"job {job} to run", timeout, 0.3)
        return job

    def cancel(self, job: int, wait: bool = True, timeout: float = _TIMEOUT_S) -> None:
        """Cancel a job; wait: until none of its steps is left."""
        self.run(["scancel", str(job)])
        if wait:
            # not their files: a slurmstepd that crashes while it ends (24.11, by the kernel's log) leaves its own
            steps = f"! grep -q '/var/spool/slurmd/{HOSTNAME}_{job}[.]' /proc/net/unix"
            gone = f'{steps} && test -z "$(squeue -h -j {job} 2>/dev/null)"'
            wait_for(lambda: self.run(gone, check=False).returncode == 0, f"job {job} to end", timeout, 0.5)

    def cancel_all(self) -> None:
        """Cancel every job and wait, and end what logins have left."""
        for job in self.run(["squeue", "-h", "-o", "%A"]).stdout.split():
            self.cancel(int(job))
        self.run("pkill -KILL -u alice,bob,carol", check=False)

    # Logins ----------------------------------------------------------------------------------------

    def start_sshd(self, name: str, config: str) -> None:
        """(Re)start an sshd with this configuration, as systemd starts one: a service with a cgroup of its own."""
        file = f"/etc/ssh/lab-{name}.conf"
        self.write(file, config)
        self.run(
            f"systemctl stop -q lab-sshd-{name} 2>/dev/null; mkdir -p /run/sshd; systemd-run -q "
            f"--unit=lab-sshd-{name} --collect -p KillMode=process /usr/sbin/sshd -D -f {file}"
        )
        wait_for(
            lambda: self.run(f"ss -Hltn sport = :{last_port(config)} | grep -q .", check=False).returncode == 0,
            "sshd",
            120,
            0.3,
        )

    def pam(self, account: Sequence[str] = (), session: Sequence[str] = (), systemd: bool = True) -> None:
        """Write sshd's PAM file anew: Debian's, with these lines last in their stacks ("required pam_x.so").

        systemd: whether pam_systemd stays in the session stack, as Debian has it.
        """
        lines = [f"account\t{line}\n" for line in account] + [f"session\t{line}\n" for line in session]
        self.write("/etc/pam.d/sshd", self._dist["sshd"] + "".join(lines))
        common = self._dist["common-session"].splitlines(True)
        self.write(
            "/etc/pam.d/common-session", "".join(line for line in common if systemd or "pam_systemd" not in line)
        )

    def ssh_login(
        self,
        user: str,
        command: str | None = "true",
        method: str = "publickey",
        kind: str = "command",
        check: bool = False,
        timeout: float = _TIMEOUT_S,
        input: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Log in from the machine to itself, and wait for the end. method: a key of PORTS, or "mfa".

        kind: "command", or "pty" (a terminal is asked for; command None: the user's shell, fed with `input`).
        """
        method = MFA if method == "mfa" else method
        argv, env = ssh_argv(user, command, port=PORTS[method], auth=method, tty=kind == "pty")
        return self.run(argv, env=env, check=check, timeout=timeout, input=input)

    # What happens inside ---------------------------------------------------------------------------

    def log_mark(self) -> str:
        """For log_since(): everything up to now."""
        shown = self.run(["journalctl", "-q", "-n1", "--show-cursor", "-o", "cat"]).stdout
        return shown.rpartition("-- cursor: ")[2].strip()

    def log_since(self, mark: str | None = None) -> list[str]:
        """Lines "identifier: message" of the journal since a mark; None: since the boot."""
        argv = ["journalctl", "-q", "--no-pager", "-o", "json", "--output-fields=SYSLOG_IDENTIFIER,MESSAGE"]
        text = self.run([*argv, *([f"--after-cursor={mark}"] if mark else [])]).stdout
        entries = [json.loads(line) for line in text.splitlines()]
        return [f"{entry.get('SYSLOG_IDENTIFIER', '')}: {entry.get('MESSAGE', '')}" for entry in entries]

    def password(self, user: str) -> str:
        return password(user)
