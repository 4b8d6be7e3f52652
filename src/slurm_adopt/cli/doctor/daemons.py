# SPDX-License-Identifier: Apache-2.0
"""slurmd, and what Slurm authenticates by: whether they run and answer."""

from __future__ import annotations

import os
import pwd
import stat
import time

from ...system.kernel.procfs import (
    read_command_name,
    read_file,
    read_owned_process,
)
from ...system.rpc.credentials import auth_settings
from ...system.rpc.munge import DEFAULT_SOCKET, MungeFault, MungeWorkers, decode_credential, encode_credential
from ...system.slurm.slurmd import find_by_number, find_by_program
from ...system.slurm.spool_dir import pid_files
from ...system.tasks.task import MS, DeadlineExceeded, run
from ...wire.slurm_nodes import nodes_of_host
from .finding import ERROR, NOTE, WARNING, Finding
from .node import listening_at, shown_mode
from .slurm import is_login_node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...system.kernel.procfs import OwnedProcess
    from ...system.slurm.conf import SlurmConf
    from ...system.slurm.slurmd import Slurmd
    from .node import Node

#: munged answers in milliseconds, and on a machine with much to do in a second. Less than all checks have together.
MUNGE_NS = 3000 * MS
MUNGE_KEY = "/etc/munge/munge.key"
MUNGE_USER = "munge"
MUNGED, MUNGED_PID_FILE = "munged", "/run/munge/munged.pid"
#: The boot's time is known to a fraction of a second.
LATER_S = 2.0
ANYWHERE = {"00000000", "0" * 32}
#: Where auth/slurm's key is, beside slurm.conf or in slurmd's and sackd's own folder.
KEYS = ("slurm.key", "slurm.jwks")
#: adjtimex(2): the clock is not synchronized.
TIME_ERROR = 5


def check_slurmd(node: Node) -> Iterator[Finding]:
    """slurmd runs, has read the slurm.conf that logins are decided by, and listens."""
    conf = node.conf_or_none()
    if conf is None or is_login_node(node, conf):
        return
    files = pid_files(conf, _nodename(node))
    found = find_by_number(files)
    if not found:
        found = find_by_program()
        if not found:
            yield Finding(
                "slurmd-down",
                ERROR,
                f"no slurmd runs on this node ({', '.join(files)})",
                "no job starts here; logins into running jobs go on, and caller ID of logins from here fails",
                "systemctl start slurmd    # `journalctl -u slurmd` says why it ended",
            )
            return
        yield Finding(
            "slurmd-pid-file",
            WARNING,
            f"slurmd runs, and is not the process that {', '.join(files)} names",
            "a login without the service has to look for slurmd elsewhere, which takes longer",
            "make SlurmdPidFile in slurm.conf the file that slurmd writes, and restart slurmd",
        )
    yield from check_place(found[0], conf)
    yield from check_port(found[0], conf)


def _nodename(node: Node) -> str:
    names = {line.options.nodename for line in node.our_lines("account")} - {""}
    return node.nodename or (names.pop() if len(names) == 1 else "")


def check_place(slurmd: Slurmd, conf: SlurmConf) -> Iterator[Finding]:
    """The slurm.conf that slurmd was told to use."""
    if slurmd.conf and os.path.realpath(slurmd.conf) != os.path.realpath(conf.path):
        yield Finding(
            "slurmd-other-conf",
            ERROR,
            f"slurmd runs with {slurmd.conf}; logins are decided by {conf.path}",
            "spool directory, node name or plugins may differ: users with jobs may be refused",
            f"ln -sf {slurmd.conf} {conf.path}    # or build with -Dslurm_conf={slurmd.conf}",
        )


