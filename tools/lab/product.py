# SPDX-License-Identifier: Apache-2.0
"""This checkout's product, built on the host and installed into a machine."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.machine import LabError, Machine
from lab.node import Node
from lab.root import cache_dir

CHECKOUT = Path(__file__).resolve().parents[2]


def build(options: Sequence[str] = ()) -> Path:
    """Build this checkout with meson, outside of it, and return the build directory.

    options: of `meson setup` ("-Db_sanitize=address"); each different list has a build directory of its own.
    Only what changed is built again. Raises LabError with meson's output.
    """
    tag = hashlib.sha256("\0".join([str(CHECKOUT), *options]).encode()).hexdigest()[:12]
    directory = cache_dir() / "builds" / tag
    directory.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{directory}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "build.ninja").exists():
            _meson("setup", str(directory), str(CHECKOUT), "--prefix=/usr", *options)
        _meson("compile", "-C", str(directory))
    return directory


def install_product(machine: Machine, options: Sequence[str] = ()) -> None:
    """Install this checkout into a machine, as `make install DESTDIR=` does; PAM files are not touched.

    From then on a PAM line's plain `pam_slurm_adopt.so` is ours. To be called again after a change.
    """
    directory = build(options)
    with Path(f"{directory}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # meson writes a log into the build directory
        _meson("install", "-C", str(directory), "--no-rebuild", "--destdir", str(machine.path("/")))
    # meson compiled for the host's Python
    machine.run("python3 -I -m compileall -q /usr/lib/slurm-adopt/slurm_adopt")


STRICT = "required pam_slurm_adopt.so profile=strict"
"""The PAM line that the documentation recommends, last in both stacks."""


def use_product(node: Node, line: str = STRICT) -> None:
    """Install this checkout into a node and put it last in sshd's account and session stacks."""
    install_product(node)
    use_strict_lines(node, line)


def use_strict_lines(node: Node, line: str = STRICT) -> None:
    node.pam("sshd", account=[line], session=[line])


def _meson(*arguments: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("DESTDIR", "PYTHONPATH")}
    done = subprocess.run(
        ["meson", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LabError(f"meson {arguments[0]} failed:\n{done.stdout[-4000:]}")
