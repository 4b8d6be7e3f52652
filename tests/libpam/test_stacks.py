# SPDX-License-Identifier: Apache-2.0
"""What the reader says of a stack, against what libpam does with it: which modules run, in which order, and the end.

A seed makes the same stacks on every machine. Half of them are what people write, half are full of mistakes.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from slurm_adopt.system.host.pam_stack import PamLine, Stack, read_stack
from slurm_adopt.system.host.pam_walk import CODES, LEAVES, SESSION_ERR, STAYS, SUCCESS, UNKNOWN, judge, walk

from .conftest import MODULES, Libpam

STACKS = 400
KINDS = ("session", "session", "session", "account", "auth", "password", "-session")
ODD_KINDS = ("SESSION", "Session", "[session]", "sessions", "-", "--session", "session\f", "")
CONTROLS = ("required", "requisite", "sufficient", "optional")
ODD_CONTROLS = (
    "Required",
    "OPTIONAL",
    "[required]",
    "requires",
    "[]",
    "success=ok",
    "[success=ok",
    "[default]",
    "[=ok]",
)
ACTIONS = ("ok", "done", "bad", "die", "ignore", "reset", "1", "2", "3")
ODD_ACTIONS = ("0", "OK", "okay", "12", "", "-1")
#: What modules return here: success twice, as it is the usual thing.
RETURNS = (0, 0, 6, 7, 9, 12, 14, 25, 28)
FILES = ("svc", "one", "two", "other")
SPACES = (" ", "\t", "  ", " \t ", " \\\n  ", "\\\n")


class Maker:
    """Makes the files of one stack."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.odd = 0.12 if seed % 2 else 0.0
        self.tags = 0

    def files(self) -> dict[str, str]:
        """The lowest files include nothing, so that no stack is its own part."""
        names = FILES if self.random.random() < 0.9 else FILES[1:]
        return {
            f"pam.d/{name}": self._file(FILES[1:3] if name == "svc" else FILES[2:3] if name == "one" else ())
            for name in names
        }

    def _chance(self, share: float) -> bool:
        return self.random.random() < share

    def _pick(self, usual: tuple[str, ...], odd: tuple[str, ...]) -> str:
        return self.random.choice(odd if self._chance(self.odd) else usual)

    def _file(self, below: tuple[str, ...]) -> str:
        lines = [self._line(below) for _ in range(self.random.randrange(6))]
        return "".join(lines) if not self._chance(0.1) else "".join(lines).rstrip("\n")

    def _line(self, below: tuple[str, ...]) -> str:
        if self._chance(0.1):
            return self.random.choice(("\n", "  \n", "# session required\n", "   # x\n", "#\\\n"))
        if below and self._chance(0.15):
            word = self._pick(("@include",), ("@INCLUDE", "@includes", " @include"))
            return f"{word} {self._target(below)}\n" if self._chance(0.98) else "@include nowhere\n"
        kind = self._pick(KINDS, ODD_KINDS)
        if below and self._chance(0.3):
            words = [
                kind,
                self._pick(("include", "substack"), ("INCLUDE", "[substack]")),
                self._target((*below, *below, "nowhere")),
            ]
        else:
            words = [kind, self._control(), self._module(), f"tag=t{self.tags}", f"code={self.random.choice(RETURNS)}"]
            self.tags += 1
            words = words[: self.random.randrange(1, 5)] if self._chance(self.odd / 2) else words
        line = words[0]
        for word in words[1:]:
            line += (self.random.choice(SPACES) if self._chance(0.3) else " ") + word
        return line + self.random.choice(("", "", "", " ", " # why", "#why", " # \\", "\r" if self.odd else "")) + "\n"

    def _target(self, names: tuple[str, ...]) -> str:
        name = self.random.choice(names)
        return f"/etc/pam.d/{name}" if self._chance(0.2) else name

    def _module(self) -> str:
        if self._chance(0.08):
            return f"{MODULES}/not-there.so"
        return f"{MODULES}/{self.random.choice(('m.so', 'm.so', 'pam_systemd.so', 'pam_slurm_adopt.so'))}"

    def _control(self) -> str:
        if self._chance(0.5):
            return self._pick(CONTROLS, ODD_CONTROLS)
        codes = (
            "success",
            "success",
            "default",
            "default",
            "ignore",
            "auth_err",
            "session_err",
            "perm_denied",
            "new_authtok_reqd",
        )
        pairs = [
            f"{self._pick(codes, ('Success', 'successes', 'cred'))}{self._pick(('=',), (' = ', '==', ''))}{self._pick(ACTIONS, ODD_ACTIONS)}"
            for _ in range(self.random.randrange(1, 4))
        ]
        return f"[{self._pick((' ',), ('', ',')).join(pairs)}]"


