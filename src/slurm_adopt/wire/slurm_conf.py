# SPDX-License-Identifier: Apache-2.0
"""The text of slurm.conf and cgroup.conf.

Rules of this file:
1. A line: `#` starts a comment unless an odd number of backslashes stands before it, inside quotes too; an odd
   number of backslashes at the end continues on the next line; then each backslash is dropped and the
   character after it kept. `Include FILE` counts at column 0 only. (Slurm 20.11 to 26.05, all the same.)
2. `key [op]= value`: keys ignore case, the last one wins, a value is `"…"` or a run of non-blanks.
3. Speed: a login reads this file each time, and it may hold thousands of node lines. Lines that begin with a
   record's key are kept as they are; wire.slurm_nodes reads them on demand. No `re`.
4. Tolerance: a login must not fail because of an odd line that has nothing to do with it, so such a line becomes
   a `problem` and is passed over. A malformed line of a key that decides
   (`DECIDING`) is a `ConfError`: its default could let in, or lock out, somebody else than the site meant.
"""

from __future__ import annotations

from ..record import record
from .errors import RemoteProtocolError

TYPE_CHECKING = False

BLANKS = " \t\r\v\f\n"
KEY_CHARS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_."

OPERATORS = frozenset("+-*/")

# Statement.key of an Include; no key of the file can contain a blank
INCLUDE = " include"
NODE = "nodename"
# keys whose lines carry further pairs and add up
RECORDS = frozenset(
    ("nodename", "partitionname", "downnodes", "nodeset", "slurmctldhost", "frontendname", "switchname")
)
# their first eight characters in the usual spellings, for the look at a line that has to be quick
_RECORD_HEADS = {
    spelt[:8]: key
    for key, words in (
        (NODE, ("NodeName",)),
        ("partitionname", ("PartitionName",)),
        ("downnodes", ("DownNodes",)),
        ("frontendname", ("FrontendName", "FrontEndName")),
    )
    for word in words
    for spelt in (word, word.lower(), word.upper())
}
# keys whose value a login depends on
DECIDING = frozenset(
    (
        "authinfo",
        "authtype",
        "cgroupmountpoint",
        "cgroupplugin",
        "clustername",
        "communicationparameters",
        "hashplugin",
        "jobcontainertype",
        "launchparameters",
        "messagetimeout",
        "namespacetype",
        "proctracktype",
        "prologflags",
        "slurmdpidfile",
        "slurmdport",
        "slurmdspooldir",
        "slurmduser",
        "slurmuser",
        "taskplugin",
        "tcptimeout",
        "tlsparameters",
        "tlstype",
        "x11parameters",
    )
)


class ConfError(RemoteProtocolError):
    """A configuration file that cannot be read as one; the text names file and line."""

    def __init__(self, file: str, line: int, what: str) -> None:
        super().__init__(f"{file}:{line}: {what}")
        self.file = file
        self.line = line


if TYPE_CHECKING:
    # key (lower case, or INCLUDE), value, file, line. For a record the value is the raw line from its key on, for
    # an Include the file's name as written. A tuple, because there may be thousands.
    Statement = tuple[str, str, str, int]


@record
class ConfFile:
    """One file: its statements in order, and what is odd in it (`FILE:LINE: what`)."""

    name: str
    statements: tuple[Statement, ...]
    problems: tuple[str, ...]


def _ends_escaping(text: str) -> bool:
    """Whether an odd number of backslashes stands at its end."""
    return len(text[len(text.rstrip("\\")) :]) % 2 == 1


def _before_comment(line: str) -> str:
    place = line.find("#")
    while place >= 0:
        before = line[:place]
        if not _ends_escaping(before):
            return before
        place = line.find("#", place + 1)
    return line


def _unescape(line: str) -> str:
    """Drop each backslash and keep what follows it."""
    characters = iter(line)
    return "".join([next(characters, "") if char == "\\" else char for char in characters])


def logical_line(line: str) -> str:
    """A joined line without its comment and its backslashes."""
    if "#" in line:
        line = _before_comment(line)
    return _unescape(line) if "\\" in line else line


def _continues(line: str) -> str | None:
    """The line without the backslash that continues it, None if it ends here."""
    bare = _before_comment(line)
    if bare is not line:
        return None
    bare = line.rstrip(BLANKS)
    return bare[:-1] if _ends_escaping(bare) else None


def _physical(text: str) -> list[tuple[int, str]]:
    """Numbered lines, continued ones joined; only for text with backslashes."""
    lines: list[tuple[int, str]] = []
    begun: list[str] = []
    # nothing goes on behind the last line, even if it says so
    for number, line in enumerate([*text.split("\n"), ""], 1):
        more = _continues(line) if "\\" in line else None
        if more is not None:
            begun.append(more)
            continue
        lines.append((number - len(begun), "".join([*begun, line])))
        begun = []
    return lines


