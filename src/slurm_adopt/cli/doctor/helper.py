# SPDX-License-Identifier: Apache-2.0
"""The one-shot helper and the Python that runs it."""

from __future__ import annotations

import os
import re
import stat

from ...places import HELPER
from ...system.tasks.child import ChildFault, run_program
from ...system.tasks.files import ROOT
from ...system.tasks.program import UntrustedProgram, resolve_program
from ...system.tasks.task import run
from .finding import ERROR, WARNING, Finding
from .node import is_noexec, is_roots_alone, mend_noexec, shown_mode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .node import Node

OLDEST = (3, 9)
COMMAND = "slurm-adopt"
COMMAND_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin")
#: How command and helper name the folder of their modules.
TREE = re.compile(r'realpath\("([^"]+)"\)')
#: What a login loads, without anything that needs an open descriptor.
PROBE = """
import sys
print(*sys.version_info[:2])
sys.path.insert(0, {place!r})
import slurm_adopt.login.helper
import importlib
import pkgutil
for room in {rooms!r}:
    folder = importlib.import_module("slurm_adopt." + room)
    for module in pkgutil.walk_packages(folder.__path__, folder.__name__ + "."):
        importlib.import_module(module.name)
print("loaded")
"""
#: Nothing in them is loaded before a login needs it: a part that is missing would be found by a user.
ROOMS = ("wire", "options", "system", "login")
NAME = "slurm_adopt"
#: `from ..wire.errors import`
RELATIVE = re.compile(r"^\s*from (\.+)([\w.]+) import ", re.MULTILINE)
#: The folder that holds the package.
PACKAGE = os.path.realpath(__file__).rpartition("/slurm_adopt/")[0]


def check_helper(node: Node) -> Iterator[Finding]:
    """The helper's file, as the module looks at it before it starts it."""
    found = node.stat(HELPER)
    if found is None:
        yield Finding(
            "helper-missing",
            ERROR,
            f"there is no {HELPER}",
            "where the service does not answer, no login can be decided: action_generic_failure= holds for each",
            "install slurm-adopt again",
        )
        return
    trusted = is_roots_alone(found) and stat.S_ISREG(os.lstat(node.place(HELPER)).st_mode)
    if not trusted or not found.st_mode & stat.S_IXUSR:
        yield Finding(
            "helper-mode",
            ERROR,
            f"{HELPER}: {shown_mode(found)}",
            "the module starts only a plain file that is root's, executable, and that nobody else may write",
            f"chown root:root {HELPER} && chmod 755 {HELPER}"
            if not os.path.islink(node.place(HELPER))
            else f"cp --remove-destination $(readlink -f {HELPER}) {HELPER} && chmod 755 {HELPER}",
        )
        return
    folder, others = node.loose_folder(HELPER, ROOT)
    if others:
        yield Finding(
            "helper-mode",
            ERROR,
            f"{folder}: {others.partition(': ')[0]}; {HELPER} is in it",
            "whoever may write there can take the helper away, or put another program of root's in its place",
            others.partition(": ")[2],
        )
        return
    if is_noexec(node, HELPER):
        yield Finding(
            "helper-noexec",
            ERROR,
            f"{HELPER} is on a file system that is mounted noexec",
            "where the service does not answer, no login can be decided: action_generic_failure= holds for each",
            mend_noexec(HELPER),
        )
        return
    yield from check_python(node)


