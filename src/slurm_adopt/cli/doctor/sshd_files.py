# SPDX-License-Identifier: Apache-2.0
"""sshd's configuration as files: who may write them, whether the running sshd has read them; and what sshd sees.

Rules of this file:
1. Includes are followed as sshd does: relative ones are below /etc/ssh (sshd_config(5)).
2. What a drop-in of sshd's unit hides from it (`InaccessiblePaths=`, `TemporaryFileSystem=`), its logins do not see.
"""

from __future__ import annotations

import glob
import os

from ...places import HELPER
from ...system.kernel.procfs import path_seen_by, read_namespace, read_own_namespace
from ...system.slurm.spool_dir import spool_dirs
from ...system.tasks.files import ROOT, other_writers
from .finding import ERROR, NOTE, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...system.kernel.procfs import OwnedProcess
    from .node import Node

INCLUDE_CAP = 32
TEXT_CAP = 1 << 20
INCLUDES_IN = "/etc/ssh"
#: sshd writes its pid file when it starts, and anew when it is told to read its files again (seen with OpenSSH 9.2).
LATER_S = 1.0


def config_lines(path: str) -> Iterator[str]:
    """The lines of sshd's file, those of its includes in their places."""
    for _, text in _read(path, [INCLUDE_CAP]):
        yield text


def config_files(path: str) -> list[str]:
    """sshd's file and what it includes."""
    return list(dict.fromkeys(file for file, _ in _read(path, [INCLUDE_CAP])))


def _read(path: str, left: list[int]) -> Iterator[tuple[str, str]]:
    """(file, line)"""
    if left[0] <= 0:
        return
    left[0] -= 1
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(TEXT_CAP).splitlines()
    except OSError:
        return
    yield path, ""
    for line in lines:
        words = line.split()
        if words and words[0].lower() == "include":
            for pattern in words[1:]:
                for found in sorted(glob.glob(os.path.join(INCLUDES_IN, pattern)))[:INCLUDE_CAP]:
                    yield from _read(found, left)
        else:
            yield path, line


def mend_setting(config: str, options: tuple[str, ...], key: str, value: str) -> str:
    """The command that gives a setting another value: where it stands first, which sshd takes; else at the top."""
    told = next((word for word in options if word.lower().startswith(key.lower())), "")
    if told:
        return f"start sshd without -o {told}"
    for path, line in _read(config, [INCLUDE_CAP]):
        words = line.replace("=", " ").split()
        if words[:1] and words[0].lower() == "match":
            break
        if words[:1] and words[0].lower() == key.lower():
            return f"sed -i 's/^[[:space:]]*{key}[[:space:]=].*/{key} {value}/I' {path}    # then reload sshd"
    return f"sed -i '1i {key} {value}' {config}    # then reload sshd"


def check_writers(node: Node, config: str) -> Iterator[Finding]:
    """Who may write there says who gets in, and what runs."""
    for path in config_files(config):
        found = node.stat(path)
        others, place = (other_writers(path, found, ROOT), path) if found is not None else ("", "")
        if not others:
            place, others = node.loose_folder(path, ROOT)
        if others:
            what, _, mend = others.partition(": ")
            yield Finding(
                "sshd-config-writable",
                ERROR,
                f"{place}: {what}" + ("" if place == path else f"; {path} is in it"),
                "whoever may write there can take PAM out of sshd, and have it run programs",
                mend,
            )
            return


def check_reloaded(name: str, config: str, pid_file: str) -> Iterator[Finding]:
    """Whether the settings that are shown are those of the sshd that runs."""
    try:
        read_s = os.stat(pid_file).st_mtime
        changed = [path for path in config_files(config) if os.stat(path).st_mtime > read_s + LATER_S]
    except OSError:
        return  # it writes no pid file
    if changed:
        yield Finding(
            "sshd-not-reloaded",
            NOTE,
            f"{name}: {changed[0]} was changed after this sshd has read its files",
            "it goes on with the settings of before; what is said here of sshd is from the files",
            "systemctl reload sshd    # Debian: ssh",
        )


def check_view(node: Node, name: str, process: OwnedProcess) -> Iterator[Finding]:
    """Whether what a login needs is there for this sshd, whose unit may hide files from it."""
    if node.root or read_namespace(process, "mnt") in (None, read_own_namespace("mnt")):
        return
    conf = node.conf_or_none()
    folders = [folder for folder, _ in spool_dirs(conf, node.nodename)] if conf is not None else []
    modules = [line.path for line in node.our_lines("account") if line.works]
    for path in filter(node.exists, dict.fromkeys((*modules, HELPER, *folders))):  # what is missing here, others say
        seen = path_seen_by(process, path)
        if seen != path:
            yield Finding(
                "sshd-hidden-files",
                ERROR,
                f"{name} does not see {path} as it is here{'' if seen else ': it is not there'}",
                "the module, or the helper that it starts, looks for users' jobs in the wrong place",
                "systemctl cat ssh    # or sshd; take out what hides it (TemporaryFileSystem=, InaccessiblePaths=)",
            )
            return
