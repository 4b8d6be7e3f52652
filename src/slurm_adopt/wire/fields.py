# SPDX-License-Identifier: Apache-2.0
"""The packets of all our own exchanges: `KEY=VALUE` fields, each ended by NUL (docs/protocol/login-exchange.md).

Rules of this file:
1. Pure: bytes to text by key, and back.
2. A malformed packet raises `RemoteProtocolError`, whatever it holds; nothing of it is used.
3. A decoder takes its fields out of the dictionary and then looks at what is left (`check_rest`).
"""

from __future__ import annotations

from ..words import printable
from .errors import LocalProtocolError, RemoteProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: One packet must fit the module's only buffer.
PACKET_CAP = 4096
FIELD_CAP = 64
KEY_CAP = 24
KEY_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
#: What the module shows a person is one line of a terminal or three, never a page.
TEXT_CAP = 512

VERSION = "1"


def one_line(text: str, cap: int) -> str:
    """`text` as one printable line of at most `cap` bytes: no control or undecodable character survives."""
    return printable(text).encode()[:cap].decode("utf-8", "ignore")


def encode_fields(fields: Iterable[tuple[str, str]]) -> bytes:
    """One packet. Empty values are left out. `LocalProtocolError` if it does not fit."""
    parts = ["V=" + VERSION]
    parts += [f"{key}={value}" for key, value in fields if value != ""]
    packet = ("\0".join(parts) + "\0").encode("utf-8", "surrogateescape")
    if packet.count(b"\0") != len(parts):
        raise LocalProtocolError("a field holds a NUL byte")
    if len(packet) > PACKET_CAP or len(parts) > FIELD_CAP:
        raise LocalProtocolError(f"{len(packet)} bytes in {len(parts)} fields do not fit a packet")
    return packet


def decode_fields(packet: bytes) -> dict[str, str]:
    """The fields of a packet; `RemoteProtocolError` for anything that is not one."""
    if not packet or len(packet) > PACKET_CAP or packet[-1] != 0:
        raise RemoteProtocolError("packet is empty, too long, or does not end with NUL")
    parts = packet[:-1].decode("utf-8", "surrogateescape").split("\0")
    if len(parts) > FIELD_CAP or parts[0] != "V=" + VERSION:
        raise RemoteProtocolError("too many fields, or not version 1")
    fields: dict[str, str] = {}
    for part in parts:
        key, mark, value = part.partition("=")
        if not mark or not _is_key(key):
            raise RemoteProtocolError(f"not a field: {part[:40]!r}")
        fields[key] = value
    if len(fields) != len(parts):
        raise RemoteProtocolError("a key comes twice")
    del fields["V"]
    return fields


def _is_key(key: str) -> bool:
    """`[A-Z][A-Z0-9_]*`, not too long"""
    return "A" <= key[:1] <= "Z" and len(key) <= KEY_CAP and not key.strip(KEY_CHARACTERS)


def take_texts(fields: dict[str, str], *keys: str) -> list[str]:
    """Their values, taken out of `fields`; one that is not there, or empty, is an error."""
    try:
        texts = [*map(fields.pop, keys)]
    except KeyError as error:
        raise RemoteProtocolError(f"{error.args[0]} is missing") from None
    if "" in texts:
        raise RemoteProtocolError(f"{keys[texts.index('')]} is empty")
    return texts


def number_of(text: str) -> int:
    """A decimal number."""
    # int() takes "+5", " 5" and "1_0" as well; the wire does not
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise RemoteProtocolError(f"not a decimal number: {text[:40]!r}")
    return int(text)


def take_family(fields: dict[str, str], prefix: str, cap: int) -> tuple[str, ...]:
    """The values of `PREFIX0`, `PREFIX1`, ..., at most `cap` of them, taken out of `fields`."""
    values: list[str] = []
    for number in range(cap):
        value = fields.pop(f"{prefix}{number}", None)
        if value is None:
            break
        values.append(value)
    return tuple(values)


def check_rest(fields: dict[str, str], *prefixes: str) -> None:
    """Ignore unknown fields; refuse a surplus number, or one after a gap, of one of the families."""
    for key in fields:
        for prefix in prefixes:
            if key.startswith(prefix) and key[len(prefix) :].isdigit():
                raise RemoteProtocolError(f"{key} is one too many, or comes after a gap")
