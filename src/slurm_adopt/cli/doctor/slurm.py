# SPDX-License-Identifier: Apache-2.0
"""slurm.conf, cgroup.conf and the spool directory, as slurmd uses them."""

from __future__ import annotations

import os
import pwd

from ...model import REASONS
from ...system.slurm.conf import ConfFault
from ...system.slurm.slurmd import find_by_number, find_by_program
from ...system.slurm.spool import SpoolDirectory, SpoolFault
from ...system.slurm.spool_dir import pid_files, spool_dirs
from ...wire.errors import RemoteProtocolError
from ...wire.slurm_conf import parse
from ...wire.slurm_nodes import iter_nodes, node_of_name, nodes_of_host
from ..main import closest
from .finding import ERROR, WARNING, Finding
from .scripts import check_scripts
from .slurm_running import check_extern_steps, missing_plugins

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...system.slurm.conf import SlurmConf
    from ...wire.slurm_nodes import NodeRecord
    from .node import Node

CONF_MENDS = {
    "slurm-conf-missing": "put slurm.conf where slurmd has it, or build with -Dslurm_conf=PATH",
    "slurm-conf-lost": "give slurm_conf=PATH on both PAM lines, or build with -Dslurm_conf=PATH",
    "slurm-conf-unreadable": "mend the file, or the file system it is on",
    "slurm-conf-untrusted": "",  # the fault says it
    "slurm-conf-malformed": "mend the line that is named, then `scontrol reconfigure`",
}
INCLUDE_MEND = "put the file that is named back, or take the line that includes it out of slurm.conf"
SPOOL_MENDS = {
    "spool-dir-missing": "systemctl restart slurmd    # it makes the folder",
    "spool-dir-untrusted": "chown root:root {0} && chmod 755 {0}",
    "spool-dir-unreadable": "mend the path SlurmdSpoolDir in slurm.conf, or the file system it is on",
}
#: They imply contain (slurm.conf(5)).
CONTAINING = {"contain", "x11", "runinjob"}
CONTAINER_CONF = "job_container.conf"
TRACKING = "proctrack/cgroup"
#: What Slurm takes for a yes (slurm.conf and cgroup.conf; tried with `scontrol show config`).
YES = ("yes", "true", "up", "1")
#: One slip may be in the line of each rack.
PROBLEM_CAP = 5
#: cgroup.conf(5) of Slurm 20.11 to 26.05, by their names in lower case.
CGROUP_KEYS = {
    name.lower(): name
    for name in (
        *("CgroupMountpoint", "CgroupPlugin", "CgroupAutomount", "CgroupReleaseAgentDir", "SystemdTimeout"),
        *("IgnoreSystemd", "IgnoreSystemdOnFailure", "EnableControllers", "EnableExtraControllers", "CgroupSlice"),
        *("AllowedRAMSpace", "AllowedSwapSpace", "AllowedKmemSpace", "AllowedDevicesFile", "ConstrainCores"),
        *("ConstrainDevices", "ConstrainRAMSpace", "ConstrainSwapSpace", "ConstrainKmemSpace", "MaxRAMPercent"),
        *("MaxSwapPercent", "MaxKmemPercent", "MemorySwappiness", "MinRAMSpace", "MinKmemSpace", "TaskAffinity"),
        *("SignalChildrenProcesses",),
    )
}
CONSTRAINTS = ("constraincores", "constrainramspace", "constraindevices", "constrainswapspace")


def is_login_node(node: Node, conf: SlurmConf) -> bool:
    """Whether slurm.conf knows compute nodes, and this machine is none of them and runs no slurmd."""
    if node.nodename or node.root or any(line.options.nodename for line in node.our_lines("account")):
        return False
    full = os.uname().nodename
    known = any(nodes_of_host(conf.statements, host) for host in (full.partition(".")[0], full, "localhost"))
    if not conf.has_nodes() or known:
        return False
    return not (find_by_number(pid_files(conf, node.nodename)) or find_by_program())


