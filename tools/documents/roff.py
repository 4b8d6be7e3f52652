# SPDX-License-Identifier: Apache-2.0
"""What the manuals take from the tables, as man(7) requests."""

from __future__ import annotations

import re

from documents.commands import HEADINGS, Argument, commands
from documents.tables import form_of, reason_groups, values_of
from slurm_adopt.model import REASONS
from slurm_adopt.options.schema import OPTIONS, default_of


def text(words: str) -> str:
    """A paragraph's text: `code` in bold, nothing that troff would take for a request or a hyphen."""
    escaped = words.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    marked = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", escaped)
    return re.sub(r"^([.'])", r"\\&\1", marked, flags=re.MULTILINE)


def options() -> str:
    """The options of the PAM line, a tagged paragraph each."""
    lines = []
    for spec in OPTIONS:
        values, default = values_of(spec), default_of(spec)
        shown = "|".join(values) if values else form_of(spec)
        lines += [".TP", f"\\fB{text(spec.name)}=\\fR" + (text(shown) if values else f"\\fI{text(shown)}\\fR")]
        lines.append(text(spec.doc))
        ends = [f"Default: `{default}`."] if default else []
        ends += [f"`profile=strict` sets `{spec.strict}`."] if spec.strict else []
        ends += [] if spec.origin == "original" else ["Not in the original."]
        if ends:
            lines.append(text(" ".join(ends)))
    return "\n".join(lines)


def reasons() -> str:
    """All reason codes under their headings."""
    lines = []
    for heading, codes in reason_groups().items():
        lines.append(f".SS {text(heading.replace('`', ''))}")
        for code in codes:
            mark = " (Marked as a matter of security in log and audit stream.)" if REASONS[code].security else ""
            lines += [".TP", f".B {text(code)}", text(REASONS[code].meaning + mark)]
    return "\n".join(lines)


def subcommands() -> str:
    """All subcommands under their headings, with their arguments."""
    lines, heading = [], ""
    for command in commands():
        if command.heading != heading:
            heading = command.heading
            lines.append(f".SS {text(HEADINGS[heading])}")
        shown = " ".join([f"\\fB{text(command.name)}\\fR", *(_synopsis(argument) for argument in command.arguments)])
        lines += [".TP", shown, text(_sentence(command.doc))]
        if command.arguments:
            lines.append(".RS")
            for argument in command.arguments:
                lines += [".TP", _argument(argument), text(_sentence(argument.doc))]
            lines.append(".RE")
    return "\n".join(lines)


def _argument(argument: Argument) -> str:
    value = f"\\fI{text(argument.value)}\\fR" if argument.value else ""
    flags = ", ".join(f"\\fB{text(flag)}\\fR" for flag in argument.flags)
    return f"{flags} {value}".strip()


def _synopsis(argument: Argument) -> str:
    shown = _argument(argument)
    return shown if argument.required else f"[{shown}]"


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}" + ("" if words.endswith(".") else ".")


def arguments(name: str) -> str:
    """The arguments of one subcommand."""
    (command,) = [command for command in commands() if command.name == name]
    lines = []
    for argument in command.arguments:
        lines += [".TP", _argument(argument), text(_sentence(argument.doc))]
    return "\n".join(lines)
