# SPDX-License-Identifier: Apache-2.0
"""slurm.conf is read the same with and without the quick ways, and each line says the same alone and among others.

The slow way is that of a line with blanks around it, which no quick way takes. What cannot be read is a `ConfError`
that names the line.
"""

from __future__ import annotations

from slurm_adopt.wire import slurm_conf as wire

MAX_LEN = 400
HEADS = tuple(head.lower() for head in wire._RECORD_HEADS)
HEADS += tuple(wire.RECORDS)


def check(data: bytes) -> None:
    """The text of a file."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        found = wire.parse(data, "f")
    except wire.ConfError as error:
        assert error.file == "f"
        assert 1 <= error.line <= text.count("\n") + 1
        return
    for key, value, file, number in found.statements:
        assert key == key.lower()
        assert file == "f"
        assert 1 <= number <= text.count("\n") + 1
        assert key in wire.RECORDS or key == wire.INCLUDE or value == value.strip('"') or '"' in text
    if "\\" not in text:
        _check_lines(text, found)
    _check_blanks(text, found)


def _check_lines(text: str, found: wire.ConfFile) -> None:
    """No line depends on another one."""
    alone = []
    for number, line in enumerate(text.split("\n"), 1):
        alone += [(key, value, number) for key, value, _, _ in wire.parse(line, "f").statements]
    assert alone == [(key, value, number) for key, value, _, number in found.statements]


def _check_blanks(text: str, found: wire.ConfFile) -> None:
    """A blank in front of a line changes nothing but an Include's meaning (rule 1) and the raw text of a record."""
    if "\\" in text or any(line[:7].lower() == "include" for line in text.split("\n")):
        return
    try:
        slow = wire.parse("\n".join(" " + line for line in text.split("\n")), "f")
    except wire.ConfError as error:
        raise AssertionError(f"only with a blank: {error}") from None
    assert _plain(found) == _plain(slow)


def _plain(found: wire.ConfFile) -> list[tuple[str, str, int]]:
    """What is no record. The quick way takes a key that only begins like a record's (`NodeNames=`) for one; Slurm has
    no such key, and slurm_nodes reports the line."""
    return [(key, value, number) for key, value, _, number in found.statements if not key.startswith(HEADS)]
