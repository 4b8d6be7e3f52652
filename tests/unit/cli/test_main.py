# SPDX-License-Identifier: Apache-2.0
"""The command's errors: one line what, one line how to mend it."""

from __future__ import annotations

import pytest

from slurm_adopt.cli.main import COMMANDS, build_parser, main


@pytest.mark.parametrize(
    ("words", "first", "second"),
    [
        (["statuz"], "slurm-adopt: there is no command statuz", "did you mean status?"),
        (["explainn", "alice"], "slurm-adopt: there is no command explainn", "did you mean explain?"),
        (["qqq"], "slurm-adopt: there is no command qqq", "slurm-adopt --help"),
        (["status", "--jsno"], "slurm-adopt status: unrecognized arguments: --jsno", "did you mean --json?"),
        (
            ["history", "--users=bob"],
            "slurm-adopt history: unrecognized arguments: --users=bob",
            "did you mean --user?",
        ),
        (["use"], "slurm-adopt use: ", "slurm-adopt use --help"),
        (["x\x1b[2J"], "slurm-adopt: there is no command x?[2J", "slurm-adopt --help"),
    ],
)
def test_main__a_usage_error_is_two_lines(
    words: list[str], first: str, second: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(words)
    except SystemExit as end:
        code = int(str(end.code))
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    what, how = said.err.splitlines()
    assert what.startswith(first)
    assert second in how
    assert len(how) <= 80


def test_main__every_command_has_its_arguments() -> None:
    assert build_parser().format_help().count("\n") > len(COMMANDS)


def test_main__status_is_watched_on_a_terminal_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--watch"]) == 1
    assert "needs a terminal" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["status", "--watch", "0"])
