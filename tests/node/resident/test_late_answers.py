# SPDX-License-Identifier: Apache-2.0
"""A number that had changed hands when slurmstepd moved it: the stranger is told of and put back. Real slurmstepd."""

from __future__ import annotations

import json

from lab.node import Node

#: Runs in the node. slurmstepd is asked to take in a process that has ended, whose number is bob's by now.
SCRIPT = """
import json, sys, time
sys.path.insert(0, "/usr/lib/slurm-adopt")
from slurm_adopt.login.steps import FreshLookup
from slurm_adopt.resident.late_answers import LateAnswers
from slurm_adopt.system.kernel.procfs import Process, read_cgroups, read_process
from slurm_adopt.system.slurm.stepd import request_adoption
from slurm_adopt.system.tasks.loop import Loop
from slurm_adopt.system.tasks.task import run
number = int(sys.argv[1])
bob = read_process(number)
ended = Process(bob.pid, bob.started - 1)
deadline_ns = time.monotonic_ns() + 5 * 10**9
source = FreshLookup()
connection = run(source.query_own(run(source.read_conf(deadline_ns)), "", 1501, deadline_ns)).own[0].connection
before = read_cgroups(bob)
run(request_adoption(connection, (ended,), False, False))
loop, found = Loop(), []
late = LateAnswers(loop, found.append)
late.watch(connection.take_over(), (ended,))
connection.close()
while late.waiting:
    loop.turn()
print(json.dumps([[one.pid, one.uid, one.owner, one.is_back] for one in found] + [read_cgroups(bob) == before]))
"""


def test_late_answers__a_stranger_is_put_back(node: Node) -> None:
    node.submit("alice")
    node.write("/etc/lab/late.py", SCRIPT)
    parent = node.popen(["sh", "-c", "sleep 4444 & wait"], "bob")
    try:
        number = node.process("sleep 4444", "bob").pid
        said = json.loads(node.run(["python3", "-I", "/etc/lab/late.py", str(number)], timeout=60).stdout)
    finally:
        node.run("pkill -KILL -u bob", check=False)
        parent.wait()
    assert said == [[number, 1501, 1502, True], True]
