# SPDX-License-Identifier: Apache-2.0
"""The least that a service in Python can do: it admits one user, refuses the others, and looks at nothing.

In the resident service's place it shows what no service in Python can save: the module, the exchange, the interpreter,
and for the one user two questions to slurmstepd.

usage: least.py SOCKET USER LINK, which leads to the socket of that user's extern step. Standard library only; root.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys

HANDSHAKE, STATE, ADD_PID = 45 << 8, 5, 22
NICE = -20  # the service's own
HEAD = b"V=1\0RESULT=%b\0REASON=%b\0LEVEL=info\0LOG=verdict=%b reason=%b user=%b from=127.0.0.1 phase=account\0"
ERROR = b"ERROR=Access denied by pam_slurm_adopt: you have no active jobs on this node\0"


def adopt(pid: int, path: str) -> None:
    """Ask for the step's state, then have the process taken in, and read what the kernel says of it."""
    with socket.socket(socket.AF_UNIX) as step:
        step.connect(path)
        step.sendall(struct.pack("=ii", HANDSHAKE, STATE))
        step.recv(8, socket.MSG_WAITALL)
        step.sendall(struct.pack("=iii", ADD_PID, pid, STATE))
        code, _ = struct.unpack("=ii", step.recv(8, socket.MSG_WAITALL))
        with open(f"/proc/{pid}/cgroup", "rb") as file:
            file.read()
        if code:
            raise SystemExit(f"slurmstepd answered {code}")


def main(path: str, user: str, link: str) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(128)
    os.setpriority(os.PRIO_PROCESS, 0, NICE)
    wanted = f"\0USER={user}\0".encode()
    admission = HEAD % (b"success", b"adopted", b"allow", b"adopted", user.encode())
    refusal = HEAD % (b"perm_denied", b"no-job", b"deny", b"no-job", b"bob") + ERROR
    poller = select.poll()
    poller.register(listener, select.POLLIN)
    while True:
        poller.poll()
        client, _ = listener.accept()
        pid, _, _ = struct.unpack("=iII", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if wanted in client.recv(4096):
            adopt(pid, os.readlink(link))
            client.send(admission)
        else:
            client.send(refusal)
        client.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
