# SPDX-License-Identifier: Apache-2.0
"""The list of open sessions, with real processes: each ends once, and is in the list no more."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from slurm_adopt.resident import sessions
from slurm_adopt.resident.sessions import LOGOUT, PROCESS_ENDED, Session, Sessions
from slurm_adopt.system.kernel.procfs import Process, read_process
from slurm_adopt.system.tasks.loop import Loop


class Room:
    """A list in a loop of its own, and what it told."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.ends: list[tuple[int, str]] = []
        self.sessions = Sessions(self.loop, lambda session, why: self.ends.append((session.pid, why)))
        self.started: list[subprocess.Popen[bytes]] = []

    def login(self) -> Process:
        """A process, and its session."""
        child = subprocess.Popen(["sleep", "1000"])
        self.started.append(child)
        process = read_process(child.pid)
        assert process is not None
        self.sessions.opened(Session(process.pid, process.started, "alice", 1501, 7, "", "", 0.0, ""))
        return process


@pytest.fixture
def room() -> Iterator[Room]:
    room = Room()
    yield room
    for child in room.started:
        child.kill()
        child.wait()


def test_sessions__a_logout_ends_one_of_them_once(room: Room) -> None:
    first, second = room.login(), room.login()
    room.sessions.closed(first)
    assert [session.pid for session in room.sessions] == [second.pid]
    room.sessions.closed(first)
    assert room.ends == [(first.pid, LOGOUT)]


def test_sessions__a_process_that_was_killed_is_seen(room: Room) -> None:
    first, second = room.login(), room.login()
    room.started[0].kill()
    while not room.ends:
        room.loop.turn()
    assert room.ends == [(first.pid, PROCESS_ENDED)]
    assert [session.pid for session in room.sessions] == [second.pid]


def test_sessions__without_descriptors_for_them_they_are_looked_at(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "descriptor_share", lambda: 0)
    monkeypatch.setattr(sessions, "LOOK_NS", 10**6)
    gone = room.login()
    room.started[0].kill()
    room.started[0].wait()
    while not room.ends:
        room.loop.turn()
    assert room.ends == [(gone.pid, PROCESS_ENDED)]
    assert len(room.sessions) == 0
