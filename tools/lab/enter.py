# SPDX-License-Identifier: Apache-2.0
"""Enter a machine that runs: ssh logins and shells in it, from another terminal."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from lab.cgroups import CgroupTree
from lab.machine import LabError, Machine
from lab.sshd import ssh_argv


@dataclass(frozen=True)
class Running:
    name: str
    hostname: str
    init_pid: int
    supervisor_pid: int
    tree: CgroupTree


def running_machines() -> list[Running]:
    """The machines of all callers on this host, oldest first: children of supervisors (see supervisor)."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            argv = (entry / "cmdline").read_bytes().decode().split("\0") if entry.name.isdigit() else []
            if "lab.supervisor" not in argv:
                continue
            spec = json.loads(argv[argv.index("lab.supervisor") + 1])
            init = int((entry / "task" / entry.name / "children").read_text().split()[0])
            tree = CgroupTree.from_json(spec["cgroups"])
        except (OSError, ValueError, IndexError, KeyError):
            continue  # ended meanwhile, not up yet, or of another version
        found.append(Running(spec["name"], spec["hostname"], init, int(entry.name), tree))
    return sorted(found, key=lambda machine: machine.supervisor_pid)


def attach(name: str | None) -> Machine:
    """A machine of somebody else's, to run commands in; without a name the newest. It cannot be ended this way."""
    candidates = [machine for machine in running_machines() if name in (None, machine.name)]
    if not candidates:
        raise LabError("no such machine is up: `make demo KEEP=1` leaves one")
    machine = Machine(candidates[-1].hostname)
    machine.name = candidates[-1].name
    machine.tree = candidates[-1].tree
    machine.init_pid = candidates[-1].init_pid
    return machine


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/node", description="Enter an isolated node that is up.")
    parser.add_argument("--name", help="which one (default: the newest)")
    commands = parser.add_subparsers(dest="what", required=True)
    ssh = commands.add_parser("ssh", help="log in with ssh")
    ssh.add_argument("user")
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    shell = commands.add_parser("shell", help="a shell outside any job, without ssh")
    shell.add_argument("user", nargs="?", default="root")
    shell.add_argument("command", nargs=argparse.REMAINDER)
    commands.add_parser("log", help="what was sent to syslog")
    commands.add_parser("list", help="the machines that are up")
    return parser.parse_args()


def main() -> int:
    arguments = _parse()
    if arguments.what == "list":
        for running in running_machines():
            print(f"{running.name}  {running.hostname}  process 1 is {running.init_pid}")
        return 0
    machine = attach(arguments.name)
    if arguments.what == "log":
        print(*machine.log(), sep="\n")
        return 0
    command = _command(machine, arguments)
    os.execvp(command[0], command)  # noqa: S606
    return 0


def _command(machine: Machine, arguments: argparse.Namespace) -> list[str]:
    terminal = {"TERM": os.environ.get("TERM", "dumb")}
    if arguments.what == "ssh":
        argv, _ = ssh_argv(arguments.user, " ".join(arguments.command) or None, tty=not arguments.command)
        return machine.enter_command(argv, env=terminal)
    user = None if arguments.user == "root" else arguments.user
    return machine.enter_command(arguments.command or ["bash"], user, terminal)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(f"tools/node: {error}")