def told(line: PamLine) -> tuple[str, int]:
    """The tag of a line, and what its module returns (-1: there is no such module)."""
    words = {name: value for name, _, value in (arg.rstrip("\r").partition("=") for arg in line.args)}
    return words.get("tag", "?"), int(words.get("code", "0")) if is_there(line) else 28


def is_there(line: PamLine) -> bool:
    """A carriage return at the end of a line belongs to its last word."""
    return line.name in ("m.so", "pam_systemd.so", "pam_slurm_adopt.so")


def expected(stack: Stack) -> tuple[list[str], int]:
    """What libpam must do, as the reader has it."""
    came = walk(stack.lines, lambda line: [(told(line)[1], None)])
    ran = [line for line, states in zip(stack.lines, came) if states and line.what == "module"]
    [end] = came[-1]
    return [told(line)[0] for line in ran if is_there(line)], end[2]


@pytest.fixture(scope="module")
def stacks(libpam: Libpam) -> list[tuple[Path, tuple[list[str], int]]]:
    """All generated stacks, and what libpam did with each."""
    roots = [libpam.write(f"case{seed}", Maker(seed).files()) for seed in range(STACKS)]
    return list(zip(roots, libpam.run([(root.name, "svc", "session") for root in roots])))


def test_libpam__what_is_read_is_what_runs(stacks: list[tuple[Path, tuple[list[str], int]]]) -> None:
    agreed = 0
    for root, (ran, code) in stacks:
        stack = read_stack("svc", "session", str(root))
        if stack.doubts:
            continue
        assert code != -1, f"{root}: libpam has refused this"
        files = {file.name: file.read_text() for file in (root / "etc/pam.d").iterdir()}
        assert expected(stack) == (ran, code), (files, stack)
        agreed += 1
    assert agreed > STACKS * 0.8, "most stacks are without a doubt"


def test_libpam__where_a_session_ends_is_foretold(stacks: list[tuple[Path, tuple[list[str], int]]]) -> None:
    """Of the ways that the reader follows, libpam takes one: it must not end where the reader sees no end."""
    seen = {STAYS: 0, LEAVES: 0, UNKNOWN: 0}
    for root, (ran, code) in stacks:
        stack = read_stack("svc", "session", str(root))
        outlook = judge(stack, answers)
        seen[outlook] += 1
        if stack.doubts or code != SUCCESS:
            continue
        by_tag = {told(line)[0]: line for line in stack.lines}
        outside = False
        for tag in ran:
            line = by_tag[tag]
            refused = told(line)[1] not in (0, 25)
            outside = line.name == "pam_systemd.so" or (outside and (line.name != "pam_slurm_adopt.so" or refused))
        assert outlook in (UNKNOWN, LEAVES if outside else STAYS), (root, stack)
    assert min(seen.values()) > 5, f"every answer comes up: {seen}"


def answers(line: PamLine) -> list[tuple[int, bool | None]] | None:
    """What is known of modules beforehand."""
    if not is_there(line):
        return [(28, None)]
    if line.name == "pam_systemd.so":
        return [(code, True) for code in range(len(CODES))]
    if line.name == "pam_slurm_adopt.so":
        return [(code, False if code in (0, 25) else None) for code in (0, 25, SESSION_ERR, 6, 7, 9, 12, 28)]
    return None
