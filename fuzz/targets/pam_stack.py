# SPDX-License-Identifier: Apache-2.0
"""PAM files of any content give a stack of lines that stand in those files, and a walk that ends.

A session that is outside and has no line of ours is outside at the end, whatever the other lines do.
"""

from __future__ import annotations

import os
import tempfile

from slurm_adopt.system.host import pam_stack, pam_walk

ROOT = tempfile.mkdtemp(prefix="slurm-adopt-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
FOLDER = f"{ROOT}/etc/pam.d"
MAX_LEN = 400
FILES = ("sshd", "one", "two")
os.makedirs(FOLDER)


def check(data: bytes) -> None:
    """Up to three files, parted by NUL bytes."""
    pieces = data.split(b"\0", len(FILES) - 1)
    for name, text in zip(FILES, pieces):
        with open(f"{FOLDER}/{name}", "wb") as file:
            file.write(text)
    for name in FILES[len(pieces) :]:
        if os.path.exists(f"{FOLDER}/{name}"):
            os.unlink(f"{FOLDER}/{name}")
    for kind in pam_stack.KINDS:
        stack = pam_stack.read_stack("sshd", kind, ROOT)
        for line in stack.lines:
            path, _, number = line.origin.rpartition(":")
            assert os.path.basename(path) in FILES
            assert int(number) >= 1
            assert line.kind == kind
        assert pam_walk.judge(stack, lambda _line: None) in (pam_walk.STAYS, pam_walk.UNKNOWN)
        assert pam_walk.judge(stack, lambda _line: None, outside=True) != pam_walk.STAYS or not _lets_in(stack)


def _lets_in(stack: pam_stack.Stack) -> bool:
    return any(state[2] == pam_walk.SUCCESS for state in pam_walk.walk(stack.lines, lambda _line: None, True)[-1])