def check_slurm(node: Node) -> Iterator[Finding]:
    """slurm.conf first; what follows from a missing one is not said."""
    try:
        conf = node.conf()
    except ConfFault as fault:
        yield Finding(
            fault.reason,
            ERROR,
            str(fault),
            f"{REASONS[fault.reason].meaning} action_generic_failure= holds for each login",
            INCLUDE_MEND if _is_include(node, fault) else CONF_MENDS[fault.reason] or _mend_owner(str(fault)),
        )
        return
    if is_login_node(node, conf):
        yield Finding(
            "login-node",
            ERROR,
            f"no NodeName of {conf.path} is this machine ({os.uname().nodename}), and no slurmd runs",
            "this is no compute node: no job is ever here, and every login but root's is refused",
            "take slurm-adopt's lines out of /etc/pam.d; on a compute node: mend NodeName, or set nodename=",
        )
        return
    odd_nodes: list[str] = []
    for _ in iter_nodes(conf.statements, conf.slurmd_port, odd_nodes):
        pass
    for problem in (*conf.problems, *odd_nodes[:PROBLEM_CAP]):
        yield Finding(
            "slurm-conf-problem",
            WARNING,
            problem,
            "slurmd and slurm-adopt may make different things of it",
            f"mend it in {conf.path}",
        )
    yield from check_names(node, conf)
    yield from check_settings(node, conf)
    yield from check_second(node, conf)
    yield from check_scripts(node, conf)
    yield from check_cgroups(node, conf)
    spool = list(check_spool(node, conf))
    yield from spool
    if not spool and CONTAINING & set(conf.prolog_flags):
        yield from check_extern_steps(node, conf)


def _mend_owner(fault: str) -> str:
    """`PATH: everybody may write it: chmod go-w PATH`, `PATH: owned by uid 5, not root or slurm`"""
    path, _, what = fault.partition(": ")
    return what.partition(": ")[2] or f"chown root {path}"


def _is_include(node: Node, fault: ConfFault) -> bool:
    """Whether slurm.conf is there, and a file that it includes is not."""
    return fault.reason == "slurm-conf-lost" and not any(path in str(fault) for path in node.conf_paths)


def check_names(node: Node, conf: SlurmConf) -> Iterator[Finding]:
    """nodename= of the PAM lines."""
    named: dict[str, list[str]] = {}
    for kind in ("account", "session"):
        for line in node.our_lines(kind):
            named.setdefault(line.options.nodename, []).append(line.line.origin)
    named.pop("", None)
    for name, origins in named.items() if conf.has_nodes() else ():
        record, where = node_of_name(conf.statements, name), " and ".join(dict.fromkeys(origins))
        if record is None or not _is_here(node, conf, record):
            yield Finding(
                "slurm-nodename",
                ERROR,
                f"{where}: nodename={name}, "
                + (f"which {conf.path} does not know" if record is None else f"which is the machine {record.hostname}"),
                "no job is looked for under this node's name: users with jobs are refused",
                f"take nodename= out of {where}, or write the node's NodeName",
            )


def _is_here(node: Node, conf: SlurmConf, record: NodeRecord) -> bool:
    """Whether a node may be this machine: by its host name, or because a slurmd that runs here was told the name."""
    full = os.uname().nodename
    here = {full, full.partition(".")[0], "localhost"}
    return bool(node.root) or record.hostname in here or record.name in {slurmd.node for slurmd in conf.slurmds}


