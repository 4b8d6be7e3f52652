# SPDX-License-Identifier: Apache-2.0
"""In the node: real ssh logins, timed from the start of the client to its end.

usage: logins.py turns PORT ROUNDS USER STACK...   one login per stack and round, in turn
                                                   prints STACK MICROSECONDS CODE
       logins.py storm PORT LIMIT_S USER...        all at once; those that last longer than the limit are killed
                                                   prints one JSON list: [USER, MILLISECONDS, CODE or null, TEXT]
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time


def ssh(port: str, user: str, command: str) -> list[str]:
    options = ["-oBatchMode=yes", "-oConnectTimeout=120", "-oPreferredAuthentications=publickey"]
    return ["/usr/bin/ssh", "-p", port, *options, f"{user}@127.0.0.1", command]


def turns(port: str, rounds: int, user: str, stacks: list[str]) -> None:
    for _ in range(rounds):
        for stack in stacks:
            shutil.copy(f"/run/bench/pam/{stack}", "/etc/pam.d/sshd")
            start = time.perf_counter_ns()
            code = subprocess.call(ssh(port, user, "true"), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            print(stack, (time.perf_counter_ns() - start) // 1000, code)


def storm(port: str, limit_s: float, users: list[str]) -> None:
    started: dict[int, tuple[int, int]] = {}
    texts = [tempfile.TemporaryFile() for _ in users]  # noqa: SIM115  # they go with the process
    for number, (user, text) in enumerate(zip(users, texts)):
        begin = time.monotonic_ns()
        argv = ssh(port, user, "cat /proc/self/cgroup")
        client = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=text, stderr=subprocess.STDOUT)
        client.returncode = 0  # reaped below, not by Popen
        started[client.pid] = (number, begin)
    deadline = time.monotonic() + limit_s
    results: list[list[object]] = [[user, 0, None, ""] for user in users]
    while started:
        late = time.monotonic() > deadline
        for pid in started if late else ():
            os.kill(pid, 9)
        pid, status = os.waitpid(-1, 0 if late else os.WNOHANG)
        if not pid:
            time.sleep(0.002)
            continue
        number, begin = started.pop(pid)
        texts[number].seek(0)
        code = None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        elapsed_ms = (time.monotonic_ns() - begin) / 1e6
        results[number][1:] = [elapsed_ms, code, texts[number].read().decode(errors="replace")]
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    if sys.argv[1] == "turns":
        turns(sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5:])
    else:
        storm(sys.argv[2], float(sys.argv[3]), sys.argv[4:])
