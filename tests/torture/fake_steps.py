# SPDX-License-Identifier: Apache-2.0
"""Sockets of extern steps that begin and end as they are told: runs as root in a node, on the node's own Python.

    fake_steps.py SPOOL-DIRECTORY NODE-NAME

Reads lines of JSON, `{"begin": [[JOB, UID], ...], "end": [JOB, ...]}`, and answers each with a line when it is so:
`{"alive": COUNT, "added": [JOB, ...]}`, the jobs that were asked to take a process in since the last line. They say no.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import struct
import sys

VERSION = 38 << 8
STATE, DAEMON_PID, OWNER, ADD, X11, NAMESPACE, NAMESPACES = 5, 9, 20, 22, 23, 26, 28
RUNNING, NO = 2, -1


class Steps:
    """All steps that are alive."""

    def __init__(self, folder: str, node: str) -> None:
        self.folder = folder
        self.node = node
        self.listeners: dict[int, socket.socket] = {}
        self.added: list[int] = []
        self.selector = selectors.DefaultSelector()

    def begin(self, job: int, uid: int) -> None:
        """A socket, as slurmstepd's."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.bind(self._path(job))
        os.chmod(self._path(job), 0o777)
        listener.listen(64)
        self.listeners[job] = listener
        self.selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener, job, uid))

    def end(self, job: int) -> None:
        """As when the step ends."""
        os.unlink(self._path(job))
        listener = self.listeners.pop(job)
        self.selector.unregister(listener)
        listener.close()

    def _path(self, job: int) -> str:
        return f"{self.folder}/{self.node}_{job}.4294967292"

    def _accept(self, listener: socket.socket, job: int, uid: int) -> None:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        connection.setblocking(False)
        conversation = Conversation(self, connection, job, uid)
        self.selector.register(connection, selectors.EVENT_READ, conversation.go_on)


class Conversation:
    """One connection."""

    def __init__(self, steps: Steps, connection: socket.socket, job: int, uid: int) -> None:
        self.steps = steps
        self.connection = connection
        self.job = job
        self.uid = uid
        self.data = b""
        self.greeted = False

    def go_on(self) -> None:
        """There is something to read, or the end."""
        try:
            piece = self.connection.recv(4096)
        except OSError:
            piece = b""
        self.data += piece
        if not piece or not self._answer():
            self.steps.selector.unregister(self.connection)
            self.connection.close()

    def _answer(self) -> bool:
        """All that is complete; whether the connection goes on."""
        replies = {
            STATE: struct.pack("=i", RUNNING),
            DAEMON_PID: struct.pack("=i", os.getpid()),
            OWNER: struct.pack("=I", self.uid),
            ADD: struct.pack("=i", NO),
            X11: bytes(8),
            NAMESPACE: bytes(4),
            NAMESPACES: bytes(4),
        }
        try:
            while len(self.data) >= 4:
                number = struct.unpack_from("=i", self.data)[0]
                if not self.greeted:
                    self.greeted = True
                    self.connection.sendall(struct.pack("=i", VERSION))
                    self.data = self.data[4:]
                    continue
                if number not in replies:
                    return False
                size = 8 if number == ADD else 4
                if len(self.data) < size:
                    break
                if number == ADD:
                    self.steps.added.append(self.job)
                self.data = self.data[size:]
                self.connection.sendall(replies[number])
        except OSError:
            return False
        return True


def main() -> None:
    steps = Steps(sys.argv[1], sys.argv[2])
    steps.selector.register(0, selectors.EVENT_READ, None)
    text = b""
    while True:
        for key, _ in steps.selector.select():
            if key.data is not None:
                key.data()
                continue
            piece = os.read(0, 1 << 20)
            if not piece:
                return
            text += piece
            while b"\n" in text:
                line, _, text = text.partition(b"\n")
                told = json.loads(line)
                for job in told.get("end", ()):
                    steps.end(job)
                for job, uid in told.get("begin", ()):
                    steps.begin(job, uid)
                added, steps.added = steps.added, []
                print(json.dumps({"alive": len(steps.listeners), "added": added}), flush=True)


if __name__ == "__main__":
    main()
