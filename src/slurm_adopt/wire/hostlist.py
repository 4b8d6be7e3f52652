# SPDX-License-Identifier: Apache-2.0
"""Slurm host lists: `node[01-03,7],login`, read without writing the names out, and written.

Rules of this file:
1. A list is commas outside brackets; `pre[1-3,07-09]post` counts, several brackets multiply and the
   rightmost runs fastest; the digits of the low bound give the width (slurm.conf(5), NodeName).
2. Empty entries (`a,,b`, a trailing comma) are passed over, as Slurm does.
3. The names are made one by one: a line may stand for 65,536 nodes and a login wants one of them.
4. Everything else that is malformed or beyond a cap is a `HostListError`.
"""

from __future__ import annotations

from .errors import RemoteProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Union

    Range = tuple[int, int, int]  # low, high, width
    Part = Union[str, list[Range]]

# Slurm itself stops at 65,533 nodes (MAX_SLURM_NODES of the documentation); one list stays below a power of two
MAX_NAMES = 65536
# a host name has at most 253 characters (RFC 1035), an address 45; twice that leaves room for brackets' padding
MAX_NAME_LENGTH = 512
# no number in a node name is longer than a 64-bit one; keeps int() cheap
MAX_DIGITS = 18
# Slurm knows at most five dimensions
MAX_BRACKETS = 5
DIGITS = "0123456789"


class HostListError(RemoteProtocolError):
    """A host list that does not follow the grammar or stands for too many names."""


def split_list(text: str) -> list[str]:
    """The entries of a list: split at commas outside brackets, without the empty ones."""
    if "[" not in text and "]" not in text:
        return [entry for entry in text.split(",") if entry]
    entries: list[str] = []
    start = depth = 0
    for position, char in enumerate(text):
        if char == "[":
            depth += 1
        elif char == "]":
            depth -= 1
        elif char == "," and depth == 0:
            entries.append(text[start:position])
            start = position + 1
        if depth not in (0, 1):
            raise HostListError(f"brackets do not match in {text[:80]!r}")
    if depth:
        raise HostListError(f"bracket is not closed in {text[:80]!r}")
    entries.append(text[start:])
    return [entry for entry in entries if entry]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > MAX_DIGITS:
        raise HostListError(f"{text[:40]!r} is not a number of 1..{MAX_DIGITS} digits")
    return int(text)


def _ranges(text: str) -> list[Range]:
    ranges: list[Range] = []
    for piece in text.split(","):
        low_text, dash, high_text = piece.partition("-")
        low = _number(low_text)
        high = _number(high_text) if dash else low
        if high < low:
            raise HostListError(f"range {piece[:40]!r} runs backwards")
        ranges.append((low, high, len(low_text)))
    return ranges


def _parts(entry: str) -> list[Part]:
    """`pre[1-2]post` → `["pre", [(1, 2, 1)], "post"]`: literal text and brackets, taking turns."""
    parts: list[Part] = []
    rest = entry
    while True:
        literal, bracket, rest = rest.partition("[")
        parts.append(literal)
        if not bracket:
            break
        inside, _, rest = rest.partition("]")
        parts.append(_ranges(inside))
    if len(parts) // 2 > MAX_BRACKETS:
        raise HostListError(f"more than {MAX_BRACKETS} brackets in {entry[:80]!r}")
    return parts


def _size(ranges: list[Range]) -> int:
    return sum(high - low + 1 for low, high, _ in ranges)


def _pick(ranges: list[Range], index: int) -> str:
    for low, high, width in ranges:
        if index <= high - low:
            return str(low + index).zfill(width)
        index -= high - low + 1
    raise IndexError(index)


def _places(ranges: list[Range], digits: str) -> Iterator[int]:
    """Where `digits` stands in the ranges as they would write it."""
    if not (digits.isascii() and digits.isdigit()) or len(digits) > MAX_DIGITS:
        return
    value = int(digits)
    before = 0
    for low, high, width in ranges:
        if low <= value <= high and str(value).zfill(width) == digits:
            yield before + value - low
        before += high - low + 1


