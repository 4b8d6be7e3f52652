# SPDX-License-Identifier: Apache-2.0
"""Which processes of a login are adopted; real processes, all of them root's and of one executable, as sshd's are."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator

import pytest
from tests.process import process_of

from slurm_adopt.login.state import Login
from slurm_adopt.login.steps import FreshLookup
from slurm_adopt.wire.login_exchange import Connection, LoginRequest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sshd is root's")
CLIENT, DIRECTORY = "127.0.0.2", "127.0.0.3"


@contextlib.contextmanager
def connected(peer: str) -> Iterator[socket.socket]:
    """Our end of a connection from `peer`."""
    with socket.create_server((peer, 0)) as server, socket.create_connection(server.getsockname()) as ours:
        far, _ = server.accept()
        with far:
            yield ours


def connection_of(ours: socket.socket) -> Connection:
    local, peer = ours.getsockname(), ours.getpeername()
    return Connection(ours.fileno(), 4, local[0], local[1], peer[0], peer[1])


@contextlib.contextmanager
def forked() -> Iterator[int]:
    """A child with all our descriptors."""
    pid = os.fork()
    if pid == 0:
        time.sleep(30)
        os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def adopted_of(pid: int, connections: tuple[Connection, ...], rhost: str) -> list[int]:
    request = LoginRequest(
        "account", time.monotonic_ns() + 10**9, "sshd", "alice", 1501, rhost, connections=connections
    )
    return [process.pid for process in Login(request, process_of(pid), FreshLookup()).find_processes()]


def test_carrier__parent_with_the_same_ssh_connection() -> None:
    with connected(CLIENT) as ssh, forked() as child:
        assert adopted_of(child, (connection_of(ssh),), CLIENT) == [os.getpid(), child]


def test_carrier__parent_with_the_same_directory_connection_only() -> None:
    """The listening sshd and its children may share a socket of nss_ldap: that must not drag the listener in."""
    with connected(DIRECTORY) as ldap, connected(CLIENT) as ssh, forked() as child:
        connections = (connection_of(ldap), connection_of(ssh))
        ssh.close()  # as the listening sshd does with the connection that it has handed to its child
        assert adopted_of(child, connections, CLIENT) == [child]
