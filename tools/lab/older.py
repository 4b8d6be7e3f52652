# SPDX-License-Identifier: Apache-2.0
"""Machines of releases older than the host's: their libc does not load a module that was linked on the host."""

from __future__ import annotations

from lab.machine import Machine
from lab.product import CHECKOUT

#: To be given to Node(packages=...).
COMPILER = ("gcc", "libc6-dev", "libpam0g-dev")
#: bullseye has glibc 2.31; the host's lstat() is a symbol of 2.33.
OLDER_SUITES = ("bullseye",)

_COMPILE = """
set -e
cd /run/lab/pam
gcc -shared -fPIC -O2 -std=c11 -D_GNU_SOURCE -fvisibility=hidden '-DSA_HELPER="/usr/libexec/slurm-adopt/helper"' \
    -Wl,--version-script=pam_slurm_adopt.map -o pam_slurm_adopt.so *.c -lpam
install -m 644 pam_slurm_adopt.so /lib/x86_64-linux-gnu/security/
rm -f /lib/security/pam_slurm_adopt.so
"""


def packages_for(suite: str | None) -> tuple[str, ...]:
    """What the machine's private root needs besides the usual."""
    return COMPILER if suite in OLDER_SUITES else ()


def rebuild_module(machine: Machine) -> None:
    """Compile the module inside an older machine; nothing to do in any other. After `install_product`.

    When it cannot load the module of the multiarch directory, Debian's libpam goes on to the original in /lib/security.
    """
    if machine.suite in OLDER_SUITES:
        machine.install(CHECKOUT / "src" / "pam", "/run/lab/pam")
        machine.run(_COMPILE)