class _Entry:
    """One entry of a list: `size` names, made on demand."""

    __slots__ = ("parts", "size")

    def __init__(self, entry: str) -> None:
        self.parts = _parts(entry)
        self.size = 1
        longest = 0
        for part in self.parts:
            if isinstance(part, str):
                longest += len(part)
            else:
                self.size *= _size(part)
                longest += MAX_DIGITS
        if longest > MAX_NAME_LENGTH:
            raise HostListError(f"names of {longest} characters, at most {MAX_NAME_LENGTH}")

    def name(self, index: int) -> str:
        pieces: list[str] = []
        for part in reversed(self.parts):
            if isinstance(part, str):
                pieces.append(part)
            else:
                index, here = divmod(index, _size(part))
                pieces.append(_pick(part, here))
        return "".join(reversed(pieces))

    def places(self, name: str) -> Iterator[int]:
        if len(self.parts) == 1:
            if name == self.parts[0]:
                yield 0
            return
        first, last = self.parts[0], self.parts[-1]
        assert isinstance(first, str)
        assert isinstance(last, str)
        if not name.startswith(first) or not name.endswith(last):
            return
        if len(self.parts) == 3:
            ranges = self.parts[1]
            assert not isinstance(ranges, str)
            yield from _places(ranges, name[len(first) : len(name) - len(last)])
            return
        # two brackets side by side can read one name in two ways: write the names out, it is rare
        yield from (index for index in range(self.size) if self.name(index) == name)


class HostList:
    """A list of names: `len()`, iteration, `[index]`, `places(name)` and `index(name)` without keeping them all."""

    def __init__(self, text: str, max_names: int = MAX_NAMES) -> None:
        self._entries = [_Entry(entry) for entry in split_list(text)]
        self._len = sum(entry.size for entry in self._entries)
        if self._len > max_names:
            raise HostListError(f"{text[:80]!r} stands for {self._len} names, at most {max_names}")

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[str]:
        for entry in self._entries:
            for index in range(entry.size):
                yield entry.name(index)

    def __getitem__(self, index: int) -> str:
        for entry in self._entries:
            if 0 <= index < entry.size:
                return entry.name(index)
            index -= entry.size
        raise IndexError("no such name in the list")

    def places(self, name: str) -> Iterator[int]:
        """Every place of `name`, in order: a list may say it again (`NodeHostname=h1,h1,h2,h2`)."""
        before = 0
        for entry in self._entries:
            for place in entry.places(name):
                yield before + place
            before += entry.size

    def index(self, name: str) -> int | None:
        """The first place of `name`, None if it is not in the list."""
        return next(self.places(name), None)


def expand(text: str, max_names: int = MAX_NAMES) -> Iterator[str]:
    """The names of a list, one by one; `HostListError` before the first of them."""
    return iter(HostList(text, max_names))


def fold(names: Iterable[str]) -> str:
    """The names as one list, the other way round than `expand`: `login,node[1-3,7]`. Sorted, each once.

    Names that differ in their last number only share brackets.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for name in set(names):
        head, digits, tail = _last_number(name)
        groups.setdefault((head, tail), []).append(digits)
    entries = []
    for (head, tail), numbers in sorted(groups.items()):
        if len(numbers) == 1:
            entries.append(f"{head}{numbers[0]}{tail}")
        else:
            entries.append(f"{head}[{','.join(_runs(numbers))}]{tail}")
    return ",".join(entries)


def _last_number(name: str) -> tuple[str, str, str]:
    """`rack1n07-ib` → `rack1n`, `07`, `-ib`; a name without a number has it all in front."""
    end = len(name)
    while end and name[end - 1] not in DIGITS:
        end -= 1
    start = end
    while start and name[start - 1] in DIGITS:
        start -= 1
    if not end or end - start > MAX_DIGITS:
        return name, "", ""
    return name[:start], name[start:end], name[end:]


def _runs(numbers: list[str]) -> Iterator[str]:
    """`08`, `09`, `10`, `12` → `08-10`, `12`: as the low bound's width writes them out again."""
    first, *others = sorted(numbers, key=lambda digits: (int(digits), len(digits)))
    last = first
    for digits in others:
        if digits == str(int(last) + 1).zfill(len(first)):
            last = digits
            continue
        yield first if first == last else f"{first}-{last}"
        first = last = digits
    yield first if first == last else f"{first}-{last}"
