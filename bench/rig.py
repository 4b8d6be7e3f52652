# SPDX-License-Identifier: Apache-2.0
"""The node that is measured: both modules, each behind PAM services of its own."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from lab.machine import wait_for
from lab.node import Node
from lab.product import install_product
from lab.root import cache_dir
from lab.sshd import Sshd

HERE = Path(__file__).parent
SOCKET = "/run/slurm-adopt/login.sock"
NAMES = ("none", "original", "oneshot", "resident")
#: Our module, and a service that refuses everybody at once (`answer.c`).
EXCHANGE = "exchange"
EXCHANGE_SOCKET = "/run/bench/answer.sock"
#: Our module, and a service in Python that does the least (`least.py`); it admits alice.
LEAST = "least-python"
LEAST_SOCKET, STEP_LINK = "/run/bench/least.sock", "/run/bench/step"
PAM_PERM_DENIED = 6
#: Our module and the resident service, with `hasten=no`.
PLAIN = "resident, not hastened"
#: Microseconds between two calls.
PAUSE_US = 5_000
#: Nobody has logged in for a while, as on most nodes most of the time.
QUIET_US = 100_000
QUIET_ROUNDS = 10
#: A one-shot helper asks slurmstepd so long after the last call: Python starts first.
ONESHOT_PAUSE_US = 20_000
#: The safe settings of each, and nothing more.
ORIGINAL_OPTIONS = "service=* action_adopt_failure=deny action_generic_failure=deny log_level=info"
OUR_OPTIONS = "service=* profile=strict"
#: Not the minutes of a test: a run with 150 jobs takes a while.
JOB = "sleep 100000"
SSH_PORT = 2200
BLOCKS = 4
BARE_PYTHON = """
import os, sys, time
for _ in range(int(sys.argv[1])):
    start = time.perf_counter_ns()
    pid = os.posix_spawn("/usr/bin/python3", ["/usr/bin/python3", "-I", "-S", "-c", "pass"], {})
    os.waitpid(pid, 0)
    print((time.perf_counter_ns() - start) // 1000)
"""
#: What `describe` calls the time of `quiet_floor`: whether the kernel waits.
QUIET_FLOOR = "slurmstepd alone on a quiet node"
Found = Mapping[str, Sequence[float]]
"""Milliseconds by name, and answers by "code of NAME"; element i of all lists is of the same round."""


class WrongAnswer(SystemExit):
    """A login was admitted or refused wrongly: its time means nothing."""


def module_lines(node: Node) -> dict[str, str]:
    """The PAM line of each name, without its type."""
    return {
        "none": "required pam_permit.so",
        "original": f"required {node.original_module} {ORIGINAL_OPTIONS}",
        "oneshot": f"required pam_slurm_adopt.so {OUR_OPTIONS} mode=oneshot",
        "resident": f"required pam_slurm_adopt.so {OUR_OPTIONS} mode=service",
        PLAIN: f"required pam_slurm_adopt.so {OUR_OPTIONS} mode=service hasten=no",
        EXCHANGE: f"required pam_slurm_adopt.so {OUR_OPTIONS} mode=service socket={EXCHANGE_SOCKET}",
        LEAST: f"required pam_slurm_adopt.so {OUR_OPTIONS} mode=service socket={LEAST_SOCKET}",
    }


@contextlib.contextmanager
def measured_node(suite: str | None) -> Iterator[Node]:
    """A node with both modules and the drivers installed."""
    with Node(suite) as node:
        # a node's /sys is read-only, and so nothing would be hastened: what a login leaves there, the node puts back
        node.run(["mount", "-o", "remount,rw", "/sys"])
        install_drivers(node)
        yield node


def install_drivers(node: Node) -> None:
    """Both modules, each behind a PAM service of its own, and the programs that measure."""
    install_product(node)
    for name, libraries in (("pamtime", ["-lpam"]), ("floor", []), ("answer", [])):
        driver = cache_dir() / "builds" / name
        subprocess.run(["cc", "-O2", "-o", driver, HERE / f"{name}.c", *libraries], check=True)
        node.install(driver, f"/run/bench/{name}", 0o755)
    node.write("/run/bench/bare.py", BARE_PYTHON)
    for script in ("logins", "flows", "least"):
        node.install(HERE / f"{script}.py", f"/run/bench/{script}.py")
    for name, line in module_lines(node).items():
        stack = f"account {line}\nsession required pam_permit.so\nauth required pam_unix.so\n"
        node.write(f"/etc/pam.d/bench-{_word(name)}", stack)


def _word(name: str) -> str:
    """A name as one word, for files and what the drivers print."""
    return name.replace(", ", "_").replace(" ", "_")


@contextlib.contextmanager
def least_services(node: Node) -> Iterator[None]:
    """What answers for EXCHANGE and for LEAST."""
    sockets = (EXCHANGE_SOCKET, LEAST_SOCKET)
    least = ["/usr/bin/python3", "-IS", "/run/bench/least.py", LEAST_SOCKET, "alice", STEP_LINK]
    carriers = [node.popen(argv) for argv in (["/run/bench/answer", EXCHANGE_SOCKET], least)]
    try:
        wait_for(lambda: all(node.path(socket).exists() for socket in sockets), "the sockets of what is compared with")
        yield
    finally:
        for carrier, socket in zip(carriers, sockets):
            carrier.kill()
            carrier.wait()
            node.path(socket).unlink(missing_ok=True)


@contextlib.contextmanager
def resident_service(node: Node) -> Iterator[int]:
    """The resident service, as another supervisor than systemd would run it; its pid in the node."""
    carrier = node.popen(["/usr/bin/slurm-adopt", "serve", "--listen", SOCKET], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: node.path(SOCKET).exists(), "the service's socket")
        yield next(p.pid for p in node.processes("root") if p.command.endswith(f"serve --listen {SOCKET}"))
    finally:
        carrier.kill()  # the service goes with it, its socket does not
        carrier.wait()
        node.path(SOCKET).unlink(missing_ok=True)


def ssh_server(node: Node, **lines: str) -> Sshd:
    """An sshd without debug log that lets root's key in as anybody, and the PAM stacks of all NAMES for it.

    The stacks are in /run/bench/pam, to be put in place in turn: OpenSSH before 9.8 has one PAM service only.
    """
    node.write("/etc/ssh/bench_keys", node.read("/root/.ssh/id_ed25519.pub"))
    for name, line in {**module_lines(node), **lines}.items():
        ours = "pam_slurm_adopt.so profile" in line or "pam_slurm_adopt.so service" in line
        node.pam("sshd", account=[line], session=[line] if ours and name != "original" else [])
        node.write(f"/run/bench/pam/{name}", node.read("/etc/pam.d/sshd"))
    # KexAlgorithms: what client and server agree on by themselves, as on a cluster
    options = ["LogLevel INFO", "AuthorizedKeysFile /etc/ssh/bench_keys", "KexAlgorithms +curve25519-sha256"]
    return node.sshd("bench", SSH_PORT, options)


def use_stack(node: Node, name: str) -> None:
    """sshd's PAM stack of this name from now on."""
    node.write("/etc/pam.d/sshd", node.read(f"/run/bench/pam/{name}"))


@contextlib.contextmanager
def job_of(node: Node, user: str) -> Iterator[int]:
    """A new job of this user; its id."""
    job = node.submit(user, JOB)
    node.run(["ln", "-sfn", _step_socket(node, job), STEP_LINK])
    try:
        yield job
    finally:
        node.cancel(job)


def _step_socket(node: Node, job: int) -> str:
    """Where the job's extern step listens, in the node."""
    socket = node.extern_socket(job)
    assert socket is not None, "the job's extern step has just been asked"
    return f"{node.spool_dir}/{socket.name}"


def quiet_floor(node: Node) -> str:
    """slurmstepd's share of a login that comes alone: ten times as long where the kernel lets it wait."""
    with job_of(node, "alice") as job:
        found = _floor(node, job, QUIET_ROUNDS, QUIET_US)
    return f"{statistics.median(ms for ms, _ in found):.1f} ms"


def _floor(node: Node, job: int, rounds: int, pause_us: int) -> list[tuple[float, int]]:
    """Milliseconds and answer of each round."""
    argv = ["/run/bench/floor", str(rounds), str(pause_us), _step_socket(node, job)]
    words = [line.split() for line in node.run(argv, timeout=600).stdout.splitlines()]
    return [(int(microseconds) / 1000, int(code)) for _, microseconds, code in words]


def blocks(rounds: int, most: int = BLOCKS) -> list[int]:
    """Rounds in a few blocks, so that what cannot change from call to call changes from block to block."""
    count = min(most, rounds)
    return [rounds // count + (1 if number < rounds % count else 0) for number in range(count)]


def call(
    node: Node,
    user: str,
    rounds: int,
    names: Sequence[str] = NAMES,
    source: tuple[str, int] = ("127.0.0.1", 0),
    pause_us: int = PAUSE_US,
) -> dict[str, list[float]]:
    """Milliseconds of pam_acct_mgmt() for all names in turn.

    source: where the login comes from, and the port there to which the process holds a connection (0: none).
    """
    found: dict[str, list[float]] = defaultdict(list)
    services = {f"bench-{_word(name)}": name for name in names}
    argv = ["/run/bench/pamtime", str(rounds), str(pause_us), user, source[0], str(source[1]), *services]
    for line in node.run(argv, timeout=600).stdout.splitlines():
        word, microseconds, code = line.split()
        name = services[word]
        found[name].append(int(microseconds) / 1000)
        found[f"code of {name}"].append(int(code))
    return found


def measure(
    node: Node,
    user: str,
    rounds: int,
    job: int = 0,
    source: tuple[str, int] = ("127.0.0.1", 0),
    names: Sequence[str] = NAMES,
    pause_us: int = PAUSE_US,
) -> dict[str, list[float]]:
    """One block: `call`, and what it is compared with.

    "bare-python": a Python that does nothing. With a job, whose extern step is asked, slurmstepd's share: "floor" with
    the same pause between two calls, "floor-oneshot" with that of a one-shot helper.
    """
    found = call(node, user, rounds, names, source, pause_us)
    for line in node.run(["/usr/bin/python3", "/run/bench/bare.py", str(rounds)], timeout=600).stdout.splitlines():
        found["bare-python"].append(int(line) / 1000)
    for name, floor_us in (("floor", pause_us), ("floor-oneshot", ONESHOT_PAUSE_US)) if job else ():
        for milliseconds, answer in _floor(node, job, rounds, floor_us):
            found[name].append(milliseconds)
            found[f"code of {name}"].append(answer)
    return found


def merge(found: Sequence[Found]) -> dict[str, list[float]]:
    """The blocks as one."""
    return {name: [value for block in found for value in block[name]] for name in found[0]}


def check_codes(found: Found, code: int) -> None:
    """Raises WrongAnswer unless every module gave this PAM code each time (and the bare stack success)."""
    for name in (*NAMES, PLAIN, LEAST, EXCHANGE):
        wanted = {"none": 0, EXCHANGE: PAM_PERM_DENIED}.get(name, code)
        wrong = [value for value in found.get(f"code of {name}", ()) if value != wanted]
        if wrong:
            raise WrongAnswer(f"{name}: {len(wrong)} of {len(found[name])} calls answered {wrong[0]}, not {wanted}")


def busy_processes(node: Node, count: int) -> AbstractContextManager[int]:
    """A job of carol's in which `count` processes do nothing but use the processors; 0: no job."""
    return _busy(node, count) if count else contextlib.nullcontext(0)


@contextlib.contextmanager
def _busy(node: Node, count: int) -> Iterator[int]:
    job = node.submit("carol", f"for i in $(seq {count}); do (while :; do :; done) & done; wait")
    loop = node.account("carol")[0]
    wait_for(lambda: sum(p.command.startswith("/bin/sh") for p in node.processes(loop)) >= count, "a full node")
    try:
        yield job
    finally:
        node.cancel(job)