def check_settings(node: Node, conf: SlurmConf) -> Iterator[Finding]:
    """What an extern step needs to be there, and to confine."""
    if not CONTAINING & set(conf.prolog_flags):
        yield Finding(
            "slurm-no-contain",
            ERROR,
            f"{conf.path}: PrologFlags is {','.join(conf.prolog_flags) or 'not set'}, without contain",
            "jobs have no extern step on their nodes: there is nothing to put a login into, and each is refused",
            f"PrologFlags={','.join(('contain', *conf.prolog_flags))}    # in slurm.conf, then restart Slurm's daemons",
        )
    gone = missing_plugins(node, conf)
    yield from gone
    if gone:
        pass  # which plugin was meant is not known
    elif conf.proctrack_type != TRACKING:
        is_name = "/" in conf.proctrack_type
        yield Finding(
            "slurm-proctrack",
            WARNING if is_name else ERROR,
            f"{conf.path}: ProctrackType is {conf.proctrack_type}",
            "Slurm follows processes by parent and session: what a login starts in the background outlives the job"
            if is_name
            else "slurmd does not start again: this plugin is not found without its kind, as others are",
            f"ProctrackType={TRACKING}    # in slurm.conf, then restart slurmd with no job on the node",
        )
    elif "task/cgroup" not in conf.task_plugin:
        yield Finding(
            "slurm-task-plugin",
            WARNING,
            f"{conf.path}: TaskPlugin is {','.join(conf.task_plugin) or 'not set'}, without task/cgroup",
            "logins are in the job's cgroup, and have all of the node's processors and memory all the same",
            "TaskPlugin=task/cgroup,task/affinity    # in slurm.conf, then restart slurmd with no job on the node",
        )
    user = node.setting("slurmuser")
    if user and not user.isdigit() and not node.root and not _has_account(user):
        yield Finding(
            "slurm-conf-problem",
            WARNING,
            f"{conf.path}: there is no user {user} here, whom SlurmUser names",
            "slurmd does not start again",
            f"make the user {user} as on the other nodes, or mend SlurmUser",
        )
    lines = [line for line in node.our_lines("session") + node.our_lines("account") if line.works]
    if conf.container_type not in ("", "job_container/none") and lines:
        apart = next((line for line in lines if not line.options.join_container), None)
        if apart is not None:
            yield Finding(
                "slurm-container",
                WARNING,
                f"{conf.container_type} is on, and {apart.line.origin} has join_container=false",
                "logins see another /tmp than the job does",
                f"take join_container=false out of {apart.line.origin}",
            )
    folder = node.conf_folder()
    if not gone and conf.container_type == "job_container/tmpfs" and not node.exists(f"{folder}/{CONTAINER_CONF}"):
        yield Finding(
            "slurm-container-conf",
            ERROR,
            f"{conf.path}: JobContainerType={conf.container_type}, and there is no {folder}/{CONTAINER_CONF}",
            "slurmd does not start again",
            f"put {CONTAINER_CONF} beside slurm.conf, or take JobContainerType= out",
        )
    if node.setting("usepam").lower() in YES:
        guarded = node.our_lines("account", "slurm")
        if guarded or "slurm" not in node.services():
            what = f"{guarded[0].line.origin} is slurm-adopt's" if guarded else "there is no /etc/pam.d/slurm"
            yield Finding(
                "slurm-use-pam",
                ERROR if guarded else WARNING,
                f"{conf.path}: UsePAM=1, and {what}",
                "UsePAM makes slurmstepd open a PAM session `slurm` for each job; it has nothing to do with ssh logins",
                "UsePAM=0    # in slurm.conf; sshd has a UsePAM of its own, which must be yes",
            )


