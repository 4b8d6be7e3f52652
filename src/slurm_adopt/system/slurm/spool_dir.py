# SPDX-License-Identifier: Apache-2.0
"""Where this node's slurmstepds have their sockets.

Rules of this file:
1. SlurmdSpoolDir's `%n` is the node's name. `%h` is this machine's own host name in its short form, whatever
   NodeHostname and -N say (slurmd 20.11 to 26.05). Which node this is comes from `nodename=`, else from the
   NodeHostname lines and this machine's host name, short form, full form, then `localhost` (Slurm's own order). Never
   from DNS, never from the environment.
2. Dynamic nodes (slurmd -Z, FUTURE) are not in the file, and their names cannot be derived: then the folders that
   fit the pattern and hold an extern step's socket are found by looking.
3. A folder found by looking counts only if nobody but root, SlurmdUser and SlurmUser may write it.
4. The names that the running slurmds were told (-N) are added to what the file gives: the host's name may be another's.
"""

from __future__ import annotations

import os
import stat

from ...wire.slurm_nodes import nodes_of_host
from ..tasks.files import other_writers
from ..tasks.task import raise_own_lack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conf import SlurmConf

    # a folder, and the node name its sockets begin with; None: any
    SpoolDir = tuple[str, "str | None"]

# the step id of every extern step since 20.11
EXTERN_ENDING = ".4294967292"
# /var/spool of a busy machine has dozens of entries; more than this is not a place to look for a node
MAX_ENTRIES = 4096
# `/var/spool/%n/slurmd.%h`: nobody has more
MAX_PATTERN_LEVELS = 2


def _expand(pattern: str, node: str, host: str) -> str:
    pieces = pattern.split("%")
    done = [pieces[0]]
    for piece in pieces[1:]:
        value = {"n": node, "h": host}.get(piece[:1])
        done.append("%" + piece if value is None else value + piece[1:])
    return "".join(done)


def has_pattern(path: str) -> bool:
    """Whether the folder depends on the node's name."""
    return "%n" in path or "%h" in path


def extern_node(entry: str) -> str | None:
    """The node of a socket `NODE_JOBID.4294967292`; None for any other entry of the folder."""
    if not entry.endswith(EXTERN_ENDING):
        return None
    node, _, job = entry[: -len(EXTERN_ENDING)].rpartition("_")
    return node if node and job.isascii() and job.isdigit() else None


def spool_dirs(conf: SlurmConf, nodename: str | None = None, hostname: str | None = None) -> list[SpoolDir]:
    """The folders to look into, each with the node name its sockets begin with, or None if any will do.

    `nodename` is the module's option; `hostname` this machine's (default: uname). The folders need not exist.
    """
    if nodename or not any(slurmd.node for slurmd in conf.slurmds):
        return _by_host(conf, nodename, hostname)
    short = (os.uname().nodename if hostname is None else hostname).partition(".")[0]
    told = []
    for slurmd in conf.slurmds:
        if slurmd.node:
            told.append((_expand(conf.spool_dir, slurmd.node, short), slurmd.node))
    found = _by_host(conf, nodename, hostname)
    # where every node's sockets are looked at, one node's are among them
    return list(dict.fromkeys([*(place for place in told if (place[0], None) not in found), *found]))


def _by_host(conf: SlurmConf, nodename: str | None, hostname: str | None) -> list[SpoolDir]:
    full = os.uname().nodename if hostname is None else hostname
    short = full.partition(".")[0]
    pattern = conf.spool_dir
    if nodename:
        return [(_expand(pattern, nodename, short), nodename)]
    for host in (short, full, "localhost") if short != full else (short, "localhost"):
        nodes = nodes_of_host(conf.statements, host)
        if nodes:
            return [(_expand(pattern, node.name, short), node.name) for node in nodes]
    if not has_pattern(pattern):
        return [(pattern, None)]
    # without -N a dynamic slurmd calls itself by its full host name
    guesses = [(_expand(pattern, name, short), None) for name in dict.fromkeys((short, full))]
    return list(dict.fromkeys([*guesses, *_by_looking(pattern, conf.spool_owners)]))


def pid_files(conf: SlurmConf, nodename: str | None = None) -> list[str]:
    """The pid files of the node's slurmds, patterns filled in as for the folders; they need not exist."""
    if not has_pattern(conf.pid_file):
        return [conf.pid_file]
    short = os.uname().nodename.partition(".")[0]
    names = dict.fromkeys(node or short for _, node in spool_dirs(conf, nodename))
    return [_expand(conf.pid_file, name, short) for name in names]


def _by_looking(pattern: str, owners: tuple[int, ...]) -> Iterator[SpoolDir]:
    """The folders that fit the pattern and have an extern step, with its node's name."""
    for folder in _fitting(pattern):
        try:
            info = os.lstat(folder)
            if not stat.S_ISDIR(info.st_mode) or other_writers(folder, info, owners):
                continue
            nodes = {extern_node(entry) for entry in os.listdir(folder)}
        except OSError as error:
            raise_own_lack(error)
            continue
        for node in sorted(filter(None, nodes)):
            yield folder, node


def _fitting(pattern: str) -> list[str]:
    """The existing paths that fit a pattern, whatever the names."""
    found = [""]
    levels = 0
    for part in pattern.split("/")[1:]:
        if not has_pattern(part):
            found = [f"{folder}/{part}" for folder in found]
            continue
        levels += 1
        if levels > MAX_PATTERN_LEVELS:
            return []
        ends = part.replace("%h", "%n").split("%n")
        found = [f"{folder}/{entry}" for folder in found for entry in _entries(folder, ends[0], ends[-1])]
    return found


def _entries(folder: str, start: str, end: str) -> list[str]:
    names: list[str] = []
    try:
        with os.scandir(folder or "/") as entries:
            for count, entry in enumerate(entries):
                if count >= MAX_ENTRIES:
                    break
                if (
                    entry.name.startswith(start)
                    and entry.name.endswith(end)
                    and len(entry.name) > len(start) + len(end)
                ):
                    names.append(entry.name)
    except OSError as error:
        raise_own_lack(error)
        return []
    return sorted(names)
