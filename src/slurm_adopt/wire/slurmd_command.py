# SPDX-License-Identifier: Apache-2.0
"""The command line and the environment of a slurmd: which slurm.conf, and which node it is.

Rules of this file:
1. Options are read as getopt_long(3) reads them: joined and separate values, several letters behind one dash, long
   names that are cut short as long as one option alone fits, `--` as the end (manual of slurmd, 20.11 to 26.05).
2. An option that nobody knows here takes no value: what follows is looked at all the same.
"""

from __future__ import annotations

from ..record import record

#: Letters with a value; `F` takes one only if it is joined, so it needs no place here.
VALUED = frozenset("dfLnN")
#: Letters without one. A letter that is in neither table ends its word.
PLAIN = frozenset("ABbcCDghGMsvVZ")
#: Long options and whether they have a value.
LONG = {
    "authinfo": True,
    "ca-cert-file": True,
    "conf": True,
    "conf-server": True,
    "extra": True,
    "help": False,
    "instance-id": True,
    "instance-type": True,
    "parameters": True,
    "systemd": False,
    "version": False,
}


@record
class SlurmdCommand:
    """What a slurmd was told: `conf` is the value of -f, `node` of -N, `dynamic` is -Z."""

    conf: str = ""
    node: str = ""
    is_configless: bool = False
    is_dynamic: bool = False


def parse_command(arguments: tuple[bytes, ...]) -> SlurmdCommand:
    """The options of a slurmd; `arguments` begin with the program's name. The last of two wins."""
    found: dict[str, str] = {}
    words = [word.decode("utf-8", "surrogateescape") for word in arguments[1:]]
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        if word == "--":
            break
        options, open_option = _long(word[2:]) if word.startswith("--") else _short(word)
        found.update(options)
        if open_option and place < len(words):
            found[open_option] = words[place]
            place += 1
    return SlurmdCommand(found.get("f", ""), found.get("N", ""), "conf-server" in found, "Z" in found)


def _long(word: str) -> tuple[dict[str, str], str]:
    """The option of `--word` with its value, and its name if the value is the next word."""
    name, mark, value = word.partition("=")
    fitting = [known for known in LONG if known.startswith(name)]
    name = name if name in LONG or len(fitting) != 1 else fitting[0]
    if mark or not LONG.get(name, False):
        return {name: value}, ""
    return {}, name


def _short(word: str) -> tuple[dict[str, str], str]:
    """The options of `-word` with their values, and the last one if its value is the next word."""
    found: dict[str, str] = {}
    if not word.startswith("-"):
        return found, ""
    for place, letter in enumerate(word[1:], 2):
        if letter in VALUED:
            if word[place:]:
                found[letter] = word[place:]
                return found, ""
            return found, letter
        if letter not in PLAIN:
            break
        found[letter] = ""
    return found, ""


def environment_value(environment: bytes, name: str) -> str:
    """A variable of a process's environment, empty without it. The first one counts, as for getenv(3)."""
    wanted = name.encode() + b"="
    for variable in environment.split(b"\0"):
        if variable.startswith(wanted):
            return variable[len(wanted) :].decode("utf-8", "surrogateescape")
    return ""
