# SPDX-License-Identifier: Apache-2.0
"""The subcommands of slurm-adopt, read out of their argparse parsers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from slurm_adopt.cli.main import COMMANDS, build_parser

#: Headings of cli/main.py's COMMANDS, in the order of the manual.
HEADINGS = {"user": "For users", "node": "For administrators: the node", "service": "The resident services"}


@dataclass(frozen=True)
class Argument:
    """One argument. `flags` is empty for a positional one; `value` is the name of what it takes, "" if nothing."""

    flags: tuple[str, ...]
    value: str
    choices: tuple[str, ...]
    doc: str
    required: bool


@dataclass(frozen=True)
class Command:
    """One subcommand."""

    name: str
    doc: str
    heading: str
    arguments: tuple[Argument, ...]


def commands() -> list[Command]:
    """All of them, by heading."""
    (choices,) = [action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    found = [
        Command(name, doc, heading, tuple(_arguments(choices.choices[name])))
        for name, (_module, doc, heading) in COMMANDS.items()
    ]
    order = list(HEADINGS)
    return sorted(found, key=lambda command: order.index(command.heading))


def _arguments(parser: argparse.ArgumentParser) -> Iterator[Argument]:
    formatter = argparse.HelpFormatter(parser.prog)
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or "--help" in action.option_strings:
            continue
        takes = action.nargs != 0
        value = ""
        if takes:
            metavar = action.metavar if isinstance(action.metavar, str) else None
            value = metavar or action.dest.upper()
        yield Argument(
            tuple(action.option_strings),
            value,
            tuple(str(choice) for choice in action.choices or ()),
            formatter._expand_help(action) if action.help else "",
            action.required and action.nargs != "?",
        )
