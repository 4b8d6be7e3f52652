# SPDX-License-Identifier: Apache-2.0
"""The uids of Slurm's own users.

Rules of this file:
1. SlurmUser and SlurmdUser are names or numbers of slurm.conf; `root` is never looked up.
2. /etc/passwd comes before NSS: a directory service that hangs must not delay a login for a system account,
   and the account of a cluster's own daemon is a local one nearly everywhere.
"""

from __future__ import annotations

import os

MAX_PASSWD_BYTES = 16 << 20
MAX_UID = (1 << 32) - 2


def _local_uid(name: str) -> int | None:
    try:
        fd = os.open("/etc/passwd", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    with open(fd, "rb") as file:
        text = file.read(MAX_PASSWD_BYTES)
    start = os.fsencode(name) + b":"
    for line in text.split(b"\n"):
        if line.startswith(start):
            fields = line.split(b":")
            if len(fields) == 7 and fields[2].isdigit():
                return int(fields[2])
    return None


def uid_of_user(user: str) -> int | None:
    """The uid of a name or a number of slurm.conf; None if there is no such user."""
    if user == "root":
        return 0
    if user.isascii() and user.isdigit() and len(user) < 11:
        return int(user) if int(user) <= MAX_UID else None
    uid = _local_uid(user) if user and ":" not in user and "\n" not in user else None
    if uid is None and user.isprintable() and user:
        import pwd

        try:
            uid = pwd.getpwnam(user).pw_uid
        except (KeyError, ValueError, UnicodeError):
            return None
    return uid
