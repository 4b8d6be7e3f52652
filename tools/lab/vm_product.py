# SPDX-License-Identifier: Apache-2.0
"""This checkout's product, built on the host and installed into a virtual machine."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from lab.machine import LabError
from lab.product import build
from lab.vm import Vm

#: Under emulation on a busy host the service's loop stands still for seconds, and systemd would kill it.
PATIENCE = "[Service]\nWatchdogSec=60s\n"


def install_in_vm(vm: Vm) -> None:
    """Install this checkout; PAM files are not touched.

    Built with the host's C library, which has to be the older of the two.
    """
    directory = build()
    with tempfile.TemporaryDirectory() as destination:
        environment = {key: value for key, value in os.environ.items() if key not in ("DESTDIR", "PYTHONPATH")}
        done = subprocess.run(
            ["meson", "install", "-C", str(directory), "--no-rebuild", "--destdir", destination],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise LabError(f"meson install failed:\n{done.stdout[-4000:]}")
        merged = merge_usr(Path(destination))
        vm.put(merged, "/")
    # meson compiled for the host's Python
    vm.run("python3 -I -m compileall -q /usr/lib/slurm-adopt/slurm_adopt")
    if vm.accelerator == "tcg":
        vm.write("/etc/systemd/system/slurm-adopt.service.d/lab.conf", PATIENCE)
        vm.run("systemctl daemon-reload")
    if vm.selinux:
        vm.run(
            "restorecon -RF /usr/lib/slurm-adopt /usr/libexec/slurm-adopt /usr/bin/slurm-adopt /usr/local/lib/original "
            "/usr/lib/x86_64-linux-gnu/security"
        )


def merge_usr(tree: Path) -> Path:
    """/lib of the tree into /usr/lib: unpacking must not replace the guest's symbolic link by a directory."""
    lib = tree / "lib"
    if lib.is_dir():
        subprocess.run(["cp", "-a", f"{lib}/.", str(tree / "usr/lib")], check=True)
        subprocess.run(["rm", "-rf", str(lib)], check=True)
    return tree
