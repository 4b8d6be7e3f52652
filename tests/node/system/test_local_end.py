# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.machine import wait_for
from slurm_adopt.system.kernel import local_end
from slurm_adopt.system.kernel.local_end import find_local_end, find_other_socket
from slurm_adopt.system.tasks.child import reap_children
from slurm_adopt.system.tasks.sockets import packed
from slurm_adopt.system.tasks.task import DeadlineExceeded, run
from slurm_adopt.wire.login_exchange import Connection
from slurm_adopt.wire.sock_diag import SocketOwner

# what it needs is loaded before it becomes somebody who may not read our python
CODE = """
import encodings.idna, os, socket, sys
os.setuid(int(sys.argv[1]))
sock = socket.create_connection((sys.argv[2], int(sys.argv[3])))
input()
"""


def soon(seconds: float = 10) -> int:
    return time.monotonic_ns() + int(seconds * 1e9)


def connection_of(sock: socket.socket) -> Connection:
    local, peer = sock.getsockname(), sock.getpeername()
    family = 6 if sock.family == socket.AF_INET6 else 4
    return Connection(sock.fileno(), family, local[0], local[1], peer[0], peer[1])


@pytest.fixture(params=["127.0.0.1", "::1", "mapped"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Connection, int]]:
    """Our end of a connection, and the process of uid 12345 that holds the other."""
    listen, target = {"mapped": ("::", "127.0.0.1")}.get(request.param, (request.param, request.param))
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    try:
        server = socket.create_server((listen, 0), family=family, dualstack_ipv6=request.param == "mapped")
    except OSError as error:
        pytest.skip(f"no {request.param} here: {error}")
    with server:
        client = subprocess.Popen(
            [sys.executable, "-c", CODE, "12345", target, str(server.getsockname()[1])], stdin=subprocess.PIPE
        )
        try:
            server.settimeout(5)
            accepted, _ = server.accept()
            with accepted:
                yield connection_of(accepted), client.pid
        finally:
            client.communicate(b"\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="runs a process of another user")
@pytest.mark.parametrize("by_table", [False, True])
def test_local_end__found_by_its_user_only(
    pair: tuple[Connection, int], by_table: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_table:
        monkeypatch.setattr(local_end, "_by_netlink", local_end._by_table)
    connection, pid = pair
    owner = find_other_socket(connection)
    assert owner is not None
    assert owner.uid == 12345
    found = run(find_local_end(connection, 12345, soon()))
    assert found is not None
    assert found.process.pid == pid
    assert found.cgroups == Path(f"/proc/{pid}/cgroup").read_bytes()
    assert run(find_local_end(connection, 12346, soon())) is None


def test_local_end__netlink_and_table_agree(pair: tuple[Connection, int]) -> None:
    connection, _ = pair
    ends = (
        packed(connection.peer_address),
        connection.peer_port,
        packed(connection.local_address),
        connection.local_port,
    )
    assert local_end._by_netlink(ends) == local_end._by_table(ends) != None  # noqa: E711
    assert isinstance(local_end._by_netlink(ends), SocketOwner)


@pytest.mark.parametrize("peer", ["127.0.0.1", "192.0.2.1", "::1", "2001:db8::1"])
def test_local_end__elsewhere(peer: str) -> None:
    local = "::1" if ":" in peer else "127.0.0.1"
    connection = Connection(3, 6 if ":" in peer else 4, local, 22, peer, 1)
    assert find_other_socket(connection) is None
    assert run(find_local_end(connection, 0, soon())) is None
    ends = (packed(peer), 1, packed(local), 22)
    assert local_end._by_netlink(ends) is None
    assert local_end._by_table(ends) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="runs a process of another user")
def test_local_end__gives_up_at_the_deadline(pair: tuple[Connection, int]) -> None:
    with pytest.raises(DeadlineExceeded):
        run(find_local_end(pair[0], 12345, soon(-1)))


@pytest.mark.skipif(os.geteuid() != 0, reason="runs a process of another user")
def test_local_end__a_user_has_a_few_searches_at_a_time(pair: tuple[Connection, int]) -> None:
    """However many of the user's logins want to know: the third one waits, another user's is not held up."""
    wait_for(lambda: not reap_children(), "the searches of the tests before to end")
    tasks = [find_local_end(pair[0], 12345, soon()) for _ in range(local_end.SEARCHES)]
    waits = [next(task) for task in tasks]
    third = find_local_end(pair[0], 12345, soon())
    assert all(wait.fds for wait in waits)
    assert not next(third).fds
    other = find_local_end(pair[0], 12346, soon())
    assert next(other).fds
    for task in (*tasks, other):
        task.close()
    found = run(third)
    assert found is not None
    assert found.process.pid == pair[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="runs a process of another user")
def test_local_end__who_waits_for_a_search_waits_until_the_deadline(pair: tuple[Connection, int]) -> None:
    wait_for(lambda: not reap_children(), "the searches of the tests before to end")
    tasks = [find_local_end(pair[0], 12345, soon()) for _ in range(local_end.SEARCHES)]
    for task in tasks:
        next(task)
    with pytest.raises(DeadlineExceeded):
        run(find_local_end(pair[0], 12345, soon(0.1)))
    for task in tasks:
        task.close()


def test_local_end__addresses() -> None:
    assert packed("192.0.2.1") == packed("::ffff:192.0.2.1") == bytes([192, 0, 2, 1])
    assert packed("fe80::1%eth0") == b"\xfe\x80" + bytes(13) + b"\1"
    for bad in ("", "x", "1.2.3", "1.2.3.4.5", "::g", "é"):
        with pytest.raises(ValueError, match="no address"):
            packed(bad)
