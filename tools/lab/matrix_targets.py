# SPDX-License-Identifier: Apache-2.0
"""The machines on which the login matrix runs, and `make matrix`.

In both, a plain `pam_slurm_adopt.so` is this checkout's module, and the original is named by its path.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from lab import matrix
from lab.machine import LabError
from lab.node import Node
from lab.product import install_product
from lab.sshd import wait_for_port, write_pam
from lab.vm import Vm
from lab.vm_product import install_in_vm

OURS = "pam_slurm_adopt.so"


class NodeTarget(Node):
    """The isolated node as a target: no systemd; on most hosts cgroup v1."""

    has_systemd = False
    parallel = 4
    pam_options = ""

    def __init__(self, suite: str | None = None) -> None:
        super().__init__(suite)
        self.modules: dict[str, str] = {}

    def up(self) -> None:
        super().up()
        install_product(self)
        self.modules = {"original": self.original_module, "ours": OURS}

    @property
    def title(self) -> str:
        ssh = self.run(["ssh", "-V"]).stderr
        return f"Slurm {self.slurm_version}, {openssh_version(ssh)}, cgroup v{self.tree.version}, no systemd"

    def start_sshd(self, name: str, config: str) -> None:
        """As Target.start_sshd()."""
        self.write(f"/etc/ssh/{name}.conf", config)
        self.path("/run/sshd").mkdir(exist_ok=True)
        self.run(["/usr/sbin/sshd", "-f", f"/etc/ssh/{name}.conf"])
        wait_for_port(self, matrix.last_port(config))

    def configure_pam(self, account: Sequence[str], session: Sequence[str], systemd: bool) -> None:
        """As Target.configure_pam()."""
        if systemd:
            raise LabError("pam_systemd needs a systemd")
        write_pam(self, "sshd", account=account, session=session)


class VmTarget(Vm):
    """The virtual machine as a target: systemd, cgroup v2."""

    has_systemd = True
    parallel = 2
    pam_options = "timeout=60"

    def __init__(self, suite: str = "trixie", *, selinux: bool = False, boots_again: bool = False) -> None:
        super().__init__(suite, selinux=selinux, boots_again=boots_again)
        self.modules: dict[str, str] = {}

    def up(self) -> None:
        super().up()
        install_in_vm(self)
        self.modules = {"original": self.original_module, "ours": OURS}

    @property
    def title(self) -> str:
        ssh = self.run(["ssh", "-V"]).stderr
        return f"Slurm {self.slurm_version}, {openssh_version(ssh)}, cgroup v2, systemd"

    def configure_pam(self, account: Sequence[str], session: Sequence[str], systemd: bool) -> None:
        """As Target.configure_pam()."""
        self.pam(account, session, systemd)


def openssh_version(text: str) -> str:
    """ "OpenSSH 10.0p2" from what `ssh -V` says."""
    found = re.search(r"OpenSSH_([0-9.p]+)", text)
    return f"OpenSSH {found.group(1)}" if found else "OpenSSH"


def main() -> int:
    """Print the matrix of every machine there is; 1 if a login of ours is neither in the job nor rightly refused."""
    parser = argparse.ArgumentParser(description="the login matrix")
    parser.add_argument("--target", choices=["node", "vm"], action="append", help="default: both")
    parser.add_argument("--suite", help="Debian release of the node (default: the host's own)")
    arguments = parser.parse_args()
    chosen = arguments.target or ["node", "vm"]
    results = [_examine(NodeTarget(arguments.suite) if name == "node" else VmTarget()) for name in chosen]
    return 0 if all(results) else 1


def _examine(target: NodeTarget | VmTarget) -> bool:
    """Print the machine's table; whether every login through our module was wholly in the job, or rightly refused."""
    target.up()
    try:
        results = matrix.examine(target)
        print(matrix.table(target.title, results), end="\n\n", flush=True)
    finally:
        target.close()
    bad = [
        f"matrix: {setup.title}: {outcome}"
        for setup, outcomes in results.items()
        for outcome in outcomes
        if setup.module == "ours" and not (outcome.contained or (setup.is_refused and not outcome.opened))
    ]
    print("\n".join(bad), file=sys.stderr)
    return not bad


if __name__ == "__main__":
    sys.exit(main())
