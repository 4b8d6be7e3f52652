# SPDX-License-Identifier: Apache-2.0
"""The node that is measured: both modules, each behind PAM services of its own."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from pathlib import Path

from lab.machine import wait_for
from lab.node import Node
from lab.product import install_product
from lab.root import cache_dir

HERE = Path(__file__).parent
SOCKET = "/run/slurm-adopt/login.sock"
#: The safe settings of each, and nothing more.
ORIGINAL_OPTIONS = "service=* action_adopt_failure=deny action_generic_failure=deny log_level=info"
OUR_OPTIONS = "service=* profile=strict"
BARE_PYTHON = """
import os, sys, time
for _ in range(int(sys.argv[1])):
    start = time.perf_counter_ns()
    pid = os.posix_spawn("/usr/bin/python3", ["/usr/bin/python3", "-I", "-S", "-c", "pass"], {})
    os.waitpid(pid, 0)
    print("bare-python", (time.perf_counter_ns() - start) // 1000, 0)
"""


def prepare(node: Node) -> None:
    """Install both modules, the timing driver, and one PAM service for each thing to compare."""
    install_product(node)
    driver = cache_dir() / "builds" / "pamtime"
    subprocess.run(["cc", "-O2", "-o", driver, HERE / "pamtime.c", "-lpam"], check=True)
    node.install(driver, "/run/bench/pamtime", 0o755)
    node.write("/run/bench/bare.py", BARE_PYTHON)
    lines = {
        "none": "pam_permit.so",
        "original": f"{node.original_module} {ORIGINAL_OPTIONS}",
        "oneshot": f"pam_slurm_adopt.so {OUR_OPTIONS} mode=oneshot",
        "resident": f"pam_slurm_adopt.so {OUR_OPTIONS} mode=service",
    }
    for name, line in lines.items():
        stack = f"account required {line}\nsession required pam_permit.so\nauth required pam_unix.so\n"
        node.write(f"/etc/pam.d/bench-{name}", stack)


def start_service(node: Node) -> subprocess.Popen[str]:
    """The resident service, as another supervisor than systemd would run it."""
    service = node.popen(["/usr/bin/slurm-adopt", "serve", "--listen", SOCKET])
    wait_for(lambda: node.path(SOCKET).exists(), "the service's socket")
    return service


def measure(node: Node, user: str, rounds: int, names: list[str]) -> dict[str, list[float]]:
    """Milliseconds of pam_acct_mgmt() by name, one of each name per round, in turn."""
    found: dict[str, list[float]] = defaultdict(list)
    services = [f"bench-{name}" for name in names]
    for _ in range(4):
        commands = [["/run/bench/pamtime", str(rounds // 4), user, *services]]
        commands.append(["/usr/bin/python3", "/run/bench/bare.py", str(rounds // 4)])
        for command in commands:
            for line in node.run(command, timeout=600).stdout.splitlines():
                name, microseconds, code = line.split()
                found[name.removeprefix("bench-")].append(int(microseconds) / 1000)
                found[f"code of {name.removeprefix('bench-')}"].append(int(code))
    return found
