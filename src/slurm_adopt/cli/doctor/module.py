# SPDX-License-Identifier: Apache-2.0
"""The module that PAM will load: is it there, is it ours, may it be loaded, is it the only one?"""

from __future__ import annotations

import os
import stat

from ...places import HELPER
from ...system.tasks.files import ROOT
from .finding import ERROR, NOTE, WARNING, Finding
from .node import OUR_NAME, is_noexec, is_roots_alone, mend_noexec, shown_mode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .node import Node

NAME = f"{OUR_NAME}.so"
#: ELF: the class (32 or 64 bit) and the machine.
CLASS_AT, MACHINE_AT = 4, 18
OWN_PROGRAM = "/proc/self/exe"


def check_module(node: Node) -> Iterator[Finding]:
    """The file behind the name `pam_slurm_adopt.so`, and behind every other name that a PAM line of ours has."""
    named = {line.line.module for kind in ("account", "session") for line in node.our_lines(kind)}
    other = node.other_name()  # Slurm's own has our name, and its lines are not ours
    for module in sorted({other or NAME, *named}):
        path = node.module_path(module)
        if path:
            yield from check_file(node, path)
        elif module == NAME or node.module_path(NAME) == "":
            if module == NAME and named - {NAME}:
                continue  # it is used under another name only
            yield Finding(
                "module-missing",
                ERROR,
                f"{module} is in no folder where PAM looks ({', '.join(node.module_folders()) or 'there is none'})",
                "a PAM line that names it refuses every login, root's too, unless the line says otherwise",
                "install slurm-adopt again, or see `make install` with -Dpamlibdir=",
            )
    yield from check_copies(node)


def check_file(node: Node, path: str) -> Iterator[Finding]:
    """One module: its owner and mode, what it is built for, and what it is."""
    found, content = node.stat(path), node.read(path) or b""
    if found is None:
        return
    if not is_roots_alone(found) or not stat.S_ISREG(found.st_mode) or not found.st_mode & stat.S_IRUSR:
        yield Finding(
            "module-mode",
            ERROR,
            f"{path}: {shown_mode(found)}",
            "sshd runs this file's code as root: whoever may write it is root",
            f"chown root:root {path} && chmod 644 {path}",
        )
    folder, others = ("", "") if node.root else node.loose_folder(path, ROOT)
    if others:
        yield Finding(
            "module-mode",
            ERROR,
            f"{folder}: {others.partition(': ')[0]}; {path} is in it",
            "sshd runs this file's code as root: whoever may put another one in its place is root",
            others.partition(": ")[2],
        )
    if is_noexec(node, path):
        yield Finding(
            "module-noexec",
            ERROR,
            f"{path} is on a file system that is mounted noexec",
            "PAM cannot load it: the PAM line refuses every login",
            mend_noexec(path),
        )
        return
    if not content.startswith(b"\x7fELF"):
        yield Finding(
            "module-damaged",
            ERROR,
            f"{path} is no shared object",
            "PAM cannot load it: the PAM line refuses every login",
            "install slurm-adopt again",
        )
    elif _architecture(content) != _architecture(_own_header()):
        yield Finding(
            "module-architecture",
            ERROR,
            f"{path} is built for another kind of processor than the programs of this node",
            "PAM cannot load it: the PAM line refuses every login",
            "install the package of this node's architecture",
        )
    elif not node.is_ours(path):
        yield Finding(
            "module-original",
            ERROR,
            f"{path} is not slurm-adopt's module",
            "PAM loads another module of the same name (Slurm's own): nothing of slurm-adopt is in force",
            f"remove the package that brought {path} (libpam-slurm-adopt, slurm-pam_slurm); install slurm-adopt again",
        )
    elif HELPER.encode() not in content:
        yield Finding(
            "module-other-build",
            WARNING,
            f"{path} does not start {HELPER}, as this installation's module would",
            "module and Python package are of two builds: the module may start a helper that is not there",
            "install slurm-adopt again, all of it from one build",
        )


def check_copies(node: Node) -> Iterator[Finding]:
    """Further files of the same name in other folders. Slurm's own where PAM does not look first is no fault."""
    first = node.module_path(NAME)
    if not first or not node.is_ours(first):
        return
    seen = {os.path.realpath(node.place(first))}
    for folder in node.module_folders():
        path = f"{folder}/{NAME}"
        if not node.exists(path) or os.path.realpath(node.place(path)) in seen:
            continue
        seen.add(os.path.realpath(node.place(path)))
        ours = node.is_ours(path)
        yield Finding(
            "module-two-copies",
            WARNING if ours else NOTE,
            f"PAM loads {first}; there is {'another copy of it' if ours else 'the one of Slurm itself'} at {path}",
            "a PAM line with a full path, or the loss of the first file, changes which one decides",
            f"rm {path}    # or remove the package that brought it",
        )


def _architecture(content: bytes) -> tuple[int, bytes]:
    return content[CLASS_AT] if len(content) > CLASS_AT else 0, content[MACHINE_AT : MACHINE_AT + 2]


def _own_header() -> bytes:
    with open(OWN_PROGRAM, "rb") as file:
        return file.read(64)