def _end_of_word(text: str, start: int) -> int:
    """The place of the first blank from `start` on, or the end."""
    for place in range(start, len(text)):
        if text[place] in BLANKS:
            return place
    return len(text)


def read_pair(text: str, start: int) -> tuple[str, str, int] | str:
    """`key [op]= value` from `start` on: key in lower case, value, where it ends; or what is wrong."""
    end = len(text)
    place = start
    while place < end and text[place] in BLANKS:
        place += 1
    first = place
    while place < end and text[place] in KEY_CHARS:
        place += 1
    key = text[first:place].lower()
    if not key:
        return "no key"
    while place < end and text[place] in BLANKS:
        place += 1
    if text[place : place + 1] in OPERATORS:
        place += 1
    if text[place : place + 1] != "=":
        return f"no = after {key!r}"
    place += 1
    while place < end and text[place] in BLANKS:
        place += 1
    first = place
    if text[place : place + 1] == '"':
        place = text.find('"', first + 1) + 1
        if not place:
            return f"quote of {key!r} is not closed"
        value = text[first + 1 : place - 1]
    else:
        place = _end_of_word(text, first)
        value = text[first:place]
        if not value:
            return f"no value for {key!r}"
    if place < end and text[place] not in BLANKS:
        return f"no blank after the value of {key!r}"
    return key, value, place


def read_pairs(text: str) -> tuple[dict[str, str], str]:
    """The pairs of a record line up to the first malformed one; what is wrong with that one, else ``""``."""
    pairs: dict[str, str] = {}
    place = 0
    while text[place:].strip(BLANKS):
        found = read_pair(text, place)
        if isinstance(found, str):
            return pairs, found
        key, value, place = found
        pairs[key] = value
    return pairs, ""


def _bare_key(line: str) -> str:
    """The word a malformed line begins with: whose line is it meant to be?"""
    word = line.lstrip(BLANKS)
    return word[: len(word) - len(word.lstrip(KEY_CHARS))].lower()


def _include(line: str) -> str | None:
    """The file of an Include line (empty text if there is none), None for any other line."""
    behind = line[7:]
    name = behind.lstrip(BLANKS)
    if line[:7].lower() != "include" or name == behind:
        return None
    end = _end_of_word(name, 0)
    return name[:end]


def _simple(line: str) -> tuple[str, str] | None:
    """The usual `Key=value` and nothing else, read quickly; None if it needs a closer look."""
    head, _, tail = line.partition("=")
    words = tail.split()
    if len(words) != 1 or '"' in tail or not (line.isascii() and line.isprintable() and head.isidentifier()):
        return None
    return head.lower(), words[0]


def _statement(file: str, number: int, line: str, problems: list[str]) -> Statement | None:
    """One line that is not an ordinary record line."""
    raw = line
    line = logical_line(line)
    if not line.strip(BLANKS):
        return None
    simple = _simple(line)
    if simple is not None and simple[0] not in RECORDS:
        return simple[0], simple[1], file, number
    included = _include(line)
    if included == "" or (included and "*" in included):
        raise ConfError(file, number, "Include without a file" if not included else "Include of a pattern")
    if included:
        return INCLUDE, included, file, number
    key = _bare_key(line)
    if key in RECORDS:
        return key, raw.lstrip(BLANKS), file, number
    found = read_pair(line, 0)
    if isinstance(found, str):
        if key in DECIDING:
            raise ConfError(file, number, found)
        problems.append(f"{file}:{number}: {found}")
        return None
    key, value, end = found
    if line[end:].strip(BLANKS):
        if key in DECIDING:
            raise ConfError(file, number, f"more text after the value of {key!r}")
        problems.append(f"{file}:{number}: more text after the value of {key!r}")
    return key, value, file, number


def parse(text: bytes | str, file: str = "slurm.conf") -> ConfFile:
    """Read one file's text; `ConfError` for what a login cannot do without, see rule 4."""
    if isinstance(text, bytes):
        # comments and record lines may be in any encoding; a key that counts is ASCII
        text = text.decode("utf-8", "surrogateescape")
    if "\0" in text:
        raise ConfError(file, text.count("\n", 0, text.index("\0")) + 1, "a NUL byte: this is no configuration file")
    problems: list[str] = []
    statements: list[Statement] = []
    numbered = _physical(text) if "\\" in text else enumerate(text.split("\n"), 1)
    heads = _RECORD_HEADS
    for number, line in numbered:
        key = heads.get(line[:8])
        if key is not None:
            statements.append((key, line, file, number))
        elif line and line[0] != "#":
            statement = _statement(file, number, line, problems)
            if statement is not None:
                statements.append(statement)
    return ConfFile(file, tuple(statements), tuple(problems))


def last_values(statements: tuple[Statement, ...]) -> dict[str, str]:
    """The plain keys' values: the last one wins."""
    return {key: value for key, value, _, _ in statements if key != INCLUDE and key not in RECORDS}