def check_port(slurmd: Slurmd, conf: SlurmConf) -> Iterator[Finding]:
    """Where slurmd listens: other nodes ask it there which job a login comes from."""
    listens = [place.split(":") for place in listening_at(slurmd)]
    places, ports = [place for place, _ in listens], {int(port, 16) for _, port in listens}
    if not places:
        yield Finding(
            "slurmd-not-listening",
            ERROR,
            f"slurmd listens on no port (SlurmdPort is {conf.slurmd_port})",
            "no job starts here, and no other node can ask which job a login comes from",
            "restart slurmd; its log says why it does not listen",
        )
    elif not ANYWHERE & set(places):
        yield Finding(
            "slurmd-one-address",
            WARNING,
            "slurmd listens on one address of this node only (CommunicationParameters=NoInAddrAny)",
            "logins that leave this node by another address are taken for logins of nobody's job",
            "take NoInAddrAny out of CommunicationParameters in slurm.conf, and restart slurmd",
        )
    wanted = {
        node.port for node in nodes_of_host(conf.statements, os.uname().nodename.partition(".")[0], conf.slurmd_port)
    }
    if ports and wanted and not ports & wanted:
        yield Finding(
            "slurmd-other-port",
            WARNING,
            f"slurmd listens on port {min(ports)}; {conf.path} says {', '.join(map(str, sorted(wanted)))}",
            "other nodes ask in vain which job a login comes from: it goes into the user's newest one",
            "systemctl restart slurmd    # with the slurm.conf that all nodes have",
        )


def check_auth(node: Node) -> Iterator[Finding]:
    """munged answers, or the key of auth/slurm is there and safe; and the clock is right."""
    conf = node.conf_or_none()
    if conf is None:
        return
    if conf.auth_type == "auth/munge":
        yield from check_munge(conf)
        yield from check_munge_key(node)
        yield from check_munge_start(node)
        yield from check_munge_folders(node, conf)
    elif conf.auth_type == "auth/slurm":
        yield from check_key(node)
    else:
        yield Finding(
            "auth-none",
            WARNING,
            f"{conf.path}: AuthType is {conf.auth_type}, neither auth/munge nor auth/slurm",
            "no other node's answer can be believed: logins of users with several jobs go to the newest one",
            "AuthType=auth/munge    # in slurm.conf of all nodes, then restart Slurm's daemons",
        )
    yield from check_clock()


def check_munge(conf: SlurmConf) -> Iterator[Finding]:
    """A credential there and back."""
    path = auth_settings(conf.auth_info).get("socket", "") or DEFAULT_SOCKET
    workers = MungeWorkers()
    until_ns = time.monotonic_ns() + MUNGE_NS
    try:
        uid = os.geteuid()
        text = run(encode_credential(workers, b"", uid, 0, path, uid, until_ns))
        run(decode_credential(workers, text, path, uid, until_ns))
    except DeadlineExceeded:
        yield Finding(
            "munge-hung",
            ERROR,
            f"munged takes questions on {path}, and does not answer",
            "no job starts here, and logins of users with several jobs wait for caller ID in vain",
            "systemctl restart munge",
        )
    except MungeFault as fault:
        code = {"munge-unreachable": "munge-down", "munge-missing": "munge-library"}.get(fault.why, "munge-fails")
        yield Finding(
            code,
            ERROR,
            f"{fault.why}: {fault} ({path})",
            "no job starts here, and logins of users with several jobs go to the newest one, not to theirs",
            {
                "munge-down": "systemctl restart munge"
                if path == DEFAULT_SOCKET or not os.path.exists(DEFAULT_SOCKET)
                else f"take socket={path} out of AuthInfo in {conf.path}: munged listens on {DEFAULT_SOCKET}",
                "munge-library": "install libmunge2 (RedHat: munge-libs)",
            }.get(code, "look at munged's log; `munge -n | unmunge` must say Success"),
        )
    finally:
        workers.close()


def check_munge_key(node: Node) -> Iterator[Finding]:
    """A key that others may read; munged would not start again with it, and goes on as long as it runs."""
    found = node.stat(MUNGE_KEY)
    munged = _munged(node)
    if found is not None and munged is not None and found.st_uid not in (munged.uid, munged.real_uid):
        yield Finding(
            "munge-key-mode",
            ERROR,
            f"{MUNGE_KEY}: {shown_mode(found)}, and munged runs as uid {munged.uid}",
            "munged does not start again with a key that is not its own",
            f"chown {munged.uid} {MUNGE_KEY}",
        )
    elif found is not None and found.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        yield Finding(
            "munge-key-mode",
            ERROR,
            f"{MUNGE_KEY}: mode {stat.S_IMODE(found.st_mode):o}",
            "whoever reads it is everybody to Slurm",
            f"chmod 400 {MUNGE_KEY}    # and make another key for the cluster: this one was open to others",
        )


