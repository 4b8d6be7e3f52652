# SPDX-License-Identifier: Apache-2.0
"""Compiles this checkout's SELinux policy module with a distribution's own policy sources, from a private root."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from lab.machine import LabError
from lab.root import ensure_root

SOURCES = Path(__file__).resolve().parents[2] / "selinux"
NAME = "slurm_adopt"
_PACKAGES = ("selinux-policy-dev", "checkpolicy", "semodule-utils", "policycoreutils", "make", "m4")

# The private root is only read; /tmp is covered in this mount namespace alone.
_COMPILE = """\
set -e
root=$1 work=$2
mount --bind "$work" "$root/tmp"
mount -t proc proc "$root/proc"
exec chroot "$root" make -s -C /tmp -f /usr/share/selinux/devel/Makefile NAME=default "$3.pp"
"""


def compile_policy(target: Path, suite: str | None = None, sources: Path = SOURCES) -> str:
    """Write the module's package to `target`. Returns what the compiler said; LabError if it failed.

    suite: the Debian release whose policy it is for, by default the host's own.
    """
    root = ensure_root(suite, _PACKAGES)
    with tempfile.TemporaryDirectory() as folder:
        for file in sources.glob(f"{NAME}.*"):
            shutil.copy(file, folder)
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "--fork", "--kill-child",
             "sh", "-c", _COMPILE, "compile", str(root), folder, NAME],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise LabError(f"the policy does not compile:\n{done.stdout[-4000:]}")
        shutil.copy(Path(folder, f"{NAME}.pp"), target)
    return done.stdout
