# SPDX-License-Identifier: Apache-2.0
"""A directory service's socket in sshd's process is not taken for the login's own: real sshd, with such a module."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.accounts import password
from lab.machine import wait_for
from lab.node import Node
from lab.product import STRICT

SOURCE = Path(__file__).with_name("pam_directory.c")
KEYBOARD, PORT = 2225, 3890
#: In a job of the user's own: whoever takes its connections for the login's finds this job.
SERVER = f"""exec python3 -c '
import socket
server = socket.create_server(("127.0.0.1", {PORT}))
open("/tmp/directory-listens", "w").close()
kept = []
while True:
    kept.append(server.accept())
'"""

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")


@pytest.fixture
def directory(node: Node, tmp_path: Path) -> Iterator[Node]:
    """The module is in front of ours in both stacks, and the server runs in the newest job of alice."""
    built = tmp_path / "pam_directory.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(built), str(SOURCE), "-lpam"], check=True)
    node.install(built, "/usr/local/lib/pam_directory.so", 0o755)
    line = f"required /usr/local/lib/pam_directory.so port={PORT}"
    node.pam("sshd", account=[line, STRICT], session=[line, STRICT])
    node.run("rm -f /tmp/directory-listens /tmp/go /tmp/where; touch /tmp/where; chmod 666 /tmp/where")
    yield node
    node.run("rm -f /tmp/directory-listens /tmp/go /tmp/where", check=False)


@pytest.mark.parametrize("auth", ["publickey", "keyboard-interactive"])
def test_directory_sockets__caller_id_follows_the_login(directory: Node, auth: str) -> None:
    node = directory
    node.sshd("keyboard", KEYBOARD, ["KbdInteractiveAuthentication yes"])
    ask = (
        "ssh -o BatchMode=yes alice@127.0.0.1"
        if auth == "publickey"
        else (f"setsid ssh -p {KEYBOARD} -o PreferredAuthentications=keyboard-interactive alice@127.0.0.1")
    )
    node.write("/tmp/password", "#!/bin/sh\necho {password}\n".format(password=password("alice")), 0o755)
    environment = "export SSH_ASKPASS=/tmp/password SSH_ASKPASS_REQUIRE=force; "
    first = node.submit(
        "alice",
        f"{environment} while [ ! -e /tmp/go ]; do sleep 0.1; done; {ask} cat /proc/self/cgroup >/tmp/where 2>&1;"
        " echo done >>/tmp/where; exec sleep 1000",
    )
    second = node.submit("alice", SERVER)
    wait_for(node.path("/tmp/directory-listens").exists, "the directory service")
    mark = node.log_mark()
    node.run("touch /tmp/go")
    wait_for(lambda: "done" in node.read("/tmp/where"), "the login from inside the job")
    assert set(re.findall(r"/job_(\d+)/step_extern", node.read("/tmp/where"))) == {str(first)}, node.read("/tmp/where")
    line = next(line for line in node.log_since(mark) if "phase=account" in line)
    assert f"job={first} chosen=caller" in line
    assert "from=127.0.0.1" in line
    assert second != first
