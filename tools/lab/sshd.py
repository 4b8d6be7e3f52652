# SPDX-License-Identifier: Apache-2.0
"""sshd instances of a machine, its PAM files, and the ssh client's command line."""

from __future__ import annotations

from collections.abc import Sequence

from lab.accounts import password
from lab.daemon import Daemon
from lab.machine import Machine, wait_for

_DEFAULTS = """\
UsePAM yes
PubkeyAuthentication yes
PasswordAuthentication yes
KbdInteractiveAuthentication no
ChallengeResponseAuthentication no
PermitRootLogin yes
HostKey /etc/ssh/ssh_host_ed25519_key
LogLevel DEBUG1
MaxStartups 1000
LoginGraceTime 120
UseDNS no
KexAlgorithms curve25519-sha256
"""
# KexAlgorithms: OpenSSH 8.5 to 9.9 prefer sntrup761, which takes more processor time than all else of a login.
# ChallengeResponseAuthentication: the name before OpenSSH 8.7, which PAM needs there.


class Sshd(Daemon):
    """One sshd with a configuration of its own; every one of them is the PAM service `sshd`."""

    def __init__(self, machine: Machine, name: str, port: int, lines: Sequence[str] = ()) -> None:
        """lines: sshd_config lines; they win over the usual ones (pubkey and password, with PAM)."""
        self.port = port
        self.config = f"/etc/ssh/lab-{name}.conf"
        self.log_file = f"/run/lab/sshd-{name}.log"
        self._lines = list(lines)
        argv = ["/usr/sbin/sshd", "-f", self.config, "-E", self.log_file]
        super().__init__(machine, f"sshd-{name}", argv, f"/run/lab/sshd-{name}.pid")

    def write_config(self) -> None:
        lines = [f"Port {self.port}", f"PidFile {self.pid_file}"]
        for line in self._lines:
            lines.append(line)
            keyword, _, value = line.partition(" ")
            if keyword == "KbdInteractiveAuthentication":
                lines.append(f"ChallengeResponseAuthentication {value}")
        if _has_penalties(self.machine) and not any(line.startswith("PerSourcePenalties ") for line in self._lines):
            lines.append("PerSourcePenalties no")
        # of two lines sshd takes the first one, but for MaxStartups, where it takes the last
        given = {line.partition(" ")[0] for line in self._lines}
        defaults = [line for line in _DEFAULTS.splitlines() if "MaxStartups" not in given or "MaxStartups" not in line]
        self.machine.write(self.config, "\n".join([*lines, *defaults]) + "\n")

    def start(self, timeout: float = 15.0) -> None:
        self.machine.path("/run/sshd").mkdir(exist_ok=True)
        self.write_config()
        super().start(timeout)


def _has_penalties(machine: Machine) -> bool:
    """OpenSSH 9.8 and later refuse for a while a host whose logins fail; tests do nothing but fail."""
    return machine.path("/usr/lib/openssh/sshd-session").exists()


def ssh_argv(
    user: str,
    command: str | None,
    *,
    host: str = "127.0.0.1",
    port: int = 22,
    auth: str = "publickey",
    key: str | None = None,
    tty: bool = False,
    options: Sequence[str] = (),
) -> tuple[list[str], dict[str, str]]:
    """The client's argv and environment.

    auth: what the client offers, as in PreferredAuthentications ("publickey,keyboard-interactive"); the
    password is the user's (see accounts.password). key: a key file of the machine other than the caller's own.
    """
    asks = "password" in auth or "keyboard-interactive" in auth
    # of two options with one name ssh takes the first one
    argv = [
        "ssh",
        *(word for option in options for word in ("-o", option)),
        "-p",
        str(port),
        "-o",
        f"PreferredAuthentications={auth}",
        "-o",
        "ConnectTimeout=10",
        "-o",
        "NumberOfPasswordPrompts=1",
        # OpenSSH 10.1 warns of the plain key exchange that the lab's sshd has
        "-o",
        "IgnoreUnknown=WarnWeakCrypto",
        "-o",
        "WarnWeakCrypto=no",
    ]
    if not asks:
        argv += ["-o", "BatchMode=yes"]
    if key is not None:
        argv += ["-i", key, "-o", "IdentitiesOnly=yes"]
    argv += ["-tt"] if tty else []
    argv += [f"{user}@{host}"] + ([command] if command is not None else [])
    if asks:
        return ["sshpass", "-e", *argv], {"SSHPASS": password(user)}
    return argv, {}


def write_pam(
    machine: Machine,
    service: str,
    auth: Sequence[str] = (),
    account: Sequence[str] = (),
    session: Sequence[str] = (),
    password: Sequence[str] = (),
) -> None:
    """/etc/pam.d/SERVICE from Debian's file, without pam_systemd, the lines given last in each stack.

    Lines are what follows the type: "required pam_slurm_adopt.so profile=strict". Calling it again starts
    from Debian's file again. A service without such a file starts from the one of sshd.
    """
    dist = machine.path(f"/run/lab/pam-{service}.dist")
    if not dist.exists():
        source = machine.path(f"/etc/pam.d/{service}")
        dist.write_text((source if source.exists() else machine.path("/etc/pam.d/sshd")).read_text())
    text = "".join(line for line in dist.read_text().splitlines(True) if "pam_systemd" not in line)
    for kind, lines in (("auth", auth), ("account", account), ("session", session), ("password", password)):
        text += "".join(f"{kind}\t{line}\n" for line in lines)
    machine.write(f"/etc/pam.d/{service}", text)
    common = machine.path("/etc/pam.d/common-session")
    common.write_text("".join(line for line in common.read_text().splitlines(True) if "pam_systemd" not in line))


def wait_for_port(machine: Machine, port: int, timeout: float = 10.0) -> None:
    """Until something in the machine listens on a TCP port."""
    wanted = f":{port:04X}"

    def listens() -> bool:
        for table in ("tcp", "tcp6"):
            for line in machine.read(f"/proc/1/net/{table}").splitlines()[1:]:
                fields = line.split()
                if fields[1].endswith(wanted) and fields[3] == "0A":
                    return True
        return False

    wait_for(listens, f"a listener on port {port}", timeout)
