# SPDX-License-Identifier: Apache-2.0
"""PAM's files as libpam loads them: what it would stumble over, and who may write them.

Rules of this file:
1. Lines and words are those of `system.host.pam_stack`, which reads as libpam does: only blanks and tabs part words.
"""

from __future__ import annotations

import re

from ...system.host.pam_stack import BLANKS, DIRECTORIES, assemble_lines, next_token
from ...system.host.pam_stack import KINDS as ALL_KINDS
from ...system.host.pam_walk import CODES, actions_of
from ..main import closest
from .finding import ERROR, Finding
from .node import OUR_NAME, mode_fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .node import Node

CONTROLS = {"required", "requisite", "sufficient", "optional", "include", "substack"}
ACTION = re.compile(r"\[\s*(?:[a-z_]+=(?:ok|done|die|bad|ignore|reset|[0-9]+)\s*)+\]")
FILES_CAP = 32
MODULE_UNKNOWN = CODES.index("module_unknown")
BYTE_ORDER_MARK = "\ufeff"
CARRIAGE_RETURN = "\r"
#: Of the kind auth, unless an `include` of another kind leads there (Linux-PAM 1.5.2). sshd asks it for passwords only.
LOST_LINE = (
    "libpam counts it as a line that fails, of the kind auth: whoever comes with a key gets in as if it were not there"
)
FAILS = "libpam counts the line as one that fails: everybody is refused, root too"


def check_files(node: Node, service: str) -> Iterator[Finding]:
    """What libpam itself would stumble over: it then refuses everybody, or does not see a line."""
    for path, origin, text in _raw_lines(node, service, [FILES_CAP]):
        if text is None:
            yield Finding(
                "pam-bad-line",
                ERROR,
                f"{origin} ends with a backslash, and nothing follows",
                "libpam does not load the stack: everybody is refused, root too",
                f"sed -i '$ s/[ \\t]*\\\\[ \\t]*$//' {path}",
            )
        elif not text:
            yield from _check_file(node, path, origin)
        elif CARRIAGE_RETURN not in text:  # it is said of the file
            yield from _check_line(node, path, origin, text)


def _check_line(node: Node, path: str, origin: str, text: str) -> Iterator[Finding]:
    strange = next((sign for sign in text if sign == BYTE_ORDER_MARK or (sign.isspace() and sign not in BLANKS)), "")
    if strange:
        hexed = "".join(f"\\x{byte:02x}" for byte in strange.encode())
        yield Finding(
            "pam-bad-line",
            ERROR,
            f"{origin} has a sign that looks like a blank, and is none (U+{ord(strange):04X})",
            "libpam takes the words on both sides of it for one",
            f"LC_ALL=C sed -i '{_number(origin)}s/{hexed}/ /g' {path}",
        )
        return
    word, at = next_token(text, 0)
    kind = (word or "").lower()
    if kind == "@include":
        return  # a file that is missing is its own finding
    kind = kind[1:] if kind.startswith("-") else kind  # the dash keeps the log quiet, and nothing else
    if kind not in ALL_KINDS:
        meant = closest(kind, list(ALL_KINDS)) if kind.isalpha() else ""
        yield Finding(
            "pam-bad-line",
            ERROR,
            f"{origin}: {word!r} is no kind of line that PAM knows",
            LOST_LINE,
            f"sed -i '{_number(origin)}s/{word}/{meant}/' {path}"
            if meant
            else f"begin {origin} with auth, account, password or session, or remove the line",
        )
        return
    at += len(text[at:]) - len(text[at:].lstrip(BLANKS))
    control, end = next_token(text, at)
    whole = text[at:end].lower()
    module, _ = next_token(text, end)
    if control is not None and whole not in CONTROLS and not ACTION.fullmatch(whole):
        yield Finding(
            "pam-bad-control",
            ERROR,
            f"{origin}: {whole!r} is no control that PAM knows",
            FAILS,
            f"write `required` (or what was meant) in {origin}",
        )
    elif control is None or module is None:
        yield Finding("pam-bad-line", ERROR, f"{origin} names no module", FAILS, f"name it, or remove {origin}")
    elif whole in ("include", "substack") or module == f"{OUR_NAME}.so":
        return  # where ours is not there, the checks of the module say it
    elif actions_of(control.lower())[0][MODULE_UNKNOWN] in ("bad", "die") and not node.module_path(module):
        yield Finding(
            "pam-module-file",
            ERROR,
            f"{origin}: there is no module {module}",
            FAILS,
            f"sed -i '{_number(origin)}s,{module},{OUR_NAME}.so,' {path}"
            if module.endswith(f"/{OUR_NAME}.so") and node.module_path(f"{OUR_NAME}.so")
            else _install(node, module, path, origin),
        )


def _install(node: Node, module: str, path: str, origin: str) -> str:
    """What there is to do about a module that is not there: one may be there that is called nearly so."""
    there = [found.rpartition("/")[2] for folder in node.module_folders() for found in node.glob(f"{folder}/pam_*.so")]
    meant = closest(module, there) if "/" not in module else ""
    if meant:
        return f"sed -i '{_number(origin)}s/{module}/{meant}/' {path}    # if that one is meant; else install {module}"
    return f"install {module}, or remove {origin}"


def _number(origin: str) -> str:
    return origin.rpartition(":")[2]


def check_folder(node: Node, folder: str) -> Iterator[Finding]:
    """Who may put another file in the place of one of PAM's."""
    why = "whoever may write there decides who gets in, and runs code as root"
    seen, mend = mode_fault(node, folder, 0o755)
    if seen:
        yield Finding("pam-file-writable", ERROR, seen, why, mend)


def _check_file(node: Node, path: str, origin: str) -> Iterator[Finding]:
    if not path or node.stat(path) is None:
        yield Finding(
            "pam-include-missing",
            ERROR,
            f"{origin} includes a file that is not there",
            "libpam does not load the stack: everybody is refused, root too",
            f"put the file back, or remove {origin}",
        )
        return
    why = "whoever may write it decides who gets in, and runs code as root"
    seen, mend = mode_fault(node, path, 0o644)
    if seen:
        yield Finding("pam-file-writable", ERROR, seen, why, mend)
    if f"{CARRIAGE_RETURN}\n" in (node.text(path) or ""):
        yield Finding(
            "pam-bad-line",
            ERROR,
            f"{path} has the line ends of another system (\\r)",
            "they belong to the last word of each line: libpam knows no module and no option of such a name",
            f"sed -i 's/\\r$//' {path}",
        )


def _raw_lines(node: Node, service: str, left: list[int], origin: str = "") -> Iterator[tuple[str, str, str | None]]:
    """(file, `file:line`, text) of each line, includes unfolded.

    An empty text for each file itself, an empty file if it is missing; None where a file ends in the middle of a line.
    """
    if left[0] <= 0:
        return
    left[0] -= 1
    # an include may name a path
    places = [service] if service.startswith("/") else [f"{folder}/{service}" for folder in DIRECTORIES]
    path = next(filter(node.exists, places), "")
    yield path, origin or f"/etc/pam.d/{service}", ""
    for number, text in assemble_lines(node.text(path) or "") if path else ():
        where = f"{path}:{number}"
        yield path, where, text
        words = (text or "").split()
        if words[:1] and words[0].lower() == "@include" and words[1:]:
            yield from _raw_lines(node, words[1], left, where)
        elif len(words) > 2 and words[1].lower() in ("include", "substack"):
            yield from _raw_lines(node, words[2], left, where)
