# SPDX-License-Identifier: Apache-2.0
"""Logins whose connection is no TCP socket are in the job all the same: sshd on a unix socket, and on two pipes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.releases import SUITES, suite_name

from lab.machine import wait_for
from lab.node import Node
from lab.product import STRICT, use_product
from lab.sshd import ssh_argv

CONFIG = "/etc/ssh/lab-keyboard.conf"
#: As systemd's sshd@.service does: one sshd for each connection, in a session of its own, on descriptors 0 and 1.
SERVER = f"""
import os, socket
listener = socket.socket(socket.AF_UNIX)
listener.bind("/run/ssh.sock")
listener.listen(5)
while True:
    connection, _ = listener.accept()
    if os.fork() == 0:
        os.setsid()
        os.dup2(connection.fileno(), 0)
        os.dup2(connection.fileno(), 1)
        os.execv("/usr/sbin/sshd", ["/usr/sbin/sshd", "-i", "-f", "{CONFIG}", "-E", "/run/lab/sshd-inetd.log"])
    connection.close()
"""
CLIENT = """
import os, socket, threading
server = socket.socket(socket.AF_UNIX)
server.connect("/run/ssh.sock")
def send():
    while data := os.read(0, 65536):
        server.sendall(data)
    server.shutdown(socket.SHUT_WR)
threading.Thread(target=send, daemon=True).start()
while data := server.recv(65536):
    os.write(1, data)
"""
WAYS = {
    "unix socket": "python3 /etc/lab/unix_client.py",
    "two pipes": f"setsid /usr/sbin/sshd -i -f {CONFIG} -E /run/lab/sshd-inetd.log",
}


@pytest.fixture(
    scope="module",
    params=SUITES,
    ids=suite_name,
)
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    with Node(suite=request.param) as node:
        use_product(node)
        node.sshd("keyboard", 2222, ["KbdInteractiveAuthentication yes"])
        node.write("/etc/lab/unix_server.py", SERVER)
        node.write("/etc/lab/unix_client.py", CLIENT)
        server = node.popen(["python3", "/etc/lab/unix_server.py"])
        try:
            wait_for(lambda: node.path("/run/ssh.sock").exists(), "the unix socket")
            node.submit("alice")
            yield node
        finally:
            server.kill()
            server.wait()


@pytest.mark.parametrize("lines", ["account", "both"])
@pytest.mark.parametrize("auth", ["publickey", "keyboard-interactive", "publickey,keyboard-interactive"])
@pytest.mark.parametrize("way", WAYS)
def test_other_connections__the_session_is_in_the_job(node: Node, way: str, auth: str, lines: str) -> None:
    node.pam("sshd", account=[STRICT], session=[STRICT] if lines == "both" else [])
    # the shell, and the privileged sshd above it
    look = "cat /proc/self/cgroup; cat /proc/$(ps -o ppid= -p $PPID | tr -d ' ')/cgroup"
    argv, env = ssh_argv("alice", look, auth=auth, options=[f"ProxyCommand={WAYS[way]}"])
    done = node.run(argv, env=env, check=False)
    assert done.returncode == 0, done.stderr
    freezers = re.findall(r"^\d+:freezer:(.*)$", done.stdout, re.M)
    assert len(freezers) == 2
    assert all("/step_extern" in path for path in freezers), done.stdout


@pytest.mark.parametrize("auth", ["publickey", "keyboard-interactive"])
def test_other_connections__the_listening_sshd_stays_out(node: Node, auth: str) -> None:
    node.pam("sshd", account=[STRICT], session=[STRICT])
    assert node.ssh("alice", "true", auth=auth, port=2222).returncode == 0
    listeners = [
        process for process in node.processes(0) if re.search(r"sshd: .*listener|unix_server", process.command)
    ]
    assert len(listeners) >= 3
    for process in listeners:
        assert "/step_extern" not in str(process.cgroups), process
