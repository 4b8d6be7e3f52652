# SPDX-License-Identifier: Apache-2.0
"""A module that does not get a processor until its deadline is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .conftest import HERE, ROOT, SANITIZER_ENV, SANITIZERS, run

if TYPE_CHECKING:
    from pathlib import Path

FILES = [ROOT / f"src/pam/{name}.c" for name in ("client", "clock", "reply")]


def test_full_node__an_answer_that_is_there_is_not_lost(tmp_path: Path) -> None:
    flags = ("-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-Wall", "-Wextra", f"-fsanitize={SANITIZERS}")
    run("cc", *flags, "-o", tmp_path / "runner", HERE / "wait_runner.c", *FILES, f"-I{ROOT}/src/pam")
    told = run(tmp_path / "runner", env=SANITIZER_ENV).stdout
    assert told.splitlines() == ["nothing 0", "room 0", "answer 1"]
