# SPDX-License-Identifier: Apache-2.0
"""The slurm.conf of this node: the one that its slurmd uses.

Rules of this file:
1. `slurm_conf=` on the PAM line wins. Then comes what the running slurmd uses, then the usual places.
2. Where slurmd uses another file than the usual places would give, the result says so (`remark`).
3. A slurmd runs here, but its slurm.conf is not to be found: that is a fault of its own (slurm-conf-lost). A machine
   without slurmd and without slurm.conf is no compute node (slurm-conf-missing).
"""

from __future__ import annotations

import os

from ...record import replace
from ..kernel.procfs import has_ended
from .conf import SEARCH_PATHS, ConfFault, is_current, read_slurm_conf
from .slurmd import USUAL_PID_FILES, find_by_number, find_by_program, find_conf_of
from .spool_dir import pid_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .conf import SlurmConf
    from .slurmd import Slurmd


def read_node_conf(place: str = "", thorough: bool = False, last: SlurmConf | None = None) -> SlurmConf:
    """Find, read and judge the node's configuration; `ConfFault`.

    `place`: the only file that is looked at. `thorough`: look at all processes, for who keeps the result. `last`: what
    was right when a slurmd was seen last, for the time in which none runs.
    """
    fixed = place or _first(SEARCH_PATHS)
    slurmds = find_by_program() if thorough else find_by_number(USUAL_PID_FILES)
    if not slurmds and last is not None and _first((last.path,)):
        return replace(read_slurm_conf((last.path,), thorough), remark=last.remark)
    conf = None
    if not slurmds and not thorough:
        conf, slurmds = _read_and_find(fixed)
    path = place or _choose(slurmds, fixed)
    if conf is None or not _is_same(conf.path, path):
        try:
            conf = read_slurm_conf((path,) if path else SEARCH_PATHS, thorough)
        except ConfFault as fault:
            raise _lost(fault, slurmds or find_by_program()) from None
    return replace(conf, slurmds=slurmds, remark="" if place else _remark(conf, slurmds, fixed))


def _read_and_find(fixed: str) -> tuple[SlurmConf | None, tuple[Slurmd, ...]]:
    """The file that is there without any slurmd, if it can be used, and the slurmds of the pid files it names."""
    try:
        conf = read_slurm_conf((fixed,)) if fixed else None
    except ConfFault:
        return None, find_by_program()
    return conf, (find_by_number(pid_files(conf)) if conf is not None else ()) or find_by_program()


def is_node_conf_current(conf: SlurmConf, place: str = "") -> bool:
    """Whether `read_node_conf` would give the same again: a few stat() calls, and a look at the slurmds seen."""
    if any(has_ended(slurmd) for slurmd in conf.slurmds):
        return False
    # what a slurmd uses does not depend on what lies in the other places
    return is_current(conf, () if place or conf.slurmds or conf.remark else SEARCH_PATHS)


def _first(paths: tuple[str, ...]) -> str:
    """The first of these that is there, or that cannot be looked at; empty without one."""
    for path in paths:
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return path
        return path
    return ""


def _choose(slurmds: tuple[Slurmd, ...], fixed: str) -> str:
    """The file to read; empty if no slurmd says and none is there."""
    for slurmd in slurmds:
        path = find_conf_of(slurmd, fixed)
        if path:
            return path
    return fixed


def _lost(fault: ConfFault, slurmds: tuple[Slurmd, ...]) -> ConfFault:
    if fault.reason == "slurm-conf-missing" and slurmds:
        return ConfFault("slurm-conf-lost", f"slurmd runs here (process {slurmds[0].pid}), but {fault}")
    return fault


def _remark(conf: SlurmConf, slurmds: tuple[Slurmd, ...], fixed: str) -> str:
    remarks = []
    if fixed and not _is_same(conf.path, fixed):
        remarks.append(f"slurmd uses {conf.path}, not {fixed}: the latter is not used")
    others = {path for path in (find_conf_of(slurmd, fixed) for slurmd in slurmds[1:]) if not _is_same(conf.path, path)}
    if others:
        remarks.append(f"slurmds with other slurm.conf files run here as well ({', '.join(sorted(others))})")
    return "; ".join(remarks)


def _is_same(one: str, other: str) -> bool:
    try:
        return one == other or os.path.samefile(one, other)
    except OSError:
        return False
