# SPDX-License-Identifier: Apache-2.0
"""systemd's units of the services, with their drop-ins: what an earlier installation or a slip has left in them.

Rules of this file:
1. The files are read, and systemd is not asked: a fault is named before the next restart makes it felt. Which file and
   which drop-in counts is systemd.unit(5); a setting with an empty value takes back what stood before it.
2. A unit that is masked, or whose files are not there, is the site's wish.
3. A service that does not start costs no login: the one-shot helper decides. So these are warnings.
"""

from __future__ import annotations

import os
import shlex

from ...record import record
from .finding import WARNING, Finding
from .node import KINDS, mode_fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .node import Node

#: The first one wins, for units and for drop-ins of the same name.
FOLDERS = (
    *("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system"),
    *("/usr/lib/systemd/system", "/lib/systemd/system"),
)
SERVICE, SOCKET = "slurm-adopt.service", "slurm-adopt.socket"
UNITS = (SERVICE, SOCKET, "slurm-adopt-users.service", "slurm-adopt-users.socket")
MASK = "/dev/null"
SYSTEMD_RUNS = "/run/systemd/system"
#: What each service cannot do without; its unit says for what.
CAPABILITIES = {
    SERVICE: ("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"),
    "slurm-adopt-users.service": ("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"),
}
#: serve's options that name a file.
FILES = ("--metrics-file", "--audit-file")
PREFIXES = "-@:+!|"
RELOAD = "systemctl daemon-reload"
STAYS_DOWN = "the service does not start, and each login starts the one-shot helper"


@record
class Setting:
    """`Key=value` of a section, and where it stands."""

    key: str
    value: str
    file: str


@record
class Unit:
    """A unit as systemd would have it: its file, and all that holds of its settings, drop-ins included."""

    name: str
    path: str
    settings: tuple[Setting, ...]

    def values(self, key: str) -> list[Setting]:
        """What is left of a setting that may stand there several times."""
        found: list[Setting] = []
        for setting in self.settings:
            if setting.key == key.lower():
                found = [*found, setting] if setting.value else []
        return found


def check_units(node: Node) -> Iterator[Finding]:
    """All units that are there."""
    for name in UNITS:
        unit = read_unit(node, name)
        if unit is None:
            continue
        yield from check_writers(node, unit)
        shadowed = list(check_shadow(node, unit))
        yield from shadowed
        if not shadowed and name.endswith(".service"):
            yield from check_command(node, unit)
            yield from check_rights(unit)
        if not shadowed and name == SOCKET:
            yield from check_listen(node, unit)
            yield from check_started(node, unit)


def read_unit(node: Node, name: str) -> Unit | None:
    """The unit; None if it is not installed, or masked."""
    path = next((f"{folder}/{name}" for folder in FOLDERS if _is_there(node, f"{folder}/{name}")), "")
    if not path or os.path.realpath(node.place(path)) == MASK or not node.read(path):
        return None
    drop_ins: dict[str, str] = {}
    for folder in FOLDERS:
        for found in node.glob(f"{folder}/{name}.d/*.conf"):
            drop_ins.setdefault(os.path.basename(found), found)
    files = [path, *(drop_ins[key] for key in sorted(drop_ins))]
    return Unit(name, path, tuple(setting for file in files for setting in _settings(node, file)))


def _is_there(node: Node, path: str) -> bool:
    return os.path.lexists(node.place(path))


def _settings(node: Node, file: str) -> Iterator[Setting]:
    for line in (node.text(file) or "").replace("\\\n", " ").split("\n"):
        key, mark, value = line.strip().partition("=")
        if mark and key[:1] not in ("#", ";", ""):
            yield Setting(key.strip().lower(), value.strip(), file)


def check_writers(node: Node, unit: Unit) -> Iterator[Finding]:
    """systemd runs as root what stands there."""
    if node.root:
        return
    why = "systemd runs as root what stands there: whoever may write it is root"
    for path in dict.fromkeys((unit.path, *(setting.file for setting in unit.settings))):
        seen, mend = mode_fault(node, path, 0o644)
        if seen:
            yield Finding("unit-writable", WARNING, seen, why, mend)


def check_shadow(node: Node, unit: Unit) -> Iterator[Finding]:
    """A whole unit in the place of the one that is installed."""
    others = [f"{folder}/{unit.name}" for folder in FOLDERS]
    others = [path for path in others[others.index(unit.path) + 1 :] if node.exists(path)]
    real = os.path.realpath(node.place(unit.path))
    other = next((path for path in others if os.path.realpath(node.place(path)) != real), "")
    if other and node.read(other) != node.read(unit.path):
        yield Finding(
            "unit-shadowed",
            WARNING,
            f"systemd takes {unit.path}, and not {other}, from which it differs",
            "what an earlier installation or `systemctl edit --full` has left there hides what this version changes",
            f"rm {unit.path} && {RELOAD}    # settings of the site's belong into {FOLDERS[0]}/{unit.name}.d/",
        )


