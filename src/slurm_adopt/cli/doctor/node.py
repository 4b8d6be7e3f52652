# SPDX-License-Identifier: Apache-2.0
"""What the checks look at: files below a root, slurm.conf, the PAM stacks, processes.

Rules of this file:
1. Reading only. A file that cannot be read is None, never an exception.
2. `root` is a prefix for files; with one, processes and sockets are not looked at by those who use it.
"""

from __future__ import annotations

import glob
import os
import stat
import sys

from ...options.parse import parse_options
from ...record import record
from ...system.host.pam_stack import list_services, read_stack
from ...system.host.pam_walk import PERM_DENIED, actions_of
from ...system.kernel.procfs import (
    list_numbers,
    read_command_name,
    read_connections,
    read_owned_process,
    read_owner,
    read_program,
    read_socket_inodes,
)
from ...system.slurm.conf import SEARCH_PATHS, ConfFault, read_slurm_conf
from ...system.slurm.node_conf import read_node_conf
from ...system.tasks.files import is_sticky, other_writers
from ...wire.errors import RemoteProtocolError
from ...wire.slurm_conf import last_values, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...options.parse import Options
    from ...system.host.pam_stack import PamLine
    from ...system.kernel.procfs import AnyProcess, OwnedProcess
    from ...system.slurm.conf import SlurmConf
    from ...system.tasks.files import Owners

FILE_CAP = 1 << 20
#: A name that only this project's module holds: what it marks a PAM handle with.
OUR_MARK = b"pam_slurm_adopt_job"
#: Modules of every Linux-PAM: where they are, PAM looks.
ALWAYS_THERE = ("pam_permit.so", "pam_unix.so")
OUR_NAME = "pam_slurm_adopt"
#: What the module has something for.
KINDS = ("account", "session")
#: Of a TCP socket, in /proc/net/tcp.
LISTENS = "0A"


@record
class OurLine:
    """A line of ours in a service's stack: `index` is its place in `stack`, `path` the file that PAM loads for it."""

    service: str
    line: PamLine
    index: int
    stack: tuple[PamLine, ...]
    options: Options
    path: str

    @property
    def works(self) -> bool:
        """Whether it does anything in this service."""
        return self.options.works_in(self.service)


