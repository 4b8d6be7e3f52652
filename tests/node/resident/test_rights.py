# SPDX-License-Identifier: Apache-2.0
"""A login that needs more rights than the service's unit gives it goes to the one-shot helper."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slurm_adopt.login.decide import decide_login
from slurm_adopt.login.recent import Recent
from slurm_adopt.system.kernel.procfs import Process
from slurm_adopt.system.rpc.munge import may_become_others
from slurm_adopt.system.tasks.task import HelperNeeded, run
from slurm_adopt.wire.login_exchange import LoginRequest

SOURCE = Path(__file__).parents[3] / "src"
#: As the unit's CapabilityBoundingSet= does.
WITHOUT = ["setpriv", "--bounding-set=-setuid,-setgid", "--inh-caps=-setuid,-setgid"]
MAY = "from slurm_adopt.system.rpc.munge import may_become_others; print(may_become_others())"
#: Slurm 20.11 and 21.08 do not bind a credential to its message: there the question is asked as the user.
ASK = """
from slurm_adopt.system.rpc import callerid, credentials as rpc_auth
from slurm_adopt.system.rpc.memory import CallerMemory
from slurm_adopt.system.rpc.munge import MungeWorkers
from slurm_adopt.system.tasks.task import HelperNeeded, run
class node: address, port = "127.0.0.1", 6818
callerid.speaker = lambda conf, version, uid: uid
def never(*_): raise AssertionError("a connection, although nothing can be asked over it")
callerid.connect_tcp = never
memory = CallerMemory()
memory.workers = MungeWorkers(LATER)
try:
    run(callerid.ask_node(callerid.Asker(None, None, 36 << 8, 1501, memory), node, 1 << 62))
except HelperNeeded as needed:
    print("helper needed:", needed)
except AssertionError:
    print("asked all the same")
"""


class Lacking:
    """A `StepSource` of a service that may not do what the login needs."""

    recent = Recent()

    def read_conf(self, deadline_ns: int, place: str | None = None) -> object:  # noqa: ARG002
        yield from ()
        raise HelperNeeded


def python(code: str, *before: str) -> str:
    environment = {"PYTHONPATH": str(SOURCE), "PATH": "/usr/bin:/bin"}
    argv = [*before, sys.executable, "-c", code]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="rights are root's to give up")
def test_rights__are_seen_as_the_kernel_has_them() -> None:
    assert may_become_others()
    assert python(MAY).strip() == "True"
    assert python(MAY, *WITHOUT).strip() == "False"


@pytest.mark.skipif(os.geteuid() != 0, reason="rights are root's to give up")
def test_rights__a_question_as_the_user_needs_the_helper() -> None:
    service, login = ASK.replace("LATER", "lambda *_: None"), ASK.replace("LATER", "None")
    assert python(service, *WITHOUT).startswith("helper needed: version 36 is asked as the user")
    # a one-shot login in a container without the right: there is nobody else to leave it to
    assert python(login, *WITHOUT).strip() == "asked all the same"


def test_rights__what_they_lack_the_service_leaves_to_the_helper() -> None:
    request = LoginRequest("account", time.monotonic_ns() + 10**9, "sshd", "bob", 1502, args=("profile=strict",))
    with pytest.raises(HelperNeeded):
        run(decide_login(request, Process(os.getpid(), 1), Lacking()))  # type: ignore[arg-type]
