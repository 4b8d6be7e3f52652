# SPDX-License-Identifier: Apache-2.0
"""How a demonstration is shown: chapters, commands, their output, and sentences that are checked while told."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lab.machine import LabError
from lab.root import RootError


class NotTrue(Exception):
    """A sentence of the story does not hold."""


class Stage:
    """What the audience sees."""

    def __init__(self, pace_s: float) -> None:
        self.pace_s = pace_s
        self.colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._chapter = 0

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.colours else text

    def chapter(self, title: str) -> None:
        self._chapter += 1
        self._show("\n" + self._paint("1;36", f"{self._chapter}. {title}"))

    def tell(self, text: str) -> None:
        self._show(textwrap.fill(" ".join(text.split()), 100, initial_indent="   ", subsequent_indent="   "))

    def command(self, who: str, line: str) -> None:
        self._show(f"   {self._paint('2', who)} {self._paint('1', line)}")

    def output(self, text: str) -> None:
        for line in text.rstrip("\n").splitlines():
            self._show(f"     {self._paint('33', line)}", 0.15)

    def true(self, condition: object, text: str) -> None:
        if not condition:
            print(f"   {self._paint('1;31', 'NOT TRUE:')} {text}", flush=True)
            raise NotTrue(text)
        self._show(f"   {self._paint('1;32', '✔')} {text}")

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Says what it waits for, and how long it took."""
        started = time.monotonic()
        print(f"   … {what}", end=" ", flush=True)
        try:
            yield
        finally:
            print(self._paint("2", f"({time.monotonic() - started:.1f} s)"), flush=True)

    def _show(self, text: str, beats: float = 1.0) -> None:
        print(text, flush=True)
        time.sleep(self.pace_s * beats)


def perform(title: str, play: Callable[[argparse.Namespace, Stage], None]) -> int:
    """The main program of a demonstration; the exit status is 0 only if all of it was true.

    PACE=SECONDS is the pause between two things shown (default 0.7 on a terminal, else 0).
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--keep", action="store_true", help="leave it up afterwards, until Enter or Ctrl-C")
    parser.add_argument("--fast", action="store_true", help="no pauses (as PACE=0)")
    parser.add_argument("--suite", help="Debian or Ubuntu release (default: this machine's)")
    arguments = parser.parse_args()
    usual = "0.7" if sys.stdout.isatty() else "0"
    stage = Stage(0 if arguments.fast else float(os.environ.get("PACE") or usual))
    try:
        play(arguments, stage)
    except KeyboardInterrupt:
        print("\nended")
        return 0 if arguments.keep else 130
    except NotTrue:
        return 1
    except (LabError, RootError, subprocess.SubprocessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def wait_for_enter() -> None:
    """Until Enter, on a terminal; else until a signal ends the process."""
    if sys.stdin.isatty():
        sys.stdin.readline()
    else:
        signal.pause()