def check_python(node: Node) -> Iterator[Finding]:
    """The interpreter in the helper's first line: is it there, new enough, and does it load what a login needs?"""
    first = (node.text(HELPER) or "").partition("\n")[0]
    python = first[2:].split()[0] if first.startswith("#!") and first[2:].split() else ""
    try:
        program = resolve_program((python,))
    except (UntrustedProgram, OSError) as fault:
        yield Finding(
            "python-missing",
            ERROR,
            f"{HELPER} begins with {first[:80]!r}: {fault}",
            "the helper cannot be started",
            "put the interpreter back, or build again with PYTHON=/absolute/path/of/python3",
        )
        return
    place = tree_of(node, HELPER) or PACKAGE
    try:
        code = PROBE.format(place=place, rooms=ROOMS)
        said = run(run_program((program, "-IS", "-c", code), {}, node.deadline_ns)).decode("utf-8", "replace")
    except ChildFault as fault:
        said = str(fault)
    words = said.split()
    gone = missing_parts(place)
    if gone and words[-1:] == ["loaded"]:
        words[-1:] = ["there", "is", "no", gone[0]]
    version = tuple(int(word) for word in words[:2]) if all(word.isdigit() for word in words[:2]) else ()
    if len(version) == 2 and version < OLDEST:
        yield Finding(
            "python-too-old",
            ERROR,
            f"{python} is Python {version[0]}.{version[1]}",
            f"the helper needs Python {OLDEST[0]}.{OLDEST[1]} or later",
            "build again with PYTHON=/absolute/path/of/a/later/python3",
        )
    elif words[-1:] != ["loaded"]:
        yield Finding(
            "python-broken",
            ERROR,
            f"{python} cannot load the helper's modules from {place}: {' '.join(words[-20:])}",
            "the helper ends without an answer: action_generic_failure= holds for each login",
            "install slurm-adopt again",
        )
    elif place != PACKAGE and place not in commands(node).values():  # else it is the command that is another one's
        yield Finding(
            "helper-other-build",
            WARNING,
            f"{HELPER} takes its modules from {place}, and this command its own from {PACKAGE}",
            "two installations are mixed: logins are decided by another version than the one that is shown here",
            "install slurm-adopt again, all of it from one build",
        )


def missing_parts(tree: str) -> list[str]:
    """Modules that are asked for by others of the package, and are not there: most are loaded when they are needed."""
    asked: set[str] = set()
    for folder, _, names in os.walk(f"{tree}/{NAME}"):
        for name in names:
            if name.endswith(".py"):
                asked.update(_imports(folder, f"{folder}/{name}"))
    return sorted(path for path in asked if not os.path.exists(f"{path}.py") and not os.path.isdir(path))


def _imports(folder: str, path: str) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = RELATIVE.findall(file.read())
    except OSError:
        return
    for dots, name in found:
        place = folder
        for _ in dots[1:]:
            place = os.path.dirname(place)
        yield f"{place}/{name.replace('.', '/')}"


def commands(node: Node) -> dict[str, str]:
    """The commands of this name, each file once, and the folder that each takes its modules from."""
    found: dict[str, str] = {}
    for path in (f"{folder}/{COMMAND}" for folder in COMMAND_FOLDERS):
        if node.exists(path):
            found.setdefault(os.path.realpath(node.place(path)), path)
    return {path: tree_of(node, path) for path in found.values()}


def tree_of(node: Node, path: str) -> str:
    """The folder that a program of ours takes its modules from, links followed; empty if it does not say."""
    named = TREE.search(node.text(path) or "")
    return os.path.realpath(node.place(named[1])) if named else ""


def check_package(node: Node) -> Iterator[Finding]:
    """The Python package: root's alone, every file and folder of it, and what it lies in."""
    places = [PACKAGE]
    while places[-1] != "/":
        places.append(os.path.dirname(places[-1]))
    for folder, _, names in os.walk(f"{PACKAGE}/slurm_adopt"):
        places += [folder, *(f"{folder}/{name}" for name in names)]
    bad = [path for path in places if not is_roots_alone(os.stat(path))]
    if bad and not node.root:
        yield Finding(
            "package-writable",
            ERROR,
            f"{bad[0]}: {shown_mode(os.stat(bad[0]))}" + (f", and {len(bad) - 1} more" if len(bad) > 1 else ""),
            "helper and service run this code as root: whoever may write it is root",
            f"chown -R root:root {PACKAGE}/slurm_adopt && chmod -R go-w {PACKAGE}/slurm_adopt"
            if bad[0].startswith(f"{PACKAGE}/slurm_adopt")
            else f"chown root:root {bad[0]} && chmod go-w {bad[0]}",
        )
