# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt history`: who logged in, into which job, and when and why it ended; from the audit stream."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import Any

from ..observe.audit import IDENTIFIER
from ..words import columns, printable
from .main import die

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--user", help="only events of this user (name or uid)")
    parser.add_argument("--job", type=int, help="only events of this job")
    parser.add_argument(
        "--since", metavar="WHEN", help="only events from this time on: 2h, 3d, 2026-11-22, 2026-11-22T08:00"
    )
    parser.add_argument(
        "--file", metavar="PATH", help="read this audit file (serve --audit-file) instead of the journal"
    )
    parser.add_argument(
        "--would-deny",
        action="store_true",
        help="list by user and reason whom the PAM line would have refused, had it not enforce=no or enforce=adopt",
    )
    parser.add_argument("--json", action="store_true", help="print each event as one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Print what fits the filters, oldest first."""
    since = parse_since(args.since, time.time()) if args.since else 0.0
    lines = read_lines(args.file, since)
    events = [event for event in decode_lines(lines) if fits(event, args.user, args.job, since)]
    if args.would_deny:
        events = [event for event in events if would_deny(event)]
    if args.json:
        for event in events:
            print(json.dumps(event, ensure_ascii=True, separators=(",", ":")))
        return 0
    if args.would_deny:
        for row in summary(events):
            print(row)
        return 0
    for row in table(events):
        print(row)
    return 0


def read_lines(path: str | None, since: float = 0.0) -> list[str]:
    """The lines of an audit file, or of the journal."""
    return _file_lines(path) if path else _journal_lines(since)


def decode_lines(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The events among the lines; a line that was cut short by a crash is passed over."""
    for line in lines:
        start = line.find("{")
        try:
            event = json.loads(line[start:]) if start >= 0 else None
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and event.get("event") in ("login", "end") and isinstance(event.get("time"), str):
            yield event


def fits(event: dict[str, Any], user: str | None, job: int | None, since: float) -> bool:
    """Whether an event is wanted."""
    if user is not None and user not in (event.get("user"), str(event.get("uid"))):
        return False
    if job is not None and event.get("job") != job:
        return False
    try:
        return _seconds(event["time"]) >= since
    except ValueError:
        return False


def table(events: list[dict[str, Any]]) -> Iterator[str]:
    """One line for each login with its end, if it had one."""
    rows = [("TIME", "USER", "FROM", "JOB", "VERDICT", "REASON", "END", "WHY")]
    left = [event for event in events if event["event"] == "end"]
    for event in events:
        if event["event"] != "login":
            continue
        end = _end_of(event, left)
        if end is not None:
            left.remove(end)
        rows.append(
            (
                _shown(event["time"]),
                _text(event.get("user")),
                _text(event.get("from")),
                _text(event.get("job")),
                _verdict(event),
                _text(event.get("reason")),
                _shown(end["time"]) if end else "-",
                _text(end.get("why")) if end else "-",
            )
        )
    yield from columns(rows)


def _verdict(event: dict[str, Any]) -> str:
    """What the line said; in brackets if it did not count."""
    return f"({_text(event.get('verdict'))})" if event.get("enforce") else _text(event.get("verdict"))


def would_deny(event: dict[str, Any]) -> bool:
    """Whether the login was let in only because the line does not enforce."""
    return event["event"] == "login" and event.get("verdict") == "deny" and event.get("enforce") in ("no", "adopt")


def summary(events: list[dict[str, Any]]) -> Iterator[str]:
    """One line for each user and reason, the most frequent first: how often, on how many days, and when last."""
    found: dict[tuple[str, str], list[str]] = {}
    for event in events:
        found.setdefault((_text(event.get("user")), _text(event.get("reason"))), []).append(event["time"])
    if not found:
        yield "Nobody would have been refused."
        return
    rows = [("USER", "REASON", "LOGINS", "DAYS", "LAST")]
    for (user, reason), times in sorted(found.items(), key=lambda item: (-len(item[1]), item[0])):
        days = {_shown(moment)[:10] for moment in times}
        rows.append((user, reason, str(len(times)), str(len(days)), _shown(max(times))))
    yield from columns(rows)


def _end_of(login: dict[str, Any], ends: list[dict[str, Any]]) -> dict[str, Any] | None:
    for end in ends:
        same = all(end.get(key) == login.get(key) for key in ("pid", "uid", "job"))
        if same and end["time"] >= login["time"] and login.get("verdict") == "allow":
            return end
    return None


def parse_since(text: str, now: float) -> float:
    """`2h` or a date as seconds since 1970; a date without a zone is local time."""
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if match:
        return now - int(match[1]) * UNITS_S[match[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        die(f"--since {text!r} is neither a time span nor a date", "for example 2h, 3d, 2026-11-22 or 2026-11-22T08:00")


def _seconds(stamp: str) -> float:
    moment = datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S.%fZ")
    return moment.replace(tzinfo=timezone.utc).timestamp()


def _shown(stamp: str) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(_seconds(stamp)))
    except ValueError:
        return "?"


def _text(value: object) -> str:
    """A cell: nothing that a terminal would act upon."""
    return printable(str(value)) if value not in (None, "") else "-"


def _file_lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().splitlines()
    except OSError as error:
        die(f"{path}: {error.strerror}")


def _journal_lines(since: float) -> list[str]:
    argv = ["journalctl", "--no-pager", "--quiet", "--output=cat", f"--identifier={IDENTIFIER}"]
    argv.append("_UID=0")  # anybody may write into the journal under any identifier; the kernel says who it was
    if since:
        argv.append(f"--since=@{int(since)}")
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace", check=False
        )
    except FileNotFoundError:
        die("there is no journal on this machine", "run the service with --audit-file, and name that file with --file")
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout.splitlines()
