# SPDX-License-Identifier: Apache-2.0
"""What is looked at in a node while packages come and go."""

from __future__ import annotations

import re
import subprocess
import threading
from pathlib import Path

from lab.node import Node

LINE = "required pam_slurm_adopt.so"
LIBRARY = "/usr/lib/slurm-adopt"
#: What a package manager writes about itself, and what other programs do meanwhile.
NOT_OURS = re.compile(
    r"^/(var/(lib/(dpkg|apt|rpm|systemd)|cache|log|tmp|spool)|etc/(ld\.so\.cache|alternatives))(/|$)|/__pycache__$"
)


def files_of(node: Node) -> set[str]:
    """All names below the folders of a system, but for what package managers keep."""
    said = node.run("find /etc /lib /opt /usr /var /run/slurm-adopt -xdev -print 2>/dev/null || true").stdout
    return {name for name in said.splitlines() if not NOT_OURS.search(name)}


def pam_files(node: Node) -> str:
    return node.run("find /etc/pam.d /etc/pam.conf -type f -exec sha256sum {} + | sort -k2").stdout


def module_in_pams_folder(node: Node) -> str:
    """The module's name where this system's libpam looks."""
    permit = "find /usr/lib/*-linux-gnu/security /lib/*-linux-gnu/security /usr/lib64/security -name pam_permit.so"
    return str(Path(node.run(f"{permit} 2>/dev/null || true").stdout.split()[0]).with_name("pam_slurm_adopt.so"))


def is_ours(node: Node) -> bool:
    said = node.run(["readlink", "-f", module_in_pams_folder(node)], check=False).stdout.strip()
    return said == f"{LIBRARY}/pam_slurm_adopt.so"


def job_of_login(node: Node, user: str) -> tuple[int, str]:
    """(exit status of ssh, the job that the login's cgroups name or what was said)."""
    done = node.ssh(user, "cat /proc/self/cgroup")
    found = re.search(r"/job_(\d+)/", done.stdout)
    return done.returncode, found[1] if found else done.stdout + done.stderr


class Logins:
    """Logins of a user one after the other, for as long as something else is done. `wrong` are those not in the job."""

    def __init__(self, node: Node, user: str, job: int) -> None:
        self.node, self.user, self.job = node, user, job
        self.count, self.wrong = 0, list[str]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._log_in)

    def __enter__(self) -> Logins:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """One whole login more after it."""
        self._stop.set()
        self._thread.join()

    def _log_in(self) -> None:
        last = False
        while not last:
            last = self._stop.is_set()
            code, job = job_of_login(self.node, self.user)
            self.count += 1
            if (code, job) != (0, str(self.job)):
                self.wrong.append(f"{code}: {job}")


def session_is_in(node: Node, session: subprocess.Popen[str], user: str, job: int) -> bool:
    """Whether a session that sleeps is alive, in its job."""
    sleepers = [process for process in node.processes(user) if process.command == "sleep 12345"]
    return session.poll() is None and [f"/job_{job}/" in str(one.cgroups) for one in sleepers] == [True]
