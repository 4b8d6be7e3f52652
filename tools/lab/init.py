# SPDX-License-Identifier: Apache-2.0
"""Process 1 of a machine: brings up lo, keeps what is sent to /dev/log, reaps. Nothing else.

Runs on the machine's own Python (3.9 and later), given as a file; arguments: [address/prefix ...].
Descriptor 3: one byte is written to it when all is ready. Log lines go to /run/lab/log, one each, as
sent (`<PRI>...`), newlines inside replaced.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path


def bring_up_lo(addresses: list[str]) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in addresses:
        # Beside 127.0.0.1: without it getaddrinfo(AI_ADDRCONFIG) finds nothing and slurmd 24.11 cannot bind.
        subprocess.run(["ip", "addr", "add", address, "dev", "lo"], check=True)


def listen() -> socket.socket:
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    log.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    log.bind("/dev/log")
    Path("/dev/log").chmod(0o666)
    return log


def reap() -> None:
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def main() -> None:
    bring_up_lo(sys.argv[1:])
    log = listen()
    log_fd = log.fileno()
    kept = os.open("/run/lab/log", os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644)
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    os.write(3, b"+")
    os.close(3)
    while True:
        ready, _, _ = select.select([log_fd, wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, 512)
            reap()
        if log_fd in ready:
            message = log.recv(1 << 16)
            os.write(kept, message.rstrip(b"\0\n").replace(b"\n", b" ") + b"\n")


main()
