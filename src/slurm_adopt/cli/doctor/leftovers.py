# SPDX-License-Identifier: Apache-2.0
"""What was begun and not ended, and what an earlier installation has left."""

from __future__ import annotations

import os

from ...words import duration
from ..enabling.change import PENDING, read_pending
from ..main import CommandError
from .finding import ERROR, WARNING, Finding
from .helper import PACKAGE, tree_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .node import Node

COMMAND = "slurm-adopt"
FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin")


def check_change(node: Node) -> Iterator[Finding]:
    """A change of `enable` that waits. What is due is taken back by the command before the doctor looks."""
    if node.root:
        return
    try:
        pending = read_pending()
    except CommandError as error:
        yield Finding(
            "change-unreadable",
            ERROR,
            str(error),
            "`slurm-adopt enable` does nothing as long as it is there, and nobody takes back what it may have changed",
            f"rm {PENDING}    # after a look at /etc/pam.d: the file of before is called .sshd.before-slurm-adopt",
        )
        return
    if pending is None:
        return
    left_s = pending.left_s
    yield Finding(
        "change-waits",
        WARNING if left_s > 0 else ERROR,
        f"the change of {pending.path} by `slurm-adopt enable` is not confirmed"
        + (f"; it is taken back in {duration(left_s)}" if left_s > 0 else ", and could not be taken back"),
        "what the node does with logins is not what it will do later",
        "slurm-adopt confirm    # from a new ssh login; `slurm-adopt disable` takes it back at once",
    )


def check_copies(node: Node) -> Iterator[Finding]:
    """Two commands of the same name, of two installations."""
    found: dict[str, str] = {}
    for folder in FOLDERS:
        path = f"{folder}/{COMMAND}"
        if node.exists(path):
            found.setdefault(os.path.realpath(node.place(path)), path)
    others = [path for real, path in found.items() if tree_of(node, path) != PACKAGE]
    if len(found) < 2 or not others:
        return
    ours = next(path for path in found.values() if path != others[0])
    yield Finding(
        "command-two-copies",
        WARNING,
        f"{others[0]} is of another installation than {ours}",
        "which one a shell takes is a matter of its PATH: it may know other options, and show another state",
        f"rm {others[0]}",
    )
