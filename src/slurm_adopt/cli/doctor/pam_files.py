# SPDX-License-Identifier: Apache-2.0
"""PAM's files as libpam loads them: what it would stumble over, and who may write them."""

from __future__ import annotations

import re

from ...system.host.pam_stack import DIRECTORIES
from ...system.host.pam_walk import CODES, actions_of
from .finding import ERROR, Finding
from .node import OUR_NAME, is_roots_alone, shown_mode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .node import Node

CONTROLS = {"required", "requisite", "sufficient", "optional", "include", "substack"}
ACTION = re.compile(r"\[\s*(?:[a-z_]+=(?:ok|done|die|bad|ignore|reset|[0-9]+)\s*)+\]")
LINE = re.compile(r"^\s*(-?)(auth|account|session|password)\s+(\[[^\]]*\]|\S+)\s+(\S+)", re.IGNORECASE)
INCLUDE = re.compile(r"^\s*@include\s+(\S+)")
FILES_CAP = 32
MODULE_UNKNOWN = CODES.index("module_unknown")


def check_files(node: Node, service: str) -> Iterator[Finding]:
    """What libpam itself would stumble over: it then refuses everybody."""
    for path, origin, text in _raw_lines(node, service, [FILES_CAP]):
        if not text:
            yield from _check_file(node, path, origin)
            continue
        found = LINE.match(text)
        if found is None:
            continue
        _, _, control, module = found.groups()  # a leading `-` keeps the log quiet, and nothing else (Linux-PAM 1.5.2)
        control = control.lower()
        if control not in CONTROLS and not ACTION.fullmatch(control):
            yield Finding(
                "pam-bad-control",
                ERROR,
                f"{origin}: {control!r} is no control that PAM knows",
                "libpam counts the line as one that fails: everybody is refused, root too",
                f"write `required` (or what was meant) in {origin}",
            )
        elif control in ("include", "substack") or module == f"{OUR_NAME}.so":
            continue  # where ours is not there, the checks of the module say it
        elif actions_of(control.strip("[]"))[0][MODULE_UNKNOWN] in ("bad", "die") and not node.module_path(module):
            yield Finding(
                "pam-module-file",
                ERROR,
                f"{origin}: there is no module {module}",
                "libpam counts the line as one that fails: everybody is refused, root too",
                f"install {module}, or remove {origin}",
            )


def check_folder(node: Node, folder: str) -> Iterator[Finding]:
    """Who may put another file in the place of one of PAM's."""
    found = node.stat(folder)
    if found is not None and not is_roots_alone(found):
        yield Finding(
            "pam-file-writable",
            ERROR,
            f"{folder}: {shown_mode(found)}",
            "whoever may write there decides who gets in, and runs code as root",
            f"chown root:root {folder} && chmod 755 {folder}",
        )


def _check_file(node: Node, path: str, origin: str) -> Iterator[Finding]:
    found = node.stat(path) if path else None
    if found is None:
        yield Finding(
            "pam-include-missing",
            ERROR,
            f"{origin} includes a file that is not there",
            "libpam does not load the stack: everybody is refused, root too",
            f"put the file back, or remove {origin}",
        )
    elif not is_roots_alone(found):
        yield Finding(
            "pam-file-writable",
            ERROR,
            f"{path}: {shown_mode(found)}",
            "whoever may write it decides who gets in, and runs code as root",
            f"chown root:root {path} && chmod 644 {path}",
        )


def _raw_lines(node: Node, service: str, left: list[int], origin: str = "") -> Iterator[tuple[str, str, str]]:
    """(file, `file:line`, text) of each line; an empty text for each file itself, an empty file if it is missing."""
    if left[0] <= 0:
        return
    left[0] -= 1
    # an include may name a path
    places = [service] if service.startswith("/") else [f"{folder}/{service}" for folder in DIRECTORIES]
    path = next(filter(node.exists, places), "")
    yield path, origin or f"/etc/pam.d/{service}", ""
    for number, line in enumerate((node.text(path) or "").replace("\\\n", " ").split("\n"), 1) if path else ():
        text = line.partition("#")[0].strip()
        where = f"{path}:{number}"
        if not text:
            continue
        yield path, where, text
        include, found = INCLUDE.match(text), LINE.match(text)
        if include:
            yield from _raw_lines(node, include[1], left, where)
        elif found and found[3].lower() in ("include", "substack"):
            yield from _raw_lines(node, found[4], left, where)
