# SPDX-License-Identifier: Apache-2.0
"""A slurmstepd that misbehaves, for faults that a real one does not show. Runs as root inside a node, on the node's own
Python, for as long as its stdin is open.

    fake_stepd.py SCENARIO SOCKET UID [LIKE-PID]

Listens at SOCKET as the extern step of a job of UID. LIKE-PID: joins that process's cgroups, so as to look like the
slurmstepd of a real job. Prints "ready" when it listens. Protocol 22.05 (9728) unless the scenario says otherwise;
"newer" is one that no release has had so far.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time

STATE, PID_IN_STEP, DAEMON_PID, OWNER, ADD, X11, NAMESPACE, NAMESPACES = 5, 8, 9, 20, 22, 23, 26, 28
NOBODY = 65534
VERSIONS = {"25.11": 44 << 8, "newer": 99 << 8}
FLOOD = 64 << 20


class Closed(Exception):
    """The scenario ends the connection here."""


class Stepd:
    """One connection's conversation, up to where the scenario goes wrong."""

    def __init__(self, scenario: str, connection: socket.socket, uid: int, steps: list[str]) -> None:
        self.scenario = scenario
        self.connection = connection
        self.uid = uid
        self.steps = steps
        """cgroup.procs files of the real job's extern step"""

    def take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.connection.recv(count - len(data))
            if not piece:
                raise Closed
            data += piece
        return data

    def say(self, *numbers: int) -> None:
        self.connection.sendall(struct.pack(f"={len(numbers)}i", *numbers))

    def serve(self) -> None:
        try:
            self.handshake()
            while True:
                (opcode,) = struct.unpack("=i", self.take(4))
                self.answer(opcode)
        except (Closed, OSError):
            self.connection.close()

    def fail_if(self, *scenarios: str) -> None:
        """Where the scenario is to go wrong: closed, silent, or flooding."""
        if self.scenario not in scenarios:
            return
        if self.scenario.startswith("silent"):
            time.sleep(600)
        if self.scenario.startswith("endless"):
            for _ in range(FLOOD >> 16):
                self.connection.sendall(b"\x02\0\0\0" * (1 << 14))
        raise Closed

    def handshake(self) -> None:
        self.fail_if("closes on accept", "silent on accept")
        self.take(4)
        if self.scenario == "garbage":
            self.connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            raise Closed
        if self.scenario == "zeros":
            self.connection.sendall(bytes(4096))
            raise Closed
        version = next((VERSIONS[word] for word in VERSIONS if word in self.scenario), 38 << 8)
        self.say(-1 if self.scenario.startswith("refuses the version") else version)
        self.fail_if("closes after handshake", "silent after handshake", "refuses the version", "endless")

    def answer(self, opcode: int) -> None:
        if opcode == DAEMON_PID:
            self.say(
                1 if self.scenario == "says process 1" else os.getppid() if "impostor" in self.scenario else os.getpid()
            )
        elif opcode == OWNER:
            self.connection.sendall(struct.pack("=I", 0 if self.scenario == "says root's" else self.uid))
            self.fail_if("closes after uid", "silent after uid")
        elif opcode == STATE:
            states = {"starting": 1, "ending": 3, "cancelled 25.11": 3, "state 99": 99, "state -1": -1}
            self.say(states.get(self.scenario, 2))
        elif opcode == ADD:
            (pid,) = struct.unpack("=i", self.take(4))
            self.fail_if("closes instead of adding", "silent on add", "endless on add")
            if self.scenario != "lies":
                move(pid, self.steps)
            self.say(-1 if self.scenario == "refuses to add" else 77 if self.scenario == "answers 77 to add" else 0)
        elif opcode == PID_IN_STEP:
            self.take(4)
            self.connection.sendall(b"\2" if self.scenario == "neither yes nor no" else b"\0")
        elif opcode == X11:
            self.answer_x11()
        elif opcode in (NAMESPACE, NAMESPACES):
            self.answer_namespaces()
        else:
            raise Closed

    def answer_x11(self) -> None:
        self.fail_if("closes on X11", "silent on X11")
        lengths = {"X11 path of -1": -1, "X11 path of 2 GiB": 0x7FFFFFFF, "X11 path without end": 8}
        self.say(10, lengths.get(self.scenario, 0)) if "X11 path" in self.scenario else self.say(0, 0)
        if self.scenario == "X11 path without end":
            self.connection.sendall(b"/tmp/xxx")

    def answer_namespaces(self) -> None:
        self.fail_if("closes on namespaces", "silent on namespaces 25.11", "silent on namespaces")
        answers = {"no namespace": -1, "namespace without descriptor": 7, "99 namespaces 25.11": 99}
        answers["namespace of a newer kind"] = 1
        self.say(answers.get(self.scenario, 0))
        if self.scenario == "namespace of a newer kind":
            self.say(0x80)
        if self.scenario == "namespace without descriptor":
            self.connection.sendall(b"x")


def join_cgroups(pid: int) -> list[str]:
    """Go where slurmstepd itself sits; returns the cgroup.procs files of its step. v1: controllers are mounted by name."""
    steps = []
    with open(f"/proc/{pid}/cgroup") as file:
        lines = file.read().split()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        folder = f"/sys/fs/cgroup/{controllers.replace('name=', '') or 'unified'}{path}"
        if "/job_" in path:
            move(os.getpid(), [f"{folder}/cgroup.procs"])
            step = folder if "/step_extern" in path else f"{folder}/step_extern"
            steps.append(f"{step.partition('/step_extern')[0]}/step_extern/cgroup.procs")
    return steps


def move(pid: int, files: list[str]) -> None:
    for name in files:
        with open(name, "w") as procs:
            procs.write(str(pid))


def main() -> None:
    scenario, path, uid = sys.argv[1], sys.argv[2], int(sys.argv[3])
    steps = join_cgroups(int(sys.argv[4])) if len(sys.argv) > 4 else []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o777)
    if scenario == "somebody's socket":
        os.chown(path, uid, uid)
    if scenario == "nobody listens":
        os.setresuid(NOBODY, NOBODY, 0)
    listener.listen(1 if scenario == "backlog full" else 64)
    os.setresuid(0, 0, 0)
    waiting = []
    if scenario == "stale socket":
        listener.close()
    elif scenario == "backlog full":
        for _ in range(8):
            waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            try:
                waiting[-1].connect(path)
            except BlockingIOError:
                break
    else:
        threading.Thread(target=accept, args=(listener, scenario, uid, steps), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()
    os.unlink(path)
    os._exit(0)


def accept(listener: socket.socket, scenario: str, uid: int, steps: list[str]) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=Stepd(scenario, connection, uid, steps).serve, daemon=True).start()


if __name__ == "__main__":
    main()