def _has_account(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def check_second(node: Node, conf: SlurmConf) -> Iterator[Finding]:
    """A second slurm.conf that says something else."""
    first = node.read(conf.path[len(node.root) :])
    others = [path[len(node.root) :] for path in node.conf_paths if path != conf.path]
    for path in others:
        second = node.read(path)
        if second is not None and second != first:
            yield Finding(
                "slurm-second-conf",
                WARNING,
                f"logins are decided by {conf.path[len(node.root) :]}; {path} differs from it",
                "slurmd or Slurm's commands may use the other one: spool directory or node name may not be what runs",
                f"ln -sf {conf.path[len(node.root) :]} {path}    # or remove the one that slurmd does not use",
            )


def check_cgroups(node: Node, conf: SlurmConf) -> Iterator[Finding]:
    """cgroup.conf against what is mounted."""
    settings = node.cgroup_conf() or {}
    odd = list(check_cgroup_conf(node))
    yield from odd
    if (
        not odd
        and "task/cgroup" in conf.task_plugin
        and not any(settings.get(key, "").lower() in YES for key in CONSTRAINTS)
    ):
        yield Finding(
            "cgroup-constrains-nothing",
            WARNING,
            f"cgroup.conf beside {conf.path} "
            + ("has neither ConstrainCores=yes nor ConstrainRAMSpace=yes" if settings else "is not there, or empty"),
            "jobs and logins are counted, and held to nothing: each may use the whole node",
            "ConstrainCores=yes\nConstrainRAMSpace=yes\nConstrainDevices=yes    # in cgroup.conf, then restart slurmd",
        )
    plugin = settings.get("cgroupplugin", "autodetect").lower()
    if plugin == "disabled" or (conf.proctrack_type != TRACKING and "task/cgroup" not in conf.task_plugin):
        return  # what is said of cgroups is for nobody
    mount = settings.get("cgroupmountpoint", "/sys/fs/cgroup")
    if not node.exists(mount):
        yield Finding(
            "cgroup-mountpoint",
            ERROR,
            f"cgroup.conf: CgroupMountpoint={mount}, which is not there",
            "slurmd starts no job, or none that could be confined",
            f"sed -i '/^CgroupMountpoint/Id' {node.conf_folder()}/cgroup.conf    # /sys/fs/cgroup is the default",
        )
        return
    unified = node.exists(f"{mount}/cgroup.controllers")
    if plugin in ("cgroup/v1", "cgroup/v2") and (plugin == "cgroup/v2") != unified:
        yield Finding(
            "cgroup-version",
            ERROR,
            f"cgroup.conf: CgroupPlugin={plugin}, and {mount} is version {'2' if unified else '1'}",
            "slurmd does not start again, and what it has started is not confined",
            "CgroupPlugin=autodetect    # in cgroup.conf, then restart slurmd",
        )


def check_cgroup_conf(node: Node) -> Iterator[Finding]:
    """What slurmd does not understand of it."""
    path = f"{node.conf_folder()}/cgroup.conf"
    text = node.read(path)
    if text is None:
        return
    try:
        found = parse(text, path)
        problems = list(found.problems)
        for key, _, _, number in found.statements:
            meant = "" if key in CGROUP_KEYS else closest(key, list(CGROUP_KEYS))
            if meant:
                problems.append(f"{path}:{number}: there is no {key} (did you mean {CGROUP_KEYS[meant]}?)")
    except RemoteProtocolError as error:
        problems = [str(error)]
    if problems:
        yield Finding(
            "cgroup-conf-problem",
            ERROR,
            "; ".join(problems),
            "slurmd does not start again with it, and what it has started may be confined otherwise than is written",
            f"mend {path}, then restart slurmd",
        )


def check_spool(node: Node, conf: SlurmConf) -> Iterator[Finding]:
    """The folders where slurmstepds have their sockets."""
    if node.root:
        return
    missing: SpoolFault | None = None
    found = False
    names = {line.options.nodename for line in node.our_lines("account")} - {""}
    for name in {node.nodename} if node.nodename else names or {""}:
        for folder, prefix in spool_dirs(conf, name):
            try:
                os.close(SpoolDirectory(folder, conf.step_owners, prefix, conf.spool_owners).fd)
                found = True
                yield from _check_way(node, conf, folder)
            except SpoolFault as fault:
                if fault.reason == "spool-dir-missing":
                    missing = fault
                    continue
                yield _spool_finding(fault, folder)
                return
    if not found and missing is not None:
        yield _spool_finding(missing, conf.spool_dir)


def _check_way(node: Node, conf: SlurmConf, folder: str) -> Iterator[Finding]:
    """Who may put another folder in the place of slurmd's: a scratch disk that everybody may write."""
    place, others = node.loose_folder(folder, conf.spool_owners)
    if place:
        what, _, mend = others.partition(": ")
        yield Finding(
            "spool-folder-writable",
            WARNING if what.startswith("group ") else ERROR,
            f"{place}: {what}; SlurmdSpoolDir {folder} is in it",
            "whoever takes SlurmdSpoolDir away has everybody refused; with the default options, let in without a job",
            f"{mend}    # or chmod +t {place}",
        )


def _spool_finding(fault: SpoolFault, folder: str) -> Finding:
    return Finding(
        fault.reason,
        ERROR,
        str(fault),
        REASONS[fault.reason].meaning,
        SPOOL_MENDS[fault.reason].format(folder)
        if os.path.isdir(folder) or not os.path.exists(folder)
        else f"rm {folder} && systemctl restart slurmd    # it is no folder",
    )