def check_command(node: Node, unit: Unit) -> Iterator[Finding]:
    """ExecStart=: once, a program that is there, and files that it may write."""
    commands = unit.values("ExecStart")
    if len(commands) != 1:
        yield Finding(
            "unit-command",
            WARNING,
            f"{unit.name} has ExecStart= {f'{len(commands)} times' if commands else 'not at all'}"
            + (f" ({commands[-1].file} adds one)" if commands else ""),
            f"systemd refuses the unit: {STAYS_DOWN}",
            f"sed -i '0,/^ExecStart=/s//ExecStart=\\nExecStart=/' {commands[-1].file} && {RELOAD}"
            if commands
            else f"ExecStart=/usr/bin/slurm-adopt serve    # in {unit.path}, then {RELOAD}",
        )
        return
    words = _words(commands[0].value)
    program = words[0].lstrip(PREFIXES) if words else ""
    if not node.exists(program):
        yield Finding(
            "unit-command",
            WARNING,
            f"{commands[0].file}: ExecStart={program}, which is not there",
            STAYS_DOWN,
            f"name the program that is installed in {commands[0].file}, then {RELOAD}",
        )
    for option, path in _pairs(words):
        yield from check_file(node, unit, commands[0].file, option, path)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    """Options of serve that name a file, with the file."""
    for word, following in zip(words, [*words[1:], ""]):
        name, mark, value = word.partition("=")
        if name in FILES:
            yield name, value if mark else following


def check_file(node: Node, unit: Unit, where: str, option: str, path: str) -> Iterator[Finding]:
    """A file that the service is to write."""
    folder = os.path.dirname(path)
    if not node.exists(folder or "/nowhere"):
        yield Finding(
            "unit-file",
            WARNING,
            f"{where}: {option} {path}, and there is no folder {folder or '(the path is not absolute)'}",
            STAYS_DOWN if option == "--audit-file" else "the numbers are written nowhere",
            f"mkdir -p {folder}" if folder else f"write an absolute path in {where}",
        )
        return
    strict = [setting.value.lower() for setting in unit.values("ProtectSystem")][-1:] == ["strict"]
    named = [word.lstrip("-+") for setting in unit.values("ReadWritePaths") for word in _words(setting.value)]
    if strict and not any(folder == one or folder.startswith(f"{one.rstrip('/')}/") or path == one for one in named):
        yield Finding(
            "unit-file",
            WARNING,
            f"{where}: {option} {path}, and ReadWritePaths= of {unit.name} has not {folder}",
            "the unit may write nowhere else: "
            + (STAYS_DOWN if option == "--audit-file" else "the numbers are written nowhere"),
            f"printf '[Service]\\nReadWritePaths={folder}\\n' >>{_own_drop_in(unit)} && {RELOAD}",
        )


def _own_drop_in(unit: Unit) -> str:
    """A file below /etc that adds to the unit: one that is there, or what `systemctl edit` calls it."""
    own = [setting.file for setting in unit.settings if setting.file.startswith(f"{FOLDERS[0]}/{unit.name}.d/")]
    return own[-1] if own else f"{FOLDERS[0]}/{unit.name}.d/override.conf"


def check_rights(unit: Unit) -> Iterator[Finding]:
    """A user, and capabilities, with which the service cannot do what it is there for."""
    user = unit.values("User")[-1:]
    if user and user[0].value not in ("root", "0"):
        yield Finding(
            "unit-rights",
            WARNING,
            f"{user[0].file}: User={user[0].value}",
            f"slurmstepd obeys root only: {STAYS_DOWN}",
            f"sed -i '/^User=/d' {user[0].file} && {RELOAD}",
        )
        return
    bounds = [setting for setting in unit.settings if setting.key == "capabilityboundingset"]
    if not bounds:
        return
    held: set[str] = set()
    for setting in bounds:
        names = set(setting.value.lstrip("~").upper().split())
        held = set() if not setting.value else held - names if setting.value[0] == "~" else held | names
    lacking = [name for name in CAPABILITIES[unit.name] if name not in held]
    if lacking and not bounds[0].value.startswith("~"):
        yield Finding(
            "unit-rights",
            WARNING,
            f"{bounds[-1].file}: CapabilityBoundingSet= leaves {unit.name} without {' and '.join(lacking)}",
            "it cannot see the processes of a login, or Slurm's files: it leaves logins to the one-shot helper",
            f"sed -i '/^CapabilityBoundingSet=/d' {bounds[-1].file} && {RELOAD}",
        )


def check_started(node: Node, unit: Unit) -> Iterator[Finding]:
    """A socket that systemd is to have at each boot, and has not."""
    wanted = [path for folder in FOLDERS for path in node.glob(f"{folder}/*.wants/{unit.name}")]
    listens = [setting.value for setting in unit.values("ListenSequentialPacket")]
    if wanted and node.exists(SYSTEMD_RUNS) and listens and not any(map(node.exists, listens)):
        yield Finding(
            "unit-not-started",
            WARNING,
            f"{unit.name} is enabled ({wanted[0]}), and there is no {listens[0]}",
            "each login starts the one-shot helper: slower, and without numbers and audit stream",
            f"systemctl start {unit.name}    # `systemctl status {unit.name}` says why it is down",
        )


def check_listen(node: Node, unit: Unit) -> Iterator[Finding]:
    """The socket that the modules ask."""
    listens = unit.values("ListenSequentialPacket")
    lines = [line for kind in KINDS for line in node.our_lines(kind) if line.works and line.options.mode == "auto"]
    for line in lines:
        if all(setting.value != line.options.socket for setting in listens):
            where = listens[-1].file if listens else unit.path
            yield Finding(
                "unit-socket",
                WARNING,
                f"{where}: systemd listens on {', '.join(setting.value for setting in listens) or 'no such socket'}; "
                f"{line.line.origin} asks {line.options.socket}",
                "nobody answers there: each login starts the one-shot helper",
                f"ListenSequentialPacket={line.options.socket}    # in {where}, then {RELOAD}; or mend socket=",
            )
            return
