# SPDX-License-Identifier: Apache-2.0
"""Calls PAM inside the node, once per case, each in a child of its own.

Reads one JSON object per line: {"calls": [CALL, ...], "parallel": bool}, answers with one line, a list of results.
CALL: confdir, service, user, phases, caller ("" none, "outside", or a job id), rhost, env, linger_s (how long to see whether
the kernel or Slurm kills the child afterwards). Listens on 10.77.0.1:7001: a job that connects and sends its id is a source
that caller ID can find. Python 3.9 and later, standard library only; root.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import struct
import sys
import syslog
import time
from typing import Any

ADDRESS = ("10.77.0.1", 7001)
#: No call takes longer: the original waits 10 s for a slurmd that stays silent, and for slurmstepd as long as it takes. That
#: of 26.05 takes 4 s for an adoption that fails, one after the other; sixteen come at once.
CALL_TIMEOUT_S = 120
PAM_USER_UNKNOWN, PAM_RHOST, PAM_TTY = 10, 4, 3
PHASES = {"account": "pam_acct_mgmt", "open_session": "pam_open_session", "close_session": "pam_close_session"}

# the original relies on its caller for libpam
libpam = ctypes.CDLL("libpam.so.0", ctypes.RTLD_GLOBAL)
libc = ctypes.CDLL(None)
libc.calloc.restype = ctypes.c_void_p
libc.strdup.restype = ctypes.c_void_p


class Message(ctypes.Structure):
    _fields_ = (("style", ctypes.c_int), ("text", ctypes.c_char_p))


class Response(ctypes.Structure):
    _fields_ = (("text", ctypes.c_void_p), ("code", ctypes.c_int))


CONVERSE = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.POINTER(Message)),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_void_p,
)


class Conversation(ctypes.Structure):
    _fields_ = (("function", CONVERSE), ("data", ctypes.c_void_p))


def call_pam(call: dict[str, Any], messages: list[str]) -> dict[str, Any]:
    """One PAM transaction: the code of the last phase that was run, and the PAM environment."""

    def converse(count: int, asked: Any, answers: Any, _data: object) -> int:
        for index in range(count):
            messages.append(asked[index].contents.text.decode(errors="replace"))
        answers[0] = libc.calloc(count, ctypes.sizeof(Response))
        return 0

    keep = CONVERSE(converse)
    conversation = Conversation(keep, None)
    handle = ctypes.c_void_p()
    started = libpam.pam_start_confdir(
        call["service"].encode(),
        call["user"].encode(),
        ctypes.byref(conversation),
        call["confdir"].encode(),
        ctypes.byref(handle),
    )
    if started:
        return {"code": -started, "env": {}}
    libpam.pam_set_item(handle, PAM_TTY, b"ssh")
    if call.get("rhost"):
        libpam.pam_set_item(handle, PAM_RHOST, call["rhost"].encode())
    code = 0
    for phase in call["phases"]:
        code = getattr(libpam, PHASES[phase])(handle, 0)
        if code:
            break
    libpam.pam_getenvlist.restype = ctypes.POINTER(ctypes.c_char_p)
    names = libpam.pam_getenvlist(handle)
    env = {}
    index = 0
    while names[index]:
        name, _, value = names[index].decode(errors="replace").partition("=")
        env[name] = value
        index += 1
    libpam.pam_end(handle, code)
    return {"code": code, "env": env}


def be_child(call: dict[str, Any], connection: socket.socket | None, start_fd: int, answer_fd: int, name: str) -> None:
    for variable in ("SLURM_CONF", "SLURM_JOB_ID"):
        os.environ.pop(variable, None)
    os.environ.update(call.get("env", {}))
    # as in sshd: the connection, and besides it nothing that looks like one
    kept = {0, 1, 2, start_fd, answer_fd} | ({connection.fileno()} if connection else set())
    for entry in os.listdir("/proc/self/fd"):
        if int(entry) not in kept:
            try:
                os.close(int(entry))
            except OSError:
                pass
    os.dup2(os.open("/dev/null", os.O_RDWR), 0)
    os.dup2(0, 1)
    os.dup2(0, 2)
    os.read(start_fd, 1)
    os.close(start_fd)
    syslog.openlog(name)
    messages: list[str] = []
    before = os.stat("/proc/self/ns/mnt").st_ino
    started = time.monotonic()
    result = call_pam(call, messages)
    result["elapsed_s"] = round(time.monotonic() - started, 3)
    result["messages"] = messages
    result["mount_joined"] = os.stat("/proc/self/ns/mnt").st_ino != before
    with open("/proc/thread-self/cgroup") as file:
        result["cgroup"] = file.read()
    os.write(answer_fd, json.dumps(result).encode())
    time.sleep(call.get("linger_s", 0))
    os._exit(0)


class Start:
    """Where children wait until all of them are there and the driver has closed its copies of their connections.

    A child that came to the module before that would find in the driver, its parent, the sshd that carries its connection
    on, and the driver would be adopted, with every later call.
    """

    def __init__(self) -> None:
        self.read_fd, self._write_fd = os.pipe()

    def give(self) -> None:
        os.close(self.read_fd)
        os.close(self._write_fd)


class Running:
    """One call under way."""

    def __init__(self, call: dict[str, Any], callers: Callers, start: Start, name: str) -> None:
        self.call = call
        self.name = name
        self.deadline = time.monotonic() + CALL_TIMEOUT_S
        connection = callers.of(call["caller"])
        self.read_fd, write_fd = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self.read_fd)
                be_child(call, connection, start.read_fd, write_fd, name)
            finally:
                os._exit(99)
        os.close(write_fd)
        if connection is not None:
            connection.close()

    def finish(self) -> dict[str, Any]:
        """What the child said, and how it ended."""
        data = b""
        hung = False
        while True:
            ready, _, _ = select.select([self.read_fd], [], [], max(0, self.deadline - time.monotonic()))
            if not ready:
                hung = True
                os.kill(self.pid, signal.SIGKILL)
                break
            piece = os.read(self.read_fd, 1 << 16)
            if not piece:
                break
            data += piece
        os.close(self.read_fd)
        status = os.waitpid(self.pid, 0)[1]
        result = json.loads(data) if data else {"code": None, "env": {}, "messages": [], "cgroup": "", "elapsed_s": -1}
        result["name"] = self.name
        result["hung"] = hung
        result["exit"] = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        result["signal"] = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        return result


class Callers:
    """Connections from where a login may come: from outside of all jobs, and from the jobs that have connected.

    They live in a process of their own: the driver, parent of every call, must not look like the sshd that carries
    the connection on, or it would rightly be adopted itself.
    """

    def __init__(self) -> None:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener = socket.create_server(ADDRESS, backlog=64)
        self.pid = os.fork()
        if self.pid == 0:
            here.close()
            try:
                self.serve(listener, there)
            finally:
                os._exit(1)
        there.close()
        listener.close()
        self.asked = here

    @staticmethod
    def serve(listener: socket.socket, asked: socket.socket) -> None:
        client = socket.create_connection(ADDRESS, source_address=(ADDRESS[0], 0))
        by_name = {"outside": listener.accept()[0], "": client}
        while True:
            name = asked.recv(64).decode()
            if not name:
                os._exit(0)
            deadline = time.monotonic() + 60
            while name not in by_name:
                listener.settimeout(max(0.1, deadline - time.monotonic()))
                connection, _ = listener.accept()
                by_name[connection.recv(32).decode().strip()] = connection
            rights = struct.pack("=i", by_name[name].fileno())
            asked.sendmsg([b"+"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    def of(self, name: str) -> socket.socket | None:
        """The driver's copy is closed as soon as the call's child has its own."""
        if not name:
            return None
        self.asked.send(name.encode())
        _, ancillary, _, _ = self.asked.recvmsg(1, socket.CMSG_SPACE(4))
        return socket.socket(fileno=struct.unpack("=i", ancillary[0][2])[0])


def main() -> None:
    callers = Callers()
    number = 0
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        batch = json.loads(line)
        calls = batch["calls"]
        results = []
        for together in [calls] if batch.get("parallel") else [[call] for call in calls]:
            start = Start()
            running = []
            for call in together:
                number += 1
                running.append(Running(call, callers, start, f"case{number}"))
            start.give()
            results += [one.finish() for one in running]
        print(json.dumps(results), flush=True)


if __name__ == "__main__":
    main()
