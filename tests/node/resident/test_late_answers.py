# SPDX-License-Identifier: Apache-2.0
"""What a slurmstepd does that answers too late, and that it is undone. Real slurmstepds."""

from __future__ import annotations

import json

import pytest

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


#: Runs in the node. The slurmstepd of the first job is stopped, asked to take in a process, and goes on when the second
#: one has taken it in.
TWO_JOBS = """
import json, os, signal, sys, time
sys.path.insert(0, "/usr/lib/slurm-adopt")
from slurm_adopt.login.adoption import adopt_into
from slurm_adopt.login.recent import Recent
from slurm_adopt.login.steps import FreshLookup
from slurm_adopt.resident.late_answers import LateAnswers
from slurm_adopt.system.kernel.procfs import read_cgroups, read_process
from slurm_adopt.system.slurm.stepd import request_adoption
from slurm_adopt.system.tasks.loop import Loop
from slurm_adopt.system.tasks.task import run
process = read_process(int(sys.argv[1]))
deadline_ns = time.monotonic_ns() + 30 * 10**9
source = FreshLookup()
found = run(source.query_own(run(source.read_conf(deadline_ns)), "", 1501, deadline_ns))
first, second = (step.connection for step in sorted(found.own, key=lambda step: step.path.job_id))
os.kill(first.identity.pid, signal.SIGSTOP)
tasks = f"/proc/{first.identity.pid}/task"
while any(open(f"{tasks}/{task}/stat").read().rpartition(") ")[2][0] != "T" for task in os.listdir(tasks)):
    time.sleep(0.001)
run(request_adoption(first, (process,), False, False))
loop, told = Loop(), []
late = LateAnswers(loop, told.append)
late.watch(first.take_over(), (process,))
run(adopt_into(second, 1501, lambda: (process,), False, False, Recent()))
if sys.argv[2] == "settled":
    late.settle((process,))
os.kill(first.identity.pid, signal.SIGCONT)
while late.waiting:
    loop.turn()
print(json.dumps([[[one.pid, one.uid, one.owner, one.is_back] for one in told], read_cgroups(process).decode()]))
"""


@pytest.mark.parametrize("login", ["settled", "refused"])
def test_late_answers__a_login_stays_in_the_job_that_took_it_in(node: Node, login: str) -> None:
    jobs = [node.submit("alice") for _ in range(2)]
    node.write("/etc/lab/two.py", TWO_JOBS)
    process = node.popen(["sleep", "5555"], "alice")
    try:
        number = node.process("sleep 5555", "alice").pid
        told, cgroups = json.loads(node.run(["python3", "-I", "/etc/lab/two.py", str(number), login]).stdout)
    finally:
        process.kill()
        process.wait()
    assert told == ([[number, 1501, 1501, True]] if login == "settled" else [])
    expected, other = jobs[::-1] if login == "settled" else jobs
    assert f"/job_{expected}/step_extern" in cgroups
    assert f"/job_{other}/" not in cgroups


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
