# SPDX-License-Identifier: Apache-2.0
"""In the node: established TCP connections to another host (a network namespace of its own, behind a veth pair).

usage: flows.py COUNT           prints "ready", and holds the connections until it is killed or its input ends
       flows.py --far COUNT     (its other half, in the other namespace)

The other host also listens for whoever else wants a connection; it has no slurmd.
"""

from __future__ import annotations

import resource
import socket
import struct
import subprocess
import sys

NEAR, FAR, PORT = "10.78.0.1", "10.78.0.2", 7000


def far(count: int) -> None:
    sys.stdout.write("up\n")
    sys.stdout.flush()
    sys.stdin.readline()  # until the interface is there
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((FAR, PORT))
    listener.listen(4096)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    # the first ones stay; those of the logins that come later are short
    accepted = [listener.accept()[0] for _ in range(count)]
    while accepted is not None:
        listener.accept()[0].close()


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def near(count: int) -> None:
    argv = ["unshare", "--net", "setpriv", "--pdeathsig=KILL", sys.executable, __file__, "--far", str(count)]
    other = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdin is not None
    assert other.stdout is not None
    other.stdout.readline()
    inside = ["nsenter", "-t", str(other.pid), "-n", "ip"]
    ip("link", "add", "flows0", "type", "veth", "peer", "name", "flows1", "netns", str(other.pid))
    ip("addr", "add", f"{NEAR}/24", "dev", "flows0")
    ip("link", "set", "flows0", "up")
    subprocess.run([*inside, "addr", "add", f"{FAR}/24", "dev", "flows1"], check=True)
    subprocess.run([*inside, "link", "set", "flows1", "up"], check=True)
    other.stdin.write("go\n")
    other.stdin.flush()
    other.stdout.readline()
    held = [socket.create_connection((FAR, PORT)) for _ in range(count)]
    for connection in held:
        # ended by a reset: 5000 ports that wait for a minute, four times over, would leave none for the next 5000
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    del held
    other.kill()
    other.wait()


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if sys.argv[1] == "--far":
        far(int(sys.argv[2]))
    else:
        near(int(sys.argv[1]))
