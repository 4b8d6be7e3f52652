# SPDX-License-Identifier: Apache-2.0
"""The slurmds that run on this node, and which slurm.conf each of them uses.

Rules of this file:
1. A slurmd is a process of root's (real and effective uid), in our own pid namespace, whose program is called slurmd*.
   A user can start none of these: what it was told on its command line and in its environment, root has told it. One
   in a container with pids of its own belongs to another node.
2. A number in a file, in a cgroup or in /proc is a process only with its start time.
3. Which file it uses is Slurm's own order: --conf-server, -f, SLURM_CONF, the place that was compiled in, and without
   any of these a server found by DNS, whose files slurmd keeps as it keeps those of --conf-server (documentation of
   configless Slurm; the folder and the link to it were seen on 22.05 and 24.11).
4. It is cheap first: pid files, the unit's cgroup, and all processes only if neither shows one.
"""

from __future__ import annotations

import os

from ...places import SLURM_CONF
from ...record import record
from ...wire.slurmd_command import environment_value, parse_command
from ..kernel.procfs import (
    is_same,
    list_roots_programs,
    path_seen_by,
    read_arguments,
    read_environ,
    read_file,
    read_folder,
    read_mapped_names,
    read_namespace,
    read_own_namespace,
    read_owned_process,
    read_program,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..kernel.procfs import AnyProcess, OwnedProcess

#: Of the packages, and of a build that names no other.
DEFAULT_PLACE = "/etc/slurm/slurm.conf"
#: Where a pid file is looked for before slurm.conf has been read: Slurm's default, Debian, RedHat's packages.
USUAL_PID_FILES = ("/run/slurmd.pid", "/run/slurm/slurmd.pid")
#: The packages' unit, which starts `slurmd --systemd` since 23.11: cgroup v2, v1, both.
UNIT_CGROUPS = (
    "/sys/fs/cgroup/system.slice/slurmd.service/cgroup.procs",
    "/sys/fs/cgroup/systemd/system.slice/slurmd.service/cgroup.procs",
)
#: Of a configless slurmd: the link it makes wherever its spool directory is, and the folder that the link leads to.
CONFIGLESS = ("/run/slurm/conf/slurm.conf", "/var/spool/slurmd/conf-cache/slurm.conf")
#: The folders of packaged programs. What was built into a prefix of its own may have its slurm.conf there, too.
PACKAGED = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")
#: A unit may have helpers beside slurmd; a node has at most a few dozen slurmds.
NUMBER_CAP = 256
#: libslurmfull.so has 10 MB
LIBRARY_CAP = 64 << 20


@record
class Slurmd:
    """A slurmd that runs. `conf` is the file that it was told to use, `node` its NodeName; both empty if not told."""

    pid: int
    started: int
    program: str
    conf: str = ""
    node: str = ""
    is_configless: bool = False


def find_by_number(pid_files: Iterable[str]) -> tuple[Slurmd, ...]:
    """The slurmds whose numbers stand in these files, or else in the unit's cgroup."""
    for files in (pid_files, UNIT_CGROUPS):
        processes = [process for process in map(read_owned_process, _numbers_of(files)) if process is not None]
        found = [slurmd for slurmd in map(read_slurmd, _mothers(processes)) if slurmd is not None]
        if found:
            return tuple(found)
    return ()


def find_by_program() -> tuple[Slurmd, ...]:
    """All slurmds that run here, the oldest first: looks at every process of root's."""
    named = [number for number, program in list_roots_programs() if is_slurmd(program)]
    processes = [process for process in map(read_owned_process, named) if process is not None]
    found = [slurmd for slurmd in map(read_slurmd, _mothers(processes)) if slurmd is not None]
    return tuple(sorted(found, key=lambda slurmd: slurmd.started))


def _mothers(processes: list[OwnedProcess]) -> list[OwnedProcess]:
    """Without those that another one has just started: a slurmd is there twice for a moment before each slurmstepd."""
    numbers = {process.pid for process in processes}
    return [process for process in processes if process.parent not in numbers]


def _numbers_of(files: Iterable[str]) -> list[int]:
    words = [word for path in dict.fromkeys(files) for word in (read_file(path) or b"").split()]
    numbers = [int(word) for word in words[:NUMBER_CAP] if word.isdigit() and len(word) < 11]
    return [number for number in numbers if number > 1]


def is_slurmd(program: str) -> bool:
    """Whether a program is slurmd by its name: Debian's is called slurmd-wlm."""
    name = os.path.basename(program)
    return name.startswith("slurmd") and not name.startswith("slurmdbd")


def read_slurmd(process: OwnedProcess) -> Slurmd | None:
    """What this slurmd was told; None if the process is none."""
    if process.uid != 0 or process.real_uid != 0:
        return None
    program = read_program(process)
    if not is_slurmd(program) or read_namespace(process, "pid") != read_own_namespace("pid"):
        return None
    command = parse_command(read_arguments(process))
    environment = read_environ(process)
    conf = command.conf or environment_value(environment, "SLURM_CONF")
    if conf and not conf.startswith("/"):
        # a slurmd in the background has left the folder that this begins in
        folders = (read_folder(process), environment_value(environment, "PWD"))
        found = [os.path.join(folder, conf) for folder in folders if folder.startswith("/")]
        conf = next((path for path in found if path_seen_by(process, path)), found[-1] if found else "")
    if not is_same(process):
        return None
    return Slurmd(process.pid, process.started, program, conf, command.node, command.is_configless)


def find_conf_of(slurmd: Slurmd, fixed: str) -> str:
    """The slurm.conf that this slurmd uses, as a path that leads to it from here. `fixed` is the file that is there
    without any slurmd, or empty. If slurmd's file is not there: the path where it should be; empty if nobody knows."""
    if slurmd.is_configless:
        return _configless(slurmd) or CONFIGLESS[0]
    if slurmd.conf:
        return path_seen_by(slurmd, slurmd.conf) or slurmd.conf
    # where the build or a package has said, it is taken for what was compiled in: to look costs milliseconds
    said = fixed and (os.path.dirname(slurmd.program) in PACKAGED or fixed == SLURM_CONF != DEFAULT_PLACE)
    compiled = "" if said else find_compiled_place(slurmd)
    for place in (compiled, *((fixed,) if said else ()), *CONFIGLESS, fixed):
        found = path_seen_by(slurmd, place) if place else ""
        if found:
            return found
    return fixed or compiled


def _configless(slurmd: Slurmd) -> str:
    for path in CONFIGLESS:
        found = path_seen_by(slurmd, path)
        if found:
            return found
    return ""


def find_compiled_place(process: AnyProcess) -> str:
    """The slurm.conf that is compiled into the library that this slurmd has loaded, or the program; else empty."""
    names = read_mapped_names(process) or set()
    libraries = [name for name in names if os.path.basename(name).startswith(b"libslurm")]
    for library in (*sorted(libraries), os.fsencode(read_program(process))):
        place = compiled_place_in(_read_library(path_seen_by(process, os.fsdecode(library))))
        if place:
            return place
    return ""


def compiled_place_in(data: bytes) -> str:
    """The first text of a program that is an absolute path to a slurm.conf, and not that of the configless files."""
    ending = b"/slurm.conf\0"
    end = data.find(ending)
    while end >= 0:
        path = data[data.rfind(b"\0", 0, end) + 1 : end + len(ending) - 1]
        is_path = path.startswith(b"/") and path.isascii() and path.decode().isprintable() and b"%" not in path
        if is_path and path.decode() not in CONFIGLESS:
            return path.decode()
        end = data.find(ending, end + 1)
    return ""


def _read_library(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(LIBRARY_CAP)
    except (OSError, ValueError):
        return b""