class Node:
    """The machine, or a folder that looks like one. `nodename` as on the command line."""

    def __init__(self, root: str = "", nodename: str = "", deadline_ns: int = 0) -> None:
        self.root = root
        self.nodename = nodename
        self.deadline_ns = deadline_ns
        self._conf: SlurmConf | ConfFault | None = None

    # Files -----------------------------------------------------------------------------------------

    def place(self, path: str) -> str:
        """Where a file of the node is for us."""
        return f"{self.root}{path}"

    def stat(self, path: str) -> os.stat_result | None:
        """stat(2), links followed; None if it is not there."""
        try:
            return os.stat(self.place(path))
        except OSError:
            return None

    def exists(self, path: str) -> bool:
        return self.stat(path) is not None

    def read(self, path: str) -> bytes | None:
        """A regular file's first MiB."""
        try:
            fd = os.open(self.place(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            return None
        try:
            return os.read(fd, FILE_CAP) if stat.S_ISREG(os.fstat(fd).st_mode) else None
        except OSError:
            return None
        finally:
            os.close(fd)

    def text(self, path: str) -> str | None:
        """A regular file's first MiB as text."""
        found = self.read(path)
        return None if found is None else found.decode("utf-8", "replace")

    def loose_folder(self, path: str, owners: Owners) -> tuple[str, str]:
        """The folder in which others than `owners` could put another file in the place of this one, and who, in words;
        both empty if there is none.

        Every folder on the way counts, links followed. In a folder with the sticky bit (/tmp) nobody can.
        """
        real = os.path.realpath(path) if not self.root else path
        for folder in dict.fromkeys((*_folders_above(path), *_folders_above(real))):
            found = self.stat(folder)
            if found is None or (is_sticky(found) and found.st_uid in owners):
                continue
            others = other_writers(folder, found, owners)
            if others:
                return folder, others
        return "", ""

    def glob(self, pattern: str) -> list[str]:
        """The paths that fit, without the root."""
        return sorted(path[len(self.root) :] for path in glob.glob(self.place(pattern)))

    # Slurm -----------------------------------------------------------------------------------------

    @property
    def conf_paths(self) -> tuple[str, ...]:
        return tuple(map(self.place, dict.fromkeys(SEARCH_PATHS)))

    def conf(self) -> SlurmConf:
        """slurm.conf as a login reads it; `ConfFault`."""
        if self._conf is None:
            try:
                self._conf = read_slurm_conf(self.conf_paths) if self.root else read_node_conf(self._conf_place(), True)
            except ConfFault as fault:
                self._conf = fault
        if isinstance(self._conf, ConfFault):
            raise self._conf
        return self._conf

    def _conf_place(self) -> str:
        """What slurm_conf= says on a line of ours; empty if none says it."""
        return next((line.options.slurm_conf for line in self.our_lines("account") if line.options.slurm_conf), "")

    def conf_or_none(self) -> SlurmConf | None:
        """slurm.conf, where somebody else says what is wrong with it."""
        try:
            return self.conf()
        except ConfFault:
            return None

    def conf_folder(self) -> str:
        """Where slurm.conf is, as the node sees it."""
        conf = self.conf_or_none()
        return os.path.dirname(conf.path)[len(self.root) :] if conf is not None else "/"

    def setting(self, key: str) -> str:
        """A value of slurm.conf that logins do not need, by its name in lower case; empty if it is not there."""
        conf = self.conf_or_none()
        return last_values(conf.statements).get(key, "") if conf is not None else ""

    def settings(self, key: str) -> list[str]:
        """All values of a setting that may stand there several times."""
        conf = self.conf_or_none()
        return [value for name, value, _, _ in conf.statements if name == key and value] if conf is not None else []

    def cgroup_conf(self) -> dict[str, str] | None:
        """cgroup.conf beside slurm.conf, keys in lower case; None if there is none, or it cannot be understood."""
        path = f"{self.conf_folder()}/cgroup.conf"
        found = self.read(path) if self.conf_or_none() is not None else None
        if found is None:
            return None
        try:
            return last_values(parse(found, path).statements)
        except RemoteProtocolError:
            return None

    # PAM -------------------------------------------------------------------------------------------

    def services(self) -> list[str]:
        return list_services(self.root)

    def stack(self, service: str, kind: str) -> tuple[PamLine, ...]:
        """The modules' lines; those of a substack have a `level`."""
        return tuple(line for line in read_stack(service, kind, self.root).lines if line.what == "module")

    def module_folders(self) -> list[str]:
        """Where PAM modules may be, the folder that PAM looks into first. Links are followed: /lib is /usr/lib."""
        arch = getattr(sys.implementation, "_multiarch", "")
        usual = [f"/lib/{arch}", f"/usr/lib/{arch}"] if arch else []
        usual += ["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"]
        folders: dict[str, str] = {}
        for folder in usual:
            path = f"{folder}/security"
            if os.path.isdir(self.place(path)):
                folders.setdefault(os.path.realpath(self.place(path)), path)
        found = list(folders.values())
        found.sort(key=lambda folder: not any(self.exists(f"{folder}/{name}") for name in ALWAYS_THERE))
        return found

    def module_path(self, module: str) -> str:
        """The file that PAM loads for a module's name; empty if there is none.

        Debian's libpam looks into /lib/security as well.
        """
        if module.startswith("/"):
            return module if self.exists(module) else ""
        folders = self.module_folders()[:1]
        if self.exists("/etc/debian_version"):
            folders.append("/lib/security")
        return next((path for path in (f"{folder}/{module}" for folder in folders) if self.exists(path)), "")

    def is_ours(self, path: str) -> bool:
        """Whether a module's file is of this project."""
        return OUR_MARK in (self.read(path) or b"")

    def other_name(self) -> str:
        """What a PAM line has to name for ours, where our name leads to another file (Slurm's own); else empty.

        The name that a line has already, or that of a file of ours in the folder where PAM looks.
        """
        first = self.module_path(f"{OUR_NAME}.so")
        if not first or self.is_ours(first):
            return ""
        named = (line.module for name in self.services() for kind in KINDS for line in self.stack(name, kind))
        files = (path for folder in self.module_folders()[:1] for path in self.glob(f"{folder}/{OUR_NAME}*.so"))
        for module in (*named, *(path.rpartition("/")[2] for path in files)):
            if module.rpartition("/")[2].startswith(OUR_NAME) and self.is_ours(self.module_path(module)):
                return module
        return ""

    def our_lines(self, kind: str, service: str | None = None) -> list[OurLine]:
        """The lines of ours in all services (or one), by their name; those with a path by what the file is."""
        found = []
        for name in self.services() if service is None else [service]:
            stack = self.stack(name, kind)
            for index, line in enumerate(stack):
                if not line.module.rpartition("/")[2].startswith(OUR_NAME):
                    continue
                path = self.module_path(line.module)
                # a bare name is meant for ours, whatever file PAM finds for it: that is the module's own finding;
                # but not where ours stands beside the original under another name
                if not path or self.is_ours(path) or ("/" not in line.module and not self.other_name()):
                    found.append(OurLine(name, line, index, stack, parse_options(line.args), path))
        return found

    # Processes -------------------------------------------------------------------------------------

    def roots_processes(self, name: str) -> Iterator[OwnedProcess]:
        """Root's processes that call themselves so, or whose program is called so: a link to it has another name."""
        for number in list_numbers():
            if read_owner(number) != 0:
                continue
            process = read_owned_process(number)
            if process is None or process.uid != 0:
                continue
            if read_command_name(process) == name or os.path.basename(read_program(process)) == name:
                yield process


def _folders_above(path: str) -> Iterator[str]:
    """`/a/b/c`: `/a/b`, `/a`, `/`"""
    while path not in ("", "/"):
        path = os.path.dirname(path)
        yield path


def listening_at(process: AnyProcess) -> list[str]:
    """Addresses and ports, in hex, of the process's TCP sockets that listen."""
    inodes = {link[8:-1] for link in read_socket_inodes(process)}
    rows = [line.split() for table in ("tcp", "tcp6") for line in read_connections(process, table).splitlines()[1:]]
    return [row[1] for row in rows if len(row) > 9 and row[3] == LISTENS and row[9] in inodes]


def is_binding(line: OurLine) -> bool:
    """Whether a refusal by this line refuses, whatever the others of its stack say."""
    return actions_of(line.line.control)[0][PERM_DENIED] in ("bad", "die")


def is_noexec(node: Node, path: str) -> bool:
    """Whether nothing on the file's file system may be run, or loaded as code."""
    try:
        return bool(os.statvfs(node.place(path)).f_flag & os.ST_NOEXEC)
    except OSError:
        return False


def mend_noexec(path: str) -> str:
    """What is to be done where `is_noexec` says so."""
    return f"mount -o remount,exec $(findmnt -n -o TARGET -T {path})    # and take noexec out of /etc/fstab"


def shown_mode(found: os.stat_result) -> str:
    """`uid 0, mode 755`"""
    return f"uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}"


def mode_fault(node: Node, path: str, mode: int) -> tuple[str, str]:
    """What is seen of a file or folder that is not root's alone, and the command that gives it its `mode`.

    Both are empty if it is, or is not there.
    """
    found = node.stat(path)
    if found is None or is_roots_alone(found):
        return "", ""
    return f"{path}: {shown_mode(found)}", f"chown root:root {path} && chmod {mode:o} {path}"


def is_roots_alone(found: os.stat_result) -> bool:
    """Whether it is root's, and nobody else may write it: the module's own rule for what it starts, and as strict."""
    return found.st_uid == 0 and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