def check_munge_start(node: Node) -> Iterator[Finding]:
    """A key that is newer than the munged that runs: it has read the one of before."""
    found, process = node.stat(MUNGE_KEY), _munged(node)
    if found is None or process is None:
        return
    booted_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    if found.st_mtime > booted_s + process.started / os.sysconf("SC_CLK_TCK") + LATER_S:
        yield Finding(
            "munge-key-newer",
            WARNING,
            f"{MUNGE_KEY} is newer than the munged that runs",
            "munged goes on with the key of before: nodes that have the new one do not believe this one, nor it them",
            "systemctl restart munge",
        )


def _munged(node: Node) -> OwnedProcess | None:
    """The munged that its pid file names."""
    number = (read_file(node.place(MUNGED_PID_FILE)) or b"").strip()
    process = read_owned_process(int(number)) if number.isdigit() and not node.root else None
    return process if process is not None and read_command_name(process) == MUNGED else None


def check_munge_folders(node: Node, conf: SlurmConf) -> Iterator[Finding]:
    """Who may put another socket or another key in the place of munged's; munged itself looks only when it starts."""
    owner = _munge_uid(node)
    socket = auth_settings(conf.auth_info).get("socket", "") or DEFAULT_SOCKET
    said: set[str] = set()
    for path, why in (
        (socket, "whoever may write there answers in munged's place, and so decides who is who to Slurm and to logins"),
        (MUNGE_KEY, "whoever may write there gives munged a key of their own, with which one is everybody to Slurm"),
    ):
        folder, others = node.loose_folder(path, (0, owner))
        if folder and folder not in said:
            said.add(folder)
            what, _, mend = others.partition(": ")
            if what.startswith("belongs"):
                mend = f"chown {MUNGE_USER if folder == os.path.dirname(path) else 'root'} {folder}"
            yield Finding("munge-folder-writable", ERROR, f"{folder}: {what}; {path} is in it", why, mend)


def _munge_uid(node: Node) -> int:
    """Whose munged is: the account of that name, and where there is none, whoever has the key."""
    try:
        return pwd.getpwnam(MUNGE_USER).pw_uid
    except KeyError:
        found = node.stat(MUNGE_KEY)
        return found.st_uid if found is not None else 0


def check_key(node: Node) -> Iterator[Finding]:
    """auth/slurm's key."""
    paths = [f"{node.conf_folder()}/{name}" for name in KEYS]
    found = next(((path, node.stat(path)) for path in paths if node.stat(path) is not None), None)
    if found is None:
        yield Finding(
            "auth-key-missing",
            WARNING,
            f"AuthType=auth/slurm, and neither of {', '.join(paths)} is there",
            "caller ID of users with several jobs cannot be believed",
            "put slurm.key beside slurm.conf: owner SlurmUser, mode 600",
        )
    elif found[1] is not None and found[1].st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield Finding(
            "auth-key-mode",
            ERROR,
            f"{found[0]}: mode {stat.S_IMODE(found[1].st_mode):o}",
            "whoever reads it is everybody to Slurm",
            f"chmod 600 {found[0]}",
        )


def check_clock() -> Iterator[Finding]:
    """What the kernel says of the clock."""
    import ctypes

    space = ctypes.create_string_buffer(512)
    if ctypes.CDLL(None).adjtimex(space) == TIME_ERROR:
        yield Finding(
            "clock-not-synchronized",
            NOTE,
            "the kernel says that the clock is not synchronized",
            "a clock that is five minutes off makes every credential of munge's invalid",
            "systemctl enable --now chrony    # or systemd-timesyncd",
        )
