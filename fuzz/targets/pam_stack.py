# SPDX-License-Identifier: Apache-2.0
"""PAM files of any content give a stack of lines that stand in those files, and a guard only if one of them is ours.

An end that comes before the guard is not overlooked: with `sufficient` lines of another module in front there is none.
"""

from __future__ import annotations

import os
import tempfile

from slurm_adopt.system.host import pam_stack

FOLDER = tempfile.mkdtemp(prefix="slurm-adopt-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
FILES = ("sshd", "one", "two")


def check(data: bytes) -> None:
    """Up to three files, parted by NUL bytes."""
    pieces = data.split(b"\0", len(FILES) - 1)
    for name, text in zip(FILES, pieces):
        with open(f"{FOLDER}/{name}", "wb") as file:
            file.write(text)
    for name in FILES[len(pieces) :]:
        if os.path.exists(f"{FOLDER}/{name}"):
            os.unlink(f"{FOLDER}/{name}")
    _check((FOLDER,))
    if not data.startswith(b"session sufficient pam_permit.so\n"):
        with open(f"{FOLDER}/sshd", "wb") as file:
            file.write(b"session sufficient pam_permit.so\n" + pieces[0])
        pam_stack.KNOWN_STACKS.clear()
        assert pam_stack.find_guard("sshd", (FOLDER,)) is None


def _check(folders: tuple[str, ...]) -> None:
    pam_stack.KNOWN_STACKS.clear()
    for kind in pam_stack.KINDS:
        for line in pam_stack.read_stack("sshd", kind, folders):
            path, _, number = line.origin.rpartition(":")
            assert os.path.basename(path) in FILES
            assert int(number) >= 1
            assert line.kind == kind
            assert line.control
            assert isinstance(pam_stack.actions_of(line.control), dict)
    guard = pam_stack.find_guard("sshd", folders)
    if guard is not None:
        assert guard in pam_stack.read_stack("sshd", "session", folders)
        assert guard.module.endswith("pam_slurm_adopt.so")
