# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt history`: from lines to rows."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from slurm_adopt.cli.history import decode_lines, fits, parse_since, summary, table, would_deny
from slurm_adopt.cli.main import CommandError, main

LOGIN = {"event": "login", "time": "2026-11-22T10:00:00.000Z", "user": "alice", "uid": 1501, "from": "10.0.0.1",
         "verdict": "allow", "reason": "adopted", "job": 7, "pid": 100}  # fmt: skip
DENIED = {**LOGIN, "user": "bob", "uid": 1502, "verdict": "deny", "reason": "no-job", "job": None, "pid": 101}
END = {"event": "end", "time": "2026-11-22T11:00:00.000Z", "user": "alice", "uid": 1501, "from": "10.0.0.1", "job": 7,
       "pid": 100, "start": "2026-11-22T10:00:00.001Z", "seconds": 3600, "why": "job-ended"}  # fmt: skip


def test_history__lines_that_are_no_events_are_passed_over() -> None:
    lines = ["", "nonsense", "{", '{"event": "other"}', "[1]", json.dumps(LOGIN), "Nov 22 host x: " + json.dumps(END)]
    assert list(decode_lines(lines)) == [LOGIN, END]


def test_history__lines_too_deep_for_json_are_passed_over() -> None:
    assert list(decode_lines(["[" * 100_000, '{"event":' * 100_000, json.dumps(LOGIN)])) == [LOGIN]


def test_history__a_login_and_its_end_are_one_row() -> None:
    rows = list(table([LOGIN, DENIED, END]))
    assert len(rows) == 3
    assert "job-ended" in rows[1]
    assert rows[2].split()[-3:] == ["no-job", "-", "-"]


def test_history__the_same_pid_later_is_another_session() -> None:
    later = {**LOGIN, "time": "2026-11-23T10:00:00.000Z"}
    rows = list(table([LOGIN, END, later]))
    assert "job-ended" in rows[1]
    assert "job-ended" not in rows[2]


def test_history__a_terminal_sees_no_escape_sequence() -> None:
    assert "\x1b" not in "".join(table([{**LOGIN, "from": "\x1b[2Jhost"}]))


@pytest.mark.parametrize(
    ("user", "job", "since", "wanted"),
    [
        (None, None, 0, True),
        ("alice", None, 0, True),
        ("1501", None, 0, True),
        ("bob", None, 0, False),
        (None, 7, 0, True),
        (None, 8, 0, False),
        (None, None, 4e9, False),
    ],
)
def test_history__filters(user: str | None, job: int | None, since: float, wanted: bool) -> None:
    assert fits(LOGIN, user, job, since) is wanted


def test_history__since() -> None:
    assert parse_since("2h", 10_000) == 10_000 - 7200
    assert parse_since("2026-11-22T08:00", 0) == datetime(2026, 11, 22, 8, 0).timestamp()
    with pytest.raises(CommandError):
        parse_since("yesterdayish", 0)


def test_history__reads_a_file(tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "audit"
    path.write_text("".join(json.dumps(event) + "\n" for event in (LOGIN, DENIED, END)))
    assert main(["history", "--file", str(path), "--user", "bob", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == DENIED


def test_history__reads_the_journal(tmp_path, capsys, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    journal = tmp_path / "journalctl"
    journal.write_text(f'#!/bin/sh\necho "$*" > {tmp_path}/asked\ncat {tmp_path}/lines\n')
    journal.chmod(0o755)
    (tmp_path / "lines").write_text(json.dumps(LOGIN) + "\n" + json.dumps(END) + "\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert main(["history", "--since", "2026-11-22", "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [LOGIN, END]
    asked = (tmp_path / "asked").read_text().split()
    assert "--identifier=slurm-adopt-audit" in asked
    assert "_UID=0" in asked, "any user may write lines under that identifier (logger -t)"


def test_history__without_a_journal_there_is_a_hint(tmp_path, capsys, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["history"]) == 1
    assert "--audit-file" in capsys.readouterr().err


def test_history__who_would_have_been_refused(tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    """By user and reason, over days; real refusals and logins that are let in are not among them."""
    observed = {**DENIED, "enforce": "no"}
    events = [
        LOGIN,
        DENIED,
        {**LOGIN, "enforce": "no", "reason": "would-adopt"},
        observed,
        {**observed, "time": "2026-11-23T10:00:00.000Z"},
        {**observed, "user": "carol", "reason": "job-ending", "enforce": "adopt"},
    ]
    assert [would_deny(event) for event in events] == [False, False, False, True, True, True]
    path = tmp_path / "audit"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    assert main(["history", "--file", str(path), "--would-deny"]) == 0
    rows = [row.split()[:4] for row in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["USER", "REASON", "LOGINS", "DAYS"],
        ["bob", "no-job", "2", "2"],
        ["carol", "job-ending", "1", "1"],
    ]
    assert list(summary([])) == ["Nobody would have been refused."]


def test_history__a_verdict_that_did_not_count_is_in_brackets() -> None:
    assert list(table([{**DENIED, "enforce": "no"}]))[1].split()[5:7] == ["(deny)", "no-job"]
